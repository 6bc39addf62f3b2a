r"""Runs the comparisons that the documentation shows, and writes one table of them.

    python benchmarks/corpora.py texts
    python benchmarks/all.py --bert_dir=DIR --reviews=DIR --texts=texts --peer_python=PYTHON \
        --output=table.md

A model lies in the first directory in Hugging Face's layout, reviews in the second in SST-2's.
PYTHON is that of an environment with torch and transformers, and with --sentences of
sentence-transformers; tokenizers and tensorflow-text are to be in the environment that runs this,
or tokenization is left out. Each comparison is a benchmark of its own, which says what it does: it
runs ours and the peer in turns. All of them take some 40 minutes on two cores;
--only=roofline,steps runs some.

The table begins with the machine. Its last part is the roofline: what matrix products a step
needs, and what share of the processor's best at them it reaches.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import table

HERE = pathlib.Path(__file__).parent


def commands(arguments: argparse.Namespace) -> dict[str, list[str]]:
    """Returns benchmark -> its arguments, the quick ones first."""
    model = f"--bert_dir={arguments.bert_dir}"
    reviews, text = f"--reviews={arguments.reviews}", f"--text={arguments.texts}/english.txt"
    peer = f"--peer_python={arguments.peer_python}"
    vocabulary = f"--vocab_file={arguments.bert_dir}/vocab.txt"
    texts = [str(path) for path in sorted(pathlib.Path(arguments.texts).glob("*.txt"))]
    tokens = "tokens,sentences" if arguments.sentences else "tokens"
    ways = ["ours", "torch float32"]
    if arguments.bfloat16:
        ways += ["ours bfloat16", "torch bfloat16"]
    return {
        "first_vector": [model],
        "tokenization": [vocabulary, "--repetitions=3", *texts],
        "create_pretraining_data": ["--repetitions=3", "--no-memory", *texts],
        "roofline": [model, reviews, text],
        "steps": [model, reviews, text, peer, "--steps=5", "--repetitions=3"]
        + [f"--ways={','.join(ways)}"],
        "extract_features": [model, reviews, peer, "--rounds=1", f"--works={tokens}"]
        + ["--counts=1000"],
        "finetune": [model, f"--data_dir={arguments.reviews}", peer, "--seeds=1"],
    }


def missing(name: str) -> str:
    """Returns the package that a benchmark needs in this environment and that is not there."""
    needs = {"tokenization": ("tokenizers", "tensorflow_text")}.get(name, ())
    return ", ".join(package for package in needs if importlib.util.find_spec(package) is None)


def page(rows: list[dict], roofline: dict) -> str:
    """Returns the table as Markdown."""
    lines = [f"{table.machine()}.", "", "| work | ours | peer | ratio | conditions |"]
    lines.append("|---|---|---|---|---|")
    for row in rows:
        lines.append(
            f"| {row['work']} | {row['ours']:.3g} {row['unit']} | {row['peer']:.3g} {row['unit']},"
            f" {row['name']} | {table.ratio(row):.1f} | {row['conditions']} |"
        )
    if roofline:
        best = roofline["best"]
        lines += ["", f"Plain products reach {best / 1e9:.0f} GFLOP/s on 2 threads.", ""]
        lines += ["| work | GFLOP a step | share of the best | the least a step takes |"]
        lines += ["|---|---|---|---|"]
        for work, operations, rate in roofline["works"]:
            least = operations / best
            lines.append(f"| {work} | {operations / 1e9:.0f} | {rate / best:.0%} | {least:.2f} s |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs the benchmarks and writes the table after each, so that what was measured stays."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bert_dir", required=True)
    parser.add_argument("--reviews", required=True)
    parser.add_argument("--texts", required=True, help="directory of english.txt and others")
    parser.add_argument("--peer_python", default=sys.executable)
    parser.add_argument("--output", default="benchmarks.md")
    parser.add_argument("--only", default="", help="names of benchmarks")
    parser.add_argument("--sentences", action="store_true", help="beside sentence-transformers")
    parser.add_argument("--bfloat16", action="store_true", help="for processors that have it")
    arguments = parser.parse_args()
    rows: list[dict] = []
    roofline: dict = {}
    known = list(commands(arguments))
    only = arguments.only.split(",") if arguments.only else known
    if set(only) - set(known):
        parser.error(f"--only={arguments.only}: known are {', '.join(known)}")
    with tempfile.TemporaryDirectory() as directory:
        environment = {
            **os.environ,
            table.ROWS: os.path.join(directory, "rows"),
            table.ROOFLINE: os.path.join(directory, "roofline"),
        }
        for name, flags in commands(arguments).items():
            if name not in only:
                continue
            if missing(name):
                print(f"{name} is left out: no {missing(name)} here", flush=True)
                continue
            start = time.monotonic()
            command = [sys.executable, str(HERE / f"{name}.py"), *flags]
            subprocess.run(command, env=environment, check=True)
            print(f"({name} took {time.monotonic() - start:.0f} s)", flush=True)
            if os.path.exists(environment[table.ROWS]):
                text = pathlib.Path(environment[table.ROWS]).read_text(encoding="utf-8")
                rows = [json.loads(line) for line in text.splitlines()]
            if os.path.exists(environment[table.ROOFLINE]):
                text = pathlib.Path(environment[table.ROOFLINE]).read_text(encoding="utf-8")
                roofline = json.loads(text)
            pathlib.Path(arguments.output).write_text(page(rows, roofline), encoding="utf-8")
    print(page(rows, roofline))


if __name__ == "__main__":
    main()
