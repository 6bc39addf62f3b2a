"""Measures the time from `python -c` to the first vector: the import, and the whole.

    python benchmarks/first_vector.py --bert_dir=DIR [--rounds=3]

Each round is a process of its own; the shortest counts.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent


def seconds(code: str, *arguments: str) -> float:
    """Returns how long a program takes until it has run `code`, without what Python does after."""
    start = time.perf_counter()
    command = [sys.executable, "-c", f"import os, sys; {code}; os._exit(0)", *arguments]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run(command, check=True, cwd=ROOT, env=environment)
    return time.perf_counter() - start


def main() -> None:
    """Prints a row for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bert_dir", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    model = os.path.abspath(arguments.bert_dir)
    encode = "from bert_toolkit import Encoder; Encoder(sys.argv[1]).encode(['a text'])"
    codes = {"import tensorflow": "import tensorflow", "first vector": encode}
    best = {
        name: min(seconds(code, model) for _ in range(arguments.rounds))
        for name, code in codes.items()
    }
    for name, taken in best.items():
        print(f"{name:<20}{taken:.1f} s", flush=True)
    print(f"{'beyond the import':<20}{best['first vector'] - best['import tensorflow']:.1f} s")


if __name__ == "__main__":
    main()
