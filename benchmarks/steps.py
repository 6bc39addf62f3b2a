"""Measures training steps and inference: ours, the published way, and transformers on torch.

    python benchmarks/steps.py --bert_dir=DIR --reviews=DIR --text=english.txt

A model lies in the first directory in Hugging Face's layout (config.json, vocab.txt,
model.safetensors), reviews in the second in SST-2's layout; --peer_python=PYTHON names another
environment for torch. All ways take the same batches of 32 in the same order, on 2 threads:

    finetune  reviews, at most 64 tokens, a step of training a classifier
    pretrain  text, 128 tokens, 20 predictions, a step of pretraining
    infer     reviews, at most 64 tokens, the encoder's last layer
    base_train, base_infer   BERT-base with random weights, 8 sequences of 128 real tokens

"published way" is our network with every sequence padded to its full length; "in 4 parts" and
"recomputed" are ours with --gradient_accumulation_steps=4 and with --recompute, to save memory.
"xla" is with --xla, padded to full length. transformers pads to
the longest of a batch, as its users do, and trains with torch.optim.AdamW and the gradient clipped.
The ways take turns; medians.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import table

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
BATCH, THREADS, WARM_UP = 32, 2, 3
WORKS = ("finetune", "pretrain", "infer", "base_train", "base_infer")


def make_batches(arguments, work, count):
    """Returns batches as dicts of arrays, padded to full length."""
    import random

    if work.startswith("base"):
        return [random_batch(seed) for seed in range(count)]
    from bert_toolkit.pretraining import masking
    from bert_toolkit.text import encoding
    from tokenization import FullTokenizer

    tokenizer = FullTokenizer(os.path.join(arguments.bert_dir, "vocab.txt"))
    rows = []
    if work == "pretrain":
        with open(arguments.text, encoding="utf-8") as reader:
            documents = [
                [tokenizer.encode(line) for line in document.split("\n") if line.strip()]
                for document in reader.read()[: 15_000 * count].split("\n\n")
            ]
        settings = masking.Settings(128, 20, 0.15, 0.1, 1, False)
        made = masking.create_instances(
            [document for document in documents if document],
            masking.Vocabulary(tokenizer),
            settings,
            [random.Random(1)],
        )
        for instance in made:
            row = _row(instance.input_ids, instance.first_segment, 128)
            row["masked_lm_positions"] = _padded(instance.masked_positions, 20)
            row["masked_lm_ids"] = _padded(instance.masked_ids, 20)
            row["masked_lm_weights"] = _padded([1.0] * len(instance.masked_ids), 20, np.float32)
            row["next_sentence_labels"] = np.array([instance.is_random_next], np.int32)
            rows.append(row)
    else:
        with open(os.path.join(arguments.reviews, "train.tsv"), encoding="utf-8") as reader:
            lines = [line.rstrip("\n").split("\t") for line in reader][1:]
        random.Random(1).shuffle(lines)
        for text, label in lines[: count * BATCH]:
            encoded = encoding.SequenceEncoder(tokenizer, 64).encode(text)[0]
            row = _row(encoded.input_ids, len(encoded.input_ids), 64)
            row["label_ids"], row["is_real_example"] = np.int32(label), np.int32(1)
            rows.append(row)
    batches = [rows[start : start + BATCH] for start in range(0, len(rows) - BATCH + 1, BATCH)]
    return [{key: np.stack([row[key] for row in batch]) for key in batch[0]} for batch in batches][
        :count
    ]


def random_batch(seed, size=8, length=128):
    """Returns a batch for BERT-base without any padding."""
    batch = {
        "input_ids": np.random.RandomState(seed).randint(1000, 30000, (size, length)),
        "input_mask": np.ones((size, length)),
        "segment_ids": np.zeros((size, length)),
        "label_ids": np.arange(size) % 2,
        "is_real_example": np.ones(size),
    }
    return {name: value.astype(np.int32) for name, value in batch.items()}


def _padded(values, length, dtype=np.int32):
    return np.array(list(values) + [0] * (length - len(values)), dtype)


def _row(ids, first, length):
    segments = [0] * first + [1] * (len(ids) - first)
    return {
        "input_ids": _padded(ids, length),
        "input_mask": _padded([1] * len(ids), length),
        "segment_ids": _padded(segments, length),
    }


def cut(batch):
    """Cuts a batch after its own longest sequence."""
    longest = int(batch["input_mask"].sum(axis=1).max())
    along = ("input_ids", "input_mask", "segment_ids")
    return {name: value[:, :longest] if name in along else value for name, value in batch.items()}


def run_ours(arguments, work, batches, parts=1, xla=False, **choices):
    """Returns seconds of each step, run as the Estimator runs the stages' own model functions."""
    from bert_toolkit import tensorflow_start

    tensorflow_start.prepare()
    import tensorflow.compat.v1 as tf

    import modeling
    from bert_toolkit.checkpoints import checkpoint_files, restore
    from bert_toolkit.compute import ComputeOptions
    from bert_toolkit.features import vectors
    from bert_toolkit.pretraining.network import pretraining_network
    from bert_toolkit.problems import SINGLE, Problem
    from bert_toolkit.tasks.classification import classifier_network
    from bert_toolkit.training import model_functions

    compute = ComputeOptions(**choices)
    config = modeling.BertConfig.from_json_file(os.path.join(arguments.bert_dir, "config.json"))
    weights_file = os.path.join(arguments.bert_dir, "model.safetensors")
    if work.startswith("base"):
        config, weights_file = modeling.BertConfig(30_522), None
    network = {
        "finetune": classifier_network.network(config, Problem(SINGLE, ("0", "1")), compute),
        "base_train": classifier_network.network(config, Problem(SINGLE, ("0", "1")), compute),
        "pretrain": pretraining_network(config, True, compute),
        "infer": vectors.network(config, [-1], compute),
        "base_infer": vectors.network(config, [-1], compute),
    }[work]
    if compute.remove_padding:
        batches = [cut(batch) for batch in batches]
    training = model_functions.Training(5e-5, 100_000, 100, parts=parts)
    infer = work.endswith("infer")
    session_config = tf.ConfigProto(
        intra_op_parallelism_threads=THREADS, inter_op_parallelism_threads=THREADS
    )
    if xla:
        os.environ["TF_XLA_FLAGS"] = "--tf_xla_cpu_global_jit"
        session_config.graph_options.optimizer_options.global_jit_level = tf.OptimizerOptions.ON_2
    with tf.Graph().as_default(), tempfile.TemporaryDirectory() as directory:
        with checkpoint_files.as_tensorflow(weights_file) as weights:
            places = {
                name: tf.placeholder(value.dtype, [None] * value.ndim)
                for name, value in batches[0].items()
            }
            tf.train.get_or_create_global_step()
            if infer:
                places["unique_ids"] = tf.zeros([BATCH], tf.int32)
                with _kernels(network, weights, compute.precision) as kernels:
                    fetched = network(places, "infer").predictions["layer_-1"]
                if weights:
                    fitting = restore.fit(weights, [*tf.trainable_variables(), *kernels])
                    restore.restore_at_start(weights, fitting)
            else:
                model_fn = model_functions.make(network, directory, weights, training=training)
                fetched = model_fn(places, None, "train", {}).train_op
            with tf.Session(config=session_config) as session:
                session.run(tf.global_variables_initializer())
                seconds = []
                for batch in batches:
                    feed = {places[name]: value for name, value in batch.items()}
                    start = time.perf_counter()
                    session.run(fetched, feed)
                    seconds.append(time.perf_counter() - start)
    return seconds


def _kernels(network, weights, precision):
    """Makes constants of kernels, as prediction of many sequences does in half precision."""
    import tensorflow.compat.v1 as tf

    from bert_toolkit.checkpoints import checkpoint_files, constants

    if precision == "float32":
        return contextlib.nullcontext([])
    if weights:
        read = tf.train.load_checkpoint(weights.prefix).get_tensor
        return constants.kernels(checkpoint_files.shapes(weights.prefix), read, precision)
    with tf.Graph().as_default():  # as many as the network has, with random values
        names = ("unique_ids", "input_ids", "input_mask", "segment_ids")
        network({name: tf.ones([1, 8], tf.int32) for name in names}, "infer")
        shapes = {one.op.name: one.shape.as_list() for one in tf.trainable_variables()}
    draw = np.random.default_rng(1).normal
    return constants.kernels(shapes, lambda name: draw(0, 0.02, shapes[name]), precision)


def run_torch(arguments, work, batches, bfloat16=False):
    """Returns seconds of each step."""
    import torch
    import transformers

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    classes = {
        "finetune": transformers.BertForSequenceClassification,
        "base_train": transformers.BertForSequenceClassification,
        "pretrain": transformers.BertForPreTraining,
        "infer": transformers.BertModel,
        "base_infer": transformers.BertModel,
    }
    infer = work.endswith("infer")
    if work.startswith("base"):
        model = classes[work](transformers.BertConfig())
    else:
        model = classes[work].from_pretrained(arguments.bert_dir)
    model.train(not infer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.01)
    seconds = []
    for batch in map(cut, batches):
        inputs = {
            "input_ids": torch.tensor(batch["input_ids"], dtype=torch.long),
            "attention_mask": torch.tensor(batch["input_mask"], dtype=torch.long),
            "token_type_ids": torch.tensor(batch["segment_ids"], dtype=torch.long),
        }
        if work in ("finetune", "base_train"):
            inputs["labels"] = torch.tensor(batch["label_ids"], dtype=torch.long)
        if work == "pretrain":
            labels = np.full(batch["input_ids"].shape, -100)
            for row, used in enumerate(batch["masked_lm_weights"] > 0):
                labels[row, batch["masked_lm_positions"][row][used]] = batch["masked_lm_ids"][row][
                    used
                ]
            inputs["labels"] = torch.tensor(labels, dtype=torch.long)
            inputs["next_sentence_label"] = torch.tensor(
                batch["next_sentence_labels"][:, 0], dtype=torch.long
            )
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            if infer:
                with torch.no_grad():
                    model(**inputs)
            else:
                loss = model(**inputs).loss
        if not infer:
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    return seconds


WAYS = {
    "ours": run_ours,
    "ours bfloat16": lambda *work: run_ours(*work, precision="bfloat16"),
    "published way": lambda *work: run_ours(*work, remove_padding=False),
    "in 4 parts": lambda *work: run_ours(*work, parts=4),
    "xla": lambda *work: run_ours(*work, xla=True, static_shapes=True, remove_padding=False),
    "recomputed": lambda *work: run_ours(*work, recompute=True),
    "torch float32": run_torch,
    "torch bfloat16": lambda *work: run_torch(*work, bfloat16=True),
}

# torch's ways, and those of ours that compute in the same precision.
OURS_BESIDE = {"torch float32": "ours", "torch bfloat16": "ours bfloat16"}


def run_once(arguments):
    """Prints the median of the seconds of a step, and the peak of memory in MB."""
    import resource

    with np.load(arguments.batches) as file:
        count = arguments.steps + WARM_UP
        names = {key.partition(" ")[2] for key in file}
        batches = [{name: file[f"{number} {name}"] for name in names} for number in range(count)]
    seconds = WAYS[arguments.way](arguments, arguments.work, batches)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(json.dumps([statistics.median(seconds[WARM_UP:]), peak]))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bert_dir", required=True)
    parser.add_argument("--reviews", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--peer_python", default=sys.executable, help="has torch, transformers")
    parser.add_argument("--ways", default=",".join(WAYS), help="bfloat16 crawls without AVX-512")
    parser.add_argument("--works", default=",".join(WORKS))
    parser.add_argument("--work", help="(one run)")
    parser.add_argument("--way", help="(one run)")
    parser.add_argument("--batches", help="(one run)")
    arguments = parser.parse_args()
    if arguments.work:
        return run_once(arguments)
    for work in arguments.works.split(","):
        with tempfile.TemporaryDirectory() as directory:
            compare(arguments, work, os.path.join(directory, "batches.npz"))
    return None


def compare(arguments, work, file):
    """Runs all ways in turns, each in a process of its own, and prints their medians."""
    batches = make_batches(arguments, work, arguments.steps + WARM_UP)
    np.savez(
        file,
        **{
            f"{number} {name}": value
            for number, batch in enumerate(batches)
            for name, value in batch.items()
        },
    )
    ways = arguments.ways.split(",")
    found = {way: [] for way in ways}
    for _ in range(arguments.repetitions):
        for way in ways:
            python = arguments.peer_python if way.startswith("torch") else sys.executable
            command = [python, *sys.argv, f"--work={work}", f"--way={way}", f"--batches={file}"]
            result = subprocess.run(
                command, capture_output=True, text=True, env=os.environ | QUIET, check=False
            )
            if result.returncode:
                raise SystemExit(result.stderr)
            found[way].append(json.loads(result.stdout.splitlines()[-1]))
    medians = {way: statistics.median(run[0] for run in runs) for way, runs in found.items()}
    for way in ways:
        print(
            f"{work:<12}{way:<16}{medians[way]:>8.3f} s a step{1 / medians[way]:>8.2f} steps/s"
            f"{max(run[1] for run in found[way]):>8.0f} MB"
            f"   ours is {medians[way] / medians[ways[0]]:.2f} x as fast",
            flush=True,
        )
        ours = OURS_BESIDE.get(way)
        if ours in medians:
            what, conditions = CONDITIONS[work]
            table.add(what, medians[ours], medians[way], way, "s", conditions)


# Work -> what it is called in the table, and under which conditions.
CONDITIONS = {
    "finetune": ("fine-tune, a step", "MiniLM, reviews, batch 32, at most 64 tokens"),
    "pretrain": ("pretrain, a step", "MiniLM's shape, 32 x 128 tokens, 20 predictions"),
    "infer": ("the encoder, a batch", "MiniLM, reviews, batch 32, at most 64 tokens"),
    "base_train": ("BERT-base, a training step", "8 x 128 tokens, no padding"),
    "base_infer": ("BERT-base, the encoder", "8 x 128 tokens, no padding"),
}
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": str(THREADS)}

if __name__ == "__main__":
    main()
