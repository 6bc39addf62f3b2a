"""What each aid of fine-tuning brings on little data: last and best model, over several seeds.

    python benchmarks/aids.py --data_dir=DIR --bert_dir=DIR [--rows=2000] [--seeds=1,2,3]
        [--aids="none,EMA 0.98"]

The data is in SST-2's layout; the first rows of its training file are trained on for three epochs,
batch 32, 64 tokens, rate 5e-5, and evaluated on its dev file after each. Every aid is tried by
itself. Of each, the last models of all seeds are also taken together: the mean of their
probabilities (ensemble), and one model with the mean of their weights (soup). Accuracies are means
over the seeds, with their standard errors.
"""

import argparse
import json
import math
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

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


def classify(arguments, out, *flags):
    """Runs the stage on the dev file."""
    command = [
        sys.executable,
        str(ROOT / "run_classifier.py"),
        f"--eval_file={arguments.data_dir}/dev.tsv",
        f"--bert_dir={arguments.bert_dir}",
        f"--output_dir={out}",
        "--max_seq_length=64",
        "--eval_batch_size=32",
        *flags,
    ]
    subprocess.run(command, check=True, capture_output=True)


def run(arguments, train_file, aid, seed, out):
    """Trains; returns accuracy of the last and of the best model."""
    classify(
        arguments,
        out,
        f"--train_file={train_file}",
        f"--predict_file={arguments.data_dir}/dev.tsv",
        "--do_train",
        "--do_predict",
        "--checkpoint=last",
        "--predict_batch_size=32",
        "--learning_rate=5e-5",
        "--num_train_epochs=3",
        "--evaluate_every=epoch",
        "--keep_checkpoint_max=1",
        f"--seed={seed}",
        *AIDS[aid],
    )
    score = json.loads((out / "best" / "score.json").read_text())
    return score["last_score"], score["score"]


def ensemble(arguments, outs):
    """Returns the accuracy of the mean of the models' probabilities."""
    lines = (pathlib.Path(arguments.data_dir) / "dev.tsv").read_text().splitlines()[1:]
    labels = np.array([int(line.rpartition("\t")[2]) for line in lines])
    probabilities = np.mean([np.loadtxt(out / "test_results.tsv") for out in outs], axis=0)
    return float(np.mean(probabilities.argmax(-1) == labels))


def soup(arguments, outs, directory):
    """Returns the accuracy of the model whose weights are the mean of the models' weights."""
    from bert_toolkit.checkpoints import checkpoint_files

    models = [checkpoint_files.read(checkpoint_files.find(str(out), "model")) for out in outs]
    mean = {name: np.mean([model[name] for model in models], axis=0) for name in models[0]}
    checkpoint_files.save(str(directory / "mean" / "bert_model.ckpt"), mean)
    flags = ["--do_eval", f"--init_checkpoint={directory}/mean/bert_model.ckpt"]
    classify(arguments, directory / "soup", *flags)
    return json.loads((directory / "soup" / "eval_results.json").read_text())["eval_accuracy"]


def mean_and_error(scores):
    """Returns the mean and its standard error as text."""
    error = statistics.stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else math.nan
    return f"{statistics.mean(scores):.4f} ± {error:.4f}"


def measure(arguments, train_file, aid, directory):
    """Returns a row of the table."""
    start = time.monotonic()
    outs = [directory / f"run_{seed}" for seed in arguments.seeds]
    found = [run(arguments, train_file, aid, *each) for each in zip(arguments.seeds, outs)]
    seconds = (time.monotonic() - start) / len(found)
    last, best = zip(*found)
    together = [f"{ensemble(arguments, outs):.3f}", f"{soup(arguments, outs, directory):.3f}"]
    runs = ", ".join(f"{score:.3f}" for score in last)
    return [aid, mean_and_error(last), mean_and_error(best), runs, *together, f"{seconds:.0f}"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--bert_dir", required=True)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--aids", default=",".join(AIDS))
    arguments = parser.parse_args()
    arguments.seeds = [int(seed) for seed in arguments.seeds.split(",")]
    header = ["aid", "last", "best", "runs (last)", "ensemble", "soup", "seconds a run"]
    print("| " + " | ".join(header) + " |\n" + "|---" * len(header) + "|", flush=True)
    with tempfile.TemporaryDirectory() as data:
        train_file = pathlib.Path(data) / "train.tsv"
        lines = (pathlib.Path(arguments.data_dir) / "train.tsv").read_text().splitlines(True)
        train_file.write_text("".join(lines[: arguments.rows + 1]))
        for aid in arguments.aids.split(","):
            with tempfile.TemporaryDirectory() as directory:
                row = measure(arguments, train_file, aid, pathlib.Path(directory))
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
