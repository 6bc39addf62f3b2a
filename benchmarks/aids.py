"""What each aid of fine-tuning brings on little data: accuracy over several seeds.

    python benchmarks/aids.py --data_dir=DIR --bert_dir=DIR --output_dir=DIR [--rows=2000]
        [--epochs=3] [--seeds=1,2,3] [--aids="none,EMA 0.98"]

The data is in SST-2's layout; the first rows of its training file are trained on with batches of
32, 64 tokens and rate 5e-5, and its dev file is predicted by the last model. Every aid is tried
by itself. Of each, the models of all seeds are also taken together: the mean of their probabilities
(ensemble), and one model with the mean of their weights (soup). Runs that are in --output_dir are
not repeated.
"""

import argparse
import math
import pathlib
import statistics
import subprocess
import sys

import numpy as np

ROOT = pathlib.Path(__file__).parent.parent
AIDS = {
    "none": [],
    "layer_decay 0.9": ["--layer_decay=0.9"],
    "bias correction": ["--adam_bias_correction"],
    "label smoothing 0.1": ["--label_smoothing=0.1"],
    "embeddings frozen": ["--freeze=embeddings"],
    "head rate 1e-3": ["--head_learning_rate=1e-3"],
    "EMA 0.98": ["--ema_decay=0.98"],
    "R-Drop 1": ["--rdrop_alpha=1"],
    "unfreezing every 20 steps": ["--unfreeze_schedule=20"],
    "dropout 0": ["--hidden_dropout_prob=0", "--attention_probs_dropout_prob=0"],
    "dropout 0.2": ["--hidden_dropout_prob=0.2", "--attention_probs_dropout_prob=0.2"],
}
ANSWERS = "test_results.tsv"


def classify(arguments, bert_dir, out, *flags):
    """Predicts the dev file, after training if `flags` say so; returns probabilities [N, 2]."""
    command = [
        sys.executable,
        str(ROOT / "run_classifier.py"),
        f"--predict_file={arguments.data_dir}/dev.tsv",
        "--do_predict",
        f"--bert_dir={bert_dir}",
        f"--output_dir={out}",
        "--max_seq_length=64",
        "--predict_batch_size=32",
        *flags,
    ]
    if not (out / ANSWERS).exists():
        subprocess.run(command, check=True, capture_output=True)
    return np.loadtxt(out / ANSWERS)


def train(arguments, aid, seed, out):
    """Returns the answers of a model that is trained with an aid."""
    return classify(
        arguments,
        arguments.bert_dir,
        out,
        f"--train_file={arguments.train_file}",
        "--do_train",
        "--learning_rate=5e-5",
        f"--num_train_epochs={arguments.epochs}",
        "--keep_checkpoint_max=1",
        f"--seed={seed}",
        *AIDS[aid],
    )


def soup(arguments, outs, directory):
    """Returns the answers of the model whose weights are the mean of the models' weights."""
    mean = directory / "mean"
    command = [sys.executable, "-m", "bert_toolkit", "convert", "--to=google"]
    command += [f"--bert_dir={outs[0]}", f"--average={','.join(map(str, outs))}"]
    if not mean.exists():
        command += [f"--output_dir={mean}"]
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    return classify(arguments, mean, directory / "soup")


def measure(arguments, aid, labels):
    """Returns a row of the table."""
    directory = arguments.output_dir.resolve() / aid.replace(" ", "_")
    outs = [directory / f"run_{seed}" for seed in arguments.seeds]
    found = [train(arguments, aid, *each) for each in zip(arguments.seeds, outs)]
    together = [np.mean(found, axis=0), soup(arguments, outs, directory)]
    single, together = (
        [float(np.mean(answers.argmax(-1) == labels)) for answers in each]
        for each in (found, together)
    )
    error = statistics.stdev(single) / math.sqrt(len(single)) if len(single) > 1 else math.nan
    runs = ", ".join(f"{score:.3f}" for score in single)
    mean = f"{statistics.mean(single):.4f} ± {error:.4f}"
    return [aid, mean, runs, *(f"{score:.3f}" for score in together)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_dir", required=True, type=pathlib.Path)
    parser.add_argument("--bert_dir", required=True)
    parser.add_argument("--output_dir", required=True, type=pathlib.Path)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--aids", default=",".join(AIDS))
    arguments = parser.parse_args()
    arguments.seeds = [int(seed) for seed in arguments.seeds.split(",")]
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    arguments.train_file = arguments.output_dir / "train.tsv"
    lines = (arguments.data_dir / "train.tsv").read_text().splitlines(True)
    arguments.train_file.write_text("".join(lines[: arguments.rows + 1]))
    rows = (arguments.data_dir / "dev.tsv").read_text().splitlines()[1:]
    labels = np.array([int(row.rpartition("\t")[2]) for row in rows])
    header = ["aid", "accuracy", "runs", "ensemble", "soup"]
    print("| " + " | ".join(header) + " |\n" + "|---" * len(header) + "|", flush=True)
    for aid in arguments.aids.split(","):
        print("| " + " | ".join(measure(arguments, aid, labels)) + " |", flush=True)


if __name__ == "__main__":
    main()
