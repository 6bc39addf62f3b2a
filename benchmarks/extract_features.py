"""Measures extraction: ours, the published way, and sentence-transformers.

    python benchmarks/extract_features.py --bert_dir=DIR --reviews=DIR [--peer_python=PYTHON]

A model lies in the first directory in Hugging Face's layout, reviews in the second in SST-2's. Two
works, each way a process of its own, from start to end, on 2 threads:

    tokens     the first 1,000 reviews, 4 layers of every token as JSON lines, at most 128 tokens
    sentences  1,000 and 50,000 reviews, one vector each (mean), normalized, as an array

"published way" restates extract_features.py of the paper plainly, on our network: every sequence
padded to 128 and each number rounded and written by itself. sentence-transformers has no pipeline
to files: its way is encode() and numpy.save(). "start" is what a run of one line takes. The ways
take turns; the shortest of --rounds.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import table

ROOT = pathlib.Path(__file__).parent.parent
TOKENS, SENTENCES = "tokens", "sentences"

PUBLISHED = """
import collections, json, os, sys
sys.path.insert(0, sys.argv[4])
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow.compat.v1 as tf
from bert_toolkit.checkpoints import checkpoint_files, model_directory, restore
from bert_toolkit.compute import ComputeOptions
from bert_toolkit.features import vectors
from bert_toolkit.options import ModelOptions
from bert_toolkit.text import encoding
from bert_toolkit.training import estimator_api

bert_dir, input_file, output_file = sys.argv[1:4]
LENGTH, LAYERS = 128, [-1, -2, -3, -4]
model = model_directory.find(ModelOptions(bert_dir=bert_dir))
tokenizer = model.tokenizer()
rows = collections.defaultdict(list)
tokens = []
for number, line in enumerate(open(input_file, encoding="utf-8")):
    ids = encoding.SequenceEncoder(tokenizer, LENGTH).encode(line.strip())[0].input_ids
    tokens.append(tokenizer.convert_ids_to_tokens(ids))
    rest = [0] * (LENGTH - len(ids))
    rows["unique_ids"].append(number)
    rows["input_ids"].append(ids + rest)
    rows["input_mask"].append([1] * len(ids) + rest)
    rows["segment_ids"].append([0] * LENGTH)

def input_fn():
    return tf.data.Dataset.from_tensor_slices(dict(rows)).batch(32)

with checkpoint_files.as_tensorflow(model.init_checkpoint) as weights:
    def model_fn(features, labels, mode):
        network = vectors.network(model.config, LAYERS, ComputeOptions(remove_padding=False))
        predictions = network(features, mode).predictions
        fitting = restore.fit(weights, tf.trainable_variables())
        restore.restore_at_start(weights, fitting)
        return estimator_api.load().EstimatorSpec(mode, predictions=predictions)

    tf.logging.set_verbosity("ERROR")
    estimator = estimator_api.load().Estimator(model_fn)
    with open(output_file, "w") as writer:
        for result in estimator.predict(input_fn, yield_single_examples=True):
            number = int(result["unique_ids"])
            output = collections.OrderedDict(linex_index=number)
            found = []
            for position, token in enumerate(tokens[number]):
                layers = []
                for layer in LAYERS:
                    values = result[f"layer_{layer}"][position : position + 1].flat
                    entry = collections.OrderedDict(index=layer)
                    entry["values"] = [round(float(value), 6) for value in values]
                    layers.append(entry)
                found.append(collections.OrderedDict(token=token, layers=layers))
            output["features"] = found
            writer.write(json.dumps(output) + "\\n")
"""

PEER = """
import sys
import numpy, torch
from sentence_transformers import SentenceTransformer, models
bert_dir, input_file, output_file, dtype = sys.argv[1:5]
torch.set_num_threads(2)
encoder = models.Transformer(bert_dir, max_seq_length=128)
modules = [encoder, models.Pooling(encoder.get_word_embedding_dimension()), models.Normalize()]
model = SentenceTransformer(modules=modules, device="cpu").to(getattr(torch, dtype))
lines = [line.strip() for line in open(input_file, encoding="utf-8")]
numpy.save(output_file, model.encode(lines, convert_to_tensor=True).float().numpy())
"""


def commands(arguments: argparse.Namespace, work: str, lines: str, out: str) -> dict[str, list]:
    """Returns way -> command."""
    ours = [sys.executable, str(ROOT / "extract_features.py"), f"--bert_dir={arguments.bert_dir}"]
    ours += [f"--input_file={lines}", f"--output_file={out}"]
    if work == TOKENS:
        published = [sys.executable, "-c", PUBLISHED, arguments.bert_dir, lines, out, str(ROOT)]
        return {"ours": ours, "published way": published}
    ours += ["--layers=-1", "--pooling=mean", "--normalize"]
    peer = [arguments.peer_python, "-c", PEER, arguments.bert_dir, lines, out]
    ways = {"ours": ours, "sentence-transformers": [*peer, "float32"]}
    if arguments.bfloat16:
        ways["ours, bfloat16"] = [*ours, "--precision=bfloat16"]
        ways["sentence-transformers, bfloat16"] = [*peer, "bfloat16"]
    return ways


def measure(command: list) -> tuple[float, float]:
    """Returns seconds and peak memory in MB of a process and the largest of its own."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    errors = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command[:3]} failed:\n{errors}")
    return time.monotonic() - start, usage.ru_maxrss / 1000


def compare(arguments: argparse.Namespace, work: str, reviews: list[str], directory: str) -> None:
    """Runs a work's ways on some reviews and prints a row for each."""
    ending = "jsonl" if work == TOKENS else "npy"
    out = os.path.join(directory, f"out.{ending}")
    paths = {count: os.path.join(directory, f"{count}.txt") for count in (1, len(reviews))}
    for count, path in paths.items():
        pathlib.Path(path).write_text("".join(f"{line}\n" for line in reviews[:count]))
    ways = list(commands(arguments, work, "", ""))
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    starts: dict[str, list[float]] = {way: [] for way in ways}
    memory, sizes = {}, {}
    rounds = arguments.rounds if len(reviews) <= 1000 else 1
    for _ in range(rounds):
        for way in ways:
            starts[way].append(measure(commands(arguments, work, paths[1], out)[way])[0])
            taken, memory[way] = measure(commands(arguments, work, paths[len(reviews)], out)[way])
            seconds[way].append(taken)
            sizes[way] = os.path.getsize(out)
            os.remove(out)
    print(f"{work}: {len(reviews):,} lines", flush=True)
    ours = min(seconds["ours"])
    for way in ways:
        best, start = min(seconds[way]), min(starts[way])
        rate, volume = len(reviews) / (best - start), sizes[way] / 1e6 / (best - start)
        print(
            f"  {way:<32}{best:>8.1f} s (start {start:.1f}; then {rate:,.0f} lines/s,"
            f" {volume:.1f} MB/s), {memory[way]:,.0f} MB, {best / ours:.2f} x ours",
            flush=True,
        )
        if way != "ours":
            what = "4 layers as JSON lines" if work == TOKENS else "one pooled vector a line"
            table.add(what, ours, best, way, "s", f"{len(reviews):,} lines, start included")


def main() -> None:
    """Runs all works."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bert_dir", required=True)
    parser.add_argument("--reviews", required=True)
    parser.add_argument("--peer_python", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--counts", default="1000,50000", help="of sentences")
    parser.add_argument("--works", default=f"{TOKENS},{SENTENCES}")
    parser.add_argument(
        "--bfloat16", action="store_true", help="for processors that have it; others take minutes"
    )
    arguments = parser.parse_args()
    lines = []
    for name in ("train.tsv", "dev.tsv", "test.tsv"):
        rows = pathlib.Path(arguments.reviews, name).read_text().splitlines()
        lines += [max(row.split("\t"), key=len) for row in rows[1:]]
    with tempfile.TemporaryDirectory() as directory:
        if TOKENS in arguments.works:
            compare(arguments, TOKENS, lines[:1000], directory)
        if SENTENCES in arguments.works:
            for count in map(int, arguments.counts.split(",")):
                repeated = (lines * (count // len(lines) + 1))[:count]
                compare(arguments, SENTENCES, repeated, directory)
    print(json.dumps({"lines": len(lines)}))


if __name__ == "__main__":
    main()
