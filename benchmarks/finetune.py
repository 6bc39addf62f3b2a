"""Fine-tunes a classifier with several seeds: accuracy, wall time and peak memory of each run.

    python benchmarks/finetune.py --data_dir=DIR --bert_dir=DIR [--seeds=1,2,3] [--task_name=sst-2]

Each run is run_classifier.py as a user would start it: one epoch, batch 32, 64 tokens, rate 5e-5.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parent.parent


def run(arguments: argparse.Namespace, seed: int, output_dir: str) -> tuple[float, float, float]:
    """Returns dev accuracy, seconds and peak memory in MB of one run."""
    command = [
        sys.executable,
        str(ROOT / "run_classifier.py"),
        f"--task_name={arguments.task_name}",
        f"--data_dir={arguments.data_dir}",
        f"--bert_dir={arguments.bert_dir}",
        f"--output_dir={output_dir}",
        "--do_train",
        "--do_eval",
        "--max_seq_length=64",
        "--train_batch_size=32",
        "--learning_rate=5e-5",
        "--num_train_epochs=1",
        f"--seed={seed}",
    ]
    start = time.monotonic()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit("the run failed")
    seconds = time.monotonic() - start
    results = json.loads(pathlib.Path(output_dir, "eval_results.json").read_text())
    return results["eval_accuracy"], seconds, usage.ru_maxrss / 1000


def main() -> None:
    """Runs all seeds and prints a row for each, then the means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--bert_dir", required=True)
    parser.add_argument("--task_name", default="sst-2")
    parser.add_argument("--seeds", default="1,2,3")
    arguments = parser.parse_args()
    rows = []
    for seed in map(int, arguments.seeds.split(",")):
        with tempfile.TemporaryDirectory() as output_dir:
            rows.append(run(arguments, seed, output_dir))
        accuracy, seconds, memory = rows[-1]
        print(f"seed {seed}: accuracy {accuracy:.3f}, {seconds:.0f} s, {memory:.0f} MB", flush=True)
    accuracies, times, memories = zip(*rows)
    deviation = statistics.stdev(accuracies) if len(rows) > 1 else 0.0
    print(
        f"{len(rows)} runs: accuracy {statistics.mean(accuracies):.3f} +- {deviation:.3f},"
        f" {statistics.median(times):.0f} s, {max(memories):.0f} MB"
    )


if __name__ == "__main__":
    main()
