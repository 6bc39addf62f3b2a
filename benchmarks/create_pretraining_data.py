"""Measures the making of pretraining data: the published way, ours, and ours with several workers.

    python benchmarks/create_pretraining_data.py [--vocab_file=vocab.txt] english.txt [more.txt ...]

Without a vocabulary each text gets one of its own, of 21,128 entries at most. Every run is a
process as a user would start it, so starting it counts. Seconds are medians, memory is the peak of
the largest process. The files need enough documents for eight shards.
"""

import argparse
import glob
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import table

HERE = os.path.dirname(os.path.abspath(__file__))
STAGE = os.path.join(os.path.dirname(HERE), "create_pretraining_data.py")


def measure(command):
    """Returns seconds, and MB of the largest process."""
    start = time.perf_counter()
    code = (
        "import resource, subprocess, sys\n"
        "code = subprocess.call(sys.argv[1:], stderr=subprocess.DEVNULL)\n"
        "print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, check=True
    )
    exit_code, peak = result.stdout.split()
    if exit_code != "0":
        raise SystemExit(f"failed: {' '.join(command)}")
    return time.perf_counter() - start, int(peak) / 1000


def digest(pattern):
    found = hashlib.sha256()
    for path in sorted(glob.glob(pattern)):
        if not path.endswith(".json"):
            with open(path, "rb") as reader:
                found.update(reader.read())
    return found.hexdigest()[:16]


def records_of(path):
    """Returns the records as values, whatever order a writer gave the features."""
    import tensorflow as tf

    found = []
    for data in tf.data.TFRecordDataset(path).as_numpy_iterator():
        features = tf.train.Example.FromString(data).features.feature
        found.append(sorted((name, value.SerializeToString()) for name, value in features.items()))
    return found


def ours(text, vocab_file, output, dupe_factor, *flags):
    return [
        sys.executable,
        STAGE,
        f"--input_file={text}",
        f"--vocab_file={vocab_file}",
        f"--output_file={output}",
        f"--dupe_factor={dupe_factor}",
        *flags,
    ]


def vocabulary(text, arguments, directory):
    """Returns the path of a vocabulary whose rules are the published ones."""
    path = f"{directory}/vocab.txt"
    if arguments.vocab_file:  # a copy, as files beside it may ask for other rules
        return shutil.copy(arguments.vocab_file, path)
    command = [sys.executable, "-m", "bert_toolkit", "build-vocab"]
    command += [f"--input_file={os.path.abspath(text)}", f"--output_file={path}"]
    command += ["--vocab_size=21128"]
    root = os.path.dirname(HERE)
    made = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if made.returncode:
        raise SystemExit(made.stderr)
    return path


def compare(text, arguments, directory):
    plain = os.path.join(HERE, "plain_pretraining_data.py")
    vocab = vocabulary(text, arguments, directory)
    dupe = arguments.dupe_factor
    ways = {
        "published way": [sys.executable, plain, text, f"{directory}/plain", vocab, str(dupe)],
        "ours": ours(text, vocab, f"{directory}/ours", dupe),
    }
    for workers in (1, 2, 3):
        ways[f"ours, 8 shards, {workers} workers"] = ours(
            text,
            vocab,
            f"{directory}/{workers}/d",
            dupe,
            "--num_shards=8",
            f"--num_workers={workers}",
        )
    found = {name: [] for name in ways}
    for _ in range(arguments.repetitions):
        for name, command in ways.items():
            found[name].append(measure(command))
    size = os.path.getsize(text) / 1e6
    print(f"{os.path.basename(text)}, {size:.1f} MB, dupe_factor {dupe}")
    seconds = {name: statistics.median(run[0] for run in runs) for name, runs in found.items()}
    for name, runs in found.items():
        peak = max(run[1] for run in runs)
        print(
            f"  {name:<28}{seconds[name]:>8.1f} s  {peak:>7.0f} MB"
            f"  {seconds['published way'] / seconds[name]:>6.1f} x the published way"
        )
    same = records_of(f"{directory}/plain") == records_of(f"{directory}/ours")
    print(f"  the same instances as the published way: {same}")
    print("  digests of 1, 2, 3 workers:", *(digest(f"{directory}/{n}/d-*") for n in (1, 2, 3)))
    one, two = (seconds[f"ours, 8 shards, {workers} workers"] for workers in (1, 2))
    print(f"  2 workers: {one / two:.2f} x one, of {os.cpu_count()} cores", flush=True)
    whose = arguments.vocab_file or "a vocabulary of its own"
    conditions = f"{os.path.basename(text)}, {size:.1f} MB, dupe_factor {dupe}, {whose}"
    plain, whole = seconds["published way"], seconds["ours"]
    table.add("pretraining data", whole, plain, "published way", "s", conditions)
    table.add("pretraining data, two workers", two, one, "one worker", "s", conditions)


def memory(text, arguments, directory):
    """Peak memory of a corpus and of one ten times as large, in shards of the same size."""
    with open(text, "rb") as reader:
        data = reader.read()
    vocab = vocabulary(text, arguments, directory)
    large = f"{directory}/large.txt"
    with open(large, "wb") as writer:
        for _ in range(10):
            writer.write(data + b"\n\n")
    for path, shards in ((text, 4), (large, 40)):
        command = ours(path, vocab, f"{directory}/m{shards}/d", 2, f"--num_shards={shards}")
        seconds, peak = measure(command)
        size = os.path.getsize(path) / 1e6
        print(
            f"  {size:.1f} MB in {shards} shards: {seconds:.1f} s, peak {peak:.0f} MB", flush=True
        )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--vocab_file")
    parser.add_argument("--dupe_factor", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--memory", default=True, action=argparse.BooleanOptionalAction)
    parser.add_argument("files", nargs="+")
    arguments = parser.parse_args()
    for text in arguments.files:
        with tempfile.TemporaryDirectory() as directory:
            compare(text, arguments, directory)
    if not arguments.memory:
        return
    with tempfile.TemporaryDirectory() as directory:
        memory(arguments.files[0], arguments, directory)


if __name__ == "__main__":
    main()
