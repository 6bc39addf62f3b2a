"""Measures the same work on several versions of TensorFlow, in turns: medians, and their ratio.

    python benchmarks/versions.py --pythons=OLD/bin/python,NEW/bin/python --bert_dir=DIR \
        --reviews=DIR --text=english.txt [--rounds=3] [--steps=10] [--only=features,finetune]

Each Python has its own TensorFlow. The steps are those of benchmarks/steps.py; "import", "first
vector" and "features" are whole processes: importing TensorFlow as the commands do, one vector from
Python, and a pooled vector for each dev review from the command line. With MALLOC_TOP_PAD_=131072
in the environment all is as it was before freed memory was kept (docs/performance.md).
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).parent.parent
STEPS = ("finetune", "pretrain", "infer", "base_infer")
IMPORT = "from bert_toolkit import tensorflow_start as s; s.prepare(); import tensorflow"
VECTOR = "import sys; from bert_toolkit import Encoder; Encoder(sys.argv[1]).encode(['a text'])"


def step(python, arguments, work):
    """Returns the median seconds of a step."""
    command = [python, ROOT / "benchmarks/steps.py", f"--bert_dir={arguments.bert_dir}"]
    command += [f"--reviews={arguments.reviews}", f"--text={arguments.text}"]
    command += [f"--steps={arguments.steps}", f"--work={work}", "--way=ours"]
    return json.loads(run(command).splitlines()[-1])[0]


def process(*command):
    """Returns the seconds that a process takes."""
    start = time.perf_counter()
    run(command)
    return time.perf_counter() - start


def run(command):
    """Returns what a command prints."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "2"}
    result = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        check=False,
    )
    if result.returncode:
        raise SystemExit(result.stderr)
    return result.stdout


def measures(arguments, directory):
    """Returns name -> function of a Python that returns seconds."""
    lines = pathlib.Path(directory, "lines.txt")
    rows = pathlib.Path(arguments.reviews, "dev.tsv").read_text(encoding="utf-8").splitlines()[1:]
    lines.write_text("\n".join(row.split("\t")[0] for row in rows) + "\n", encoding="utf-8")
    features = ["extract_features.py", f"--input_file={lines}", f"--bert_dir={arguments.bert_dir}"]
    features += [f"--output_file={directory}/v.npy", "--layers=-1", "--pooling=mean"]
    return {
        "import": lambda python: process(python, "-c", IMPORT),
        "first vector": lambda python: process(python, "-c", VECTOR, arguments.bert_dir),
        "features": lambda python: process(python, *features),
        **{work: lambda python, work=work: step(python, arguments, work) for work in STEPS},
    }


def main():
    """Prints a row for each work."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pythons", required=True)
    parser.add_argument("--bert_dir", required=True)
    parser.add_argument("--reviews", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--only", help="the works to measure; all without it")
    arguments = parser.parse_args()
    pythons = arguments.pythons.split(",")
    version = "import importlib.metadata as m; print(m.version('tensorflow-cpu'))"
    try:
        versions = [run([python, "-c", version]).strip() for python in pythons]
    except SystemExit:
        version = version.replace("-cpu", "")
        versions = [run([python, "-c", version]).strip() for python in pythons]
    print(f"{'seconds':<14}" + "".join(f"{name:>10}" for name in versions) + "   first / last")
    with tempfile.TemporaryDirectory() as directory:
        for name, measure in measures(arguments, directory).items():
            if arguments.only and name not in arguments.only.split(","):
                continue
            found = [[] for _ in pythons]
            for _ in range(arguments.rounds):
                for number, python in enumerate(pythons):
                    found[number].append(measure(python))
            medians = [statistics.median(seconds) for seconds in found]
            row = "".join(f"{median:>10.3f}" for median in medians)
            print(f"{name:<14}{row}{medians[0] / medians[-1]:>10.2f}", flush=True)


if __name__ == "__main__":
    main()
