"""Measures exported classifiers: size, sentences a second, accuracy, and distance from Python's.

    python benchmarks/export_model.py --model_dir=DIR --reviews=DIR

A classifier that run_classifier.py trained lies in the first directory, reviews with their labels
(dev.tsv, SST-2's layout) in the second. All ways classify the same reviews on 2 threads, by ones
and in batches of 32 of about the same length, which is how a server and a batch job work:

    python             bert_toolkit.TextClassifier, texts
    savedmodel text    SavedModel, texts
    savedmodel ids     SavedModel, token ids
    tflite TYPE        TFLite with weights of that type, token ids

Needs tensorflow-text.
"""

import argparse
import os
import pathlib
import statistics
import sys
import tempfile
import time

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
THREADS, LENGTH = 2, 128


def token_batch(tokenizer, texts):
    """Returns input_ids, input_mask and segment_ids of some texts."""
    from bert_toolkit.text import encoding

    encoded = [
        encoding.SequenceEncoder(tokenizer, LENGTH).encode(text)[0].input_ids for text in texts
    ]
    ids = np.zeros((len(texts), max(map(len, encoded))), np.int32)
    mask = np.zeros_like(ids)
    for row, numbers in enumerate(encoded):
        ids[row, : len(numbers)], mask[row, : len(numbers)] = numbers, 1
    return {"input_ids": ids, "input_mask": mask, "segment_ids": np.zeros_like(ids)}


def tflite_way(path, tokenizer):
    """Returns a function from texts to probabilities."""
    import tensorflow as tf

    runner = tf.lite.Interpreter(path, num_threads=THREADS)
    places = {place["name"]: place["index"] for place in runner.get_input_details()}
    outputs = [place for place in runner.get_output_details() if place["shape_signature"][-1] == 2]
    last_shape = None

    def run(texts):
        nonlocal last_shape
        batch = token_batch(tokenizer, texts)
        shape = batch["input_ids"].shape
        if shape != last_shape:
            for name in batch:
                runner.resize_tensor_input(places[name], shape)
            runner.allocate_tensors()
            last_shape = shape
        for name, values in batch.items():
            runner.set_tensor(places[name], values)
        runner.invoke()
        found = [runner.get_tensor(place["index"]) for place in outputs]
        return next(values for values in found if np.allclose(values.sum(-1), 1, atol=1e-4))

    return run


def ways(model_dir, directory):
    """Returns way -> (size in bytes, function from texts to probabilities)."""
    import tensorflow as tf
    import tensorflow_text  # noqa: F401 (registers the operations of the SavedModel)

    from bert_toolkit import TextClassifier
    from bert_toolkit.commands import export_model

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    python = TextClassifier(model_dir, LENGTH)
    tokenizer = python._model.tokenizer
    labels = python.problem.labels

    def by_python(texts):
        found = python.predict(texts, len(texts))
        return np.array([[row.probabilities[label] for label in labels] for row in found])

    saved = export_model.run(
        export_model.Options(bert_dir=model_dir, output_dir=f"{directory}/saved", with_text=True)
    )
    model = tf.saved_model.load(saved)
    size = sum(path.stat().st_size for path in pathlib.Path(saved).rglob("*") if path.is_file())

    def by_text(texts):
        return model.signatures["text"](text=tf.constant(texts))["probabilities"].numpy()

    def by_ids(texts):
        batch = {name: tf.constant(v) for name, v in token_batch(tokenizer, texts).items()}
        return model.signatures["serving_default"](**batch)["probabilities"].numpy()

    found = {"python": (size, by_python), "savedmodel text": (size, by_text)}
    found["savedmodel ids"] = (size, by_ids)
    for dtype in ("float32", "float16", "int8"):
        path = export_model.run(
            export_model.Options(
                bert_dir=model_dir,
                output_dir=f"{directory}/{dtype}",
                format="tflite",
                dtype=dtype,
            )
        )
        found[f"tflite {dtype}"] = (os.path.getsize(path), tflite_way(path, tokenizer))
    return found, labels


def main() -> None:
    """Runs all ways and prints a row for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model_dir", required=True)
    parser.add_argument("--reviews", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    lines = pathlib.Path(arguments.reviews, "dev.tsv").read_text().splitlines()[1:]
    rows = sorted((line.split("\t") for line in lines), key=lambda row: len(row[0]))
    texts, gold = [row[0] for row in rows], [row[1] for row in rows]
    with tempfile.TemporaryDirectory() as directory:
        found, labels = ways(arguments.model_dir, directory)
        expected = None
        print(f"{len(texts)} reviews; lines a second by ones and in batches of 32")
        for name, (size, classify) in found.items():
            rates = {}
            for count in (1, 32):
                batches = [texts[start : start + count] for start in range(0, len(texts), count)]
                some = batches if count > 1 else batches[::5]
                classify(some[0])
                seconds = []
                for _ in range(arguments.rounds):
                    start = time.perf_counter()
                    answers = [classify(batch) for batch in some]
                    seconds.append(time.perf_counter() - start)
                rates[count] = sum(map(len, some)) / statistics.median(seconds)
            probabilities = np.concatenate(answers)
            expected = probabilities if expected is None else expected
            accuracy = np.mean([labels[n] == g for n, g in zip(probabilities.argmax(-1), gold)])
            print(
                f"  {name:<18}{size / 1e6:>7.1f} MB {rates[1]:>7.0f} /s {rates[32]:>7.0f} /s"
                f"  accuracy {accuracy:.3f}, probabilities differ by at most"
                f" {np.abs(probabilities - expected).max():.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
