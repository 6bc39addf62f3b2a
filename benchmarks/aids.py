"""What each aid of fine-tuning brings on little data: last and best model, mean of several seeds.

    python benchmarks/aids.py --data_dir=DIR --bert_dir=DIR [--rows=2000] [--seeds=1,2,3]

The data is in SST-2's layout; the first rows of its training file are trained on for three epochs,
batch 32, 64 tokens, rate 5e-5, and evaluated on its dev file after each. Every aid is tried by
itself.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parent.parent
AIDS = {
    "none": [],
    "layer_decay 0.9": ["--layer_decay=0.9"],
    "bias correction": ["--adam_bias_correction"],
    "label smoothing 0.1": ["--label_smoothing=0.1"],
    "embeddings frozen": ["--freeze=embeddings"],
}


def run(arguments, train_file, aid, seed, out):
    """Returns accuracy of the last and of the best model of one run."""
    command = [
        sys.executable,
        str(ROOT / "run_classifier.py"),
        f"--train_file={train_file}",
        f"--eval_file={arguments.data_dir}/dev.tsv",
        "--do_train",
        f"--bert_dir={arguments.bert_dir}",
        f"--output_dir={out}",
        "--max_seq_length=64",
        "--learning_rate=5e-5",
        "--num_train_epochs=3",
        "--evaluate_every=epoch",
        "--eval_batch_size=32",
        f"--seed={seed}",
        *AIDS[aid],
    ]
    subprocess.run(command, check=True, capture_output=True)
    score = json.loads((pathlib.Path(out) / "best" / "score.json").read_text())
    return score["last_score"], score["score"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--bert_dir", required=True)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--aids", default=",".join(AIDS))
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    with tempfile.TemporaryDirectory() as directory:
        train_file = pathlib.Path(directory) / "train.tsv"
        lines = (pathlib.Path(arguments.data_dir) / "train.tsv").read_text().splitlines(True)
        train_file.write_text("".join(lines[: arguments.rows + 1]))
        for aid in arguments.aids.split(","):
            found = [
                run(arguments, train_file, aid, seed, f"{directory}/{aid}-{seed}") for seed in seeds
            ]
            last, best = ([scores[index] for scores in found] for index in (0, 1))
            spread = statistics.stdev(best) if len(best) > 1 else 0.0
            print(
                f"{aid:<22} last {statistics.mean(last):.4f}  best {statistics.mean(best):.4f}"
                f"  deviation {spread:.4f}  runs {' '.join(f'{score:.3f}' for score in best)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
