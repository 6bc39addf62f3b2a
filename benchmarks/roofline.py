"""Measures a processor's best at matrix products, and what share of it steps of BERT reach.

    python benchmarks/roofline.py --bert_dir=DIR --reviews=DIR --text=english.txt

The best is that of plain products [2048, 2048] x [2048, 2048] by TensorFlow, on the same threads,
before and after every work; the highest of all counts. The work needed is counted, not measured:
2 * m * k * n for each product of a step, on real tokens, three times in training (forward, and the
two gradients). The optimizer, activations, normalization and dropout count as nothing, so that no
step can reach 100 %.
"""

import argparse
import json
import os
import statistics
import sys
import time

import numpy as np
import steps
import table

THREADS = steps.THREADS


def products(config, tokens: int, squares: int, predictions: int = 0) -> float:
    """Returns the operations of one forward pass.

    Args:
      config: a BertConfig.
      tokens: real tokens in the batch.
      squares: the sum of S * S over its sequences: attention is computed with the padding.
      predictions: masked positions, each against the whole vocabulary.
    """
    width, inner = config.hidden_size, config.intermediate_size
    layer = tokens * (4 * width * width + 2 * width * inner) + 2 * squares * width
    head = predictions * width * (config.vocab_size + width)
    return 2.0 * (config.num_hidden_layers * layer + head)


def needed(config, work: str, batch: dict) -> float:
    """Returns the operations of a step of a work of steps.py on a batch."""
    mask = steps.cut(batch)["input_mask"]
    predictions = int(batch["masked_lm_weights"].sum()) if work == "pretrain" else 0
    forward = products(config, int(mask.sum()), mask.shape[0] * mask.shape[1] ** 2, predictions)
    return forward if work.endswith("infer") else 3.0 * forward


def best_of_products(size: int = 2048, rounds: int = 10) -> float:
    """Returns operations a second."""
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default():
        left, right = (tf.Variable(tf.random.uniform([size, size])) for _ in range(2))
        product = tf.matmul(left, right)[0, 0]
        config = tf.ConfigProto(intra_op_parallelism_threads=THREADS)
        with tf.Session(config=config) as session:
            session.run(tf.global_variables_initializer())
            seconds = []
            for _ in range(rounds):
                start = time.perf_counter()
                session.run(product)
                seconds.append(time.perf_counter() - start)
    return 2.0 * size**3 / min(seconds)


def main() -> None:
    """Prints a row for each work."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bert_dir", required=True)
    parser.add_argument("--reviews", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--works", default=",".join(steps.WORKS))
    arguments = parser.parse_args()
    from bert_toolkit import tensorflow_start

    tensorflow_start.prepare()
    import modeling

    best, found = best_of_products(), []
    for work in arguments.works.split(","):
        file = os.path.join(arguments.bert_dir, "config.json")
        config = modeling.BertConfig.from_json_file(file)
        if work.startswith("base"):
            config = modeling.BertConfig(30_522)
        batches = steps.make_batches(arguments, work, arguments.steps + steps.WARM_UP)
        seconds = steps.run_ours(arguments, work, batches)
        rates = [needed(config, work, batch) / taken for batch, taken in zip(batches, seconds)]
        operations = np.mean([needed(config, work, batch) for batch in batches])
        found.append((work, operations, statistics.median(rates[steps.WARM_UP :])))
        best = max(best, best_of_products())
    print(f"plain products: {best / 1e9:.0f} GFLOP/s", flush=True)
    for work, operations, rate in found:
        share = rate / best
        print(
            f"{work:<12}{operations / 1e9:>8.0f} GFLOP a step, {rate / 1e9:.0f} GFLOP/s:"
            f" {share:.0%} of the best; no step can take less than {operations / best:.3f} s",
            flush=True,
        )
    path = os.environ.get(table.ROOFLINE)
    if path:
        with open(path, "w", encoding="utf-8") as writer:
            json.dump({"best": best, "works": found}, writer)


if __name__ == "__main__":
    sys.exit(main())
