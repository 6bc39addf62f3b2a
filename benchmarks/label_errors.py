"""How many wrong labels bert review-data finds: some are flipped, and what it flags compared.

    python benchmarks/label_errors.py --data_dir=DIR [--share=0.05] [--seed=1] [-- FLAGS]

The data is in SST-2's layout, with two labels. Prints precision and recall of the rows it flags by
--checks=labels, and of as many of the first of them as were flipped; flags after -- are passed on,
as in -- --bert_dir=DIR.
Labels that were wrong before count as falsely flagged.
"""

import argparse
import csv
import pathlib
import random
import subprocess
import sys
import tempfile
import time


def flip(source, target, share, seed):
    """Writes a data set with a share of its labels flipped; returns the lines of these rows."""
    header, *rows = source.read_text(encoding="utf-8").rstrip("\n").split("\n")
    rows = [row.rsplit("\t", 1) for row in rows]
    first, second = sorted({label for _, label in rows})
    flipped = set(random.Random(seed).sample(range(len(rows)), round(share * len(rows))))
    with target.open("w", encoding="utf-8") as file:
        print(header, file=file)
        for number, (text, label) in enumerate(rows):
            other = second if label == first else first
            print(text, other if number in flipped else label, sep="\t", file=file)
    return {number + 2 for number in flipped}


def review(train_file, out, flags):
    """Returns the lines that are flagged, the most suspicious first."""
    command = [sys.executable, "-m", "bert_toolkit", "review-data", f"--train_file={train_file}"]
    command += [f"--output_dir={out}", "--checks=labels", "--max_shown=0", *flags]
    subprocess.run(command, check=True, cwd=pathlib.Path(__file__).parent.parent)
    with (pathlib.Path(out) / "review.csv").open(encoding="utf-8", newline="") as file:
        return [int(row["line"]) for row in csv.DictReader(file)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_dir", type=pathlib.Path, required=True)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("flags", nargs="*")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        train_file = pathlib.Path(directory) / "train.tsv"
        source = arguments.data_dir / "train.tsv"
        wrong = flip(source, train_file, arguments.share, arguments.seed)
        start = time.monotonic()
        flagged = review(train_file, pathlib.Path(directory) / "out", arguments.flags)
        seconds = time.monotonic() - start
    print(f"{len(wrong):,} labels flipped, {len(flagged):,} rows flagged in {seconds:.0f} s")
    for what, rows in (("all flagged", flagged), ("the first", flagged[: len(wrong)])):
        right = len(wrong & set(rows))
        print(
            f"{what:<12} {len(rows):>6,} rows  precision {right / max(1, len(rows)):.3f}"
            f"  recall {right / len(wrong):.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
