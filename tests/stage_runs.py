"""Options of small runs of the stages, and readers of what they write."""

import importlib.metadata
import json
import re
import time

import pytest
import tensorflow.compat.v1 as tf

import extract_features
import run_classifier
import run_pretraining

# Lines of TensorFlow or absl rather than of ours.
NOISE = re.compile(
    r"^(\d{4}-|[IWEF]\d{4} |WARNING|INFO|Instructions|warning: From|Traceback)", re.MULTILINE
)

# What TensorFlow 2.17 to 2.20 themselves print when a session is first used, at any log level.
NOTE_OF_TENSORFLOW = re.compile(
    r"^WARNING: All log messages before absl::InitializeLog.*\n"
    r"I0000 .* MLIR V1 optimization pass is not enabled\n",
    re.MULTILINE,
)


def noise(stderr):
    """Returns the first line of TensorFlow or absl in what a stage wrote; None if there is none."""
    version = tuple(map(int, importlib.metadata.version("tensorflow").split(".")[:2]))
    prints_it = (2, 17) <= version < (2, 21)
    return NOISE.search(NOTE_OF_TENSORFLOW.sub("", stderr) if prints_it else stderr)


LINES = (
    "In the beginning\n\nthe word ||| was with God\n" + "and the earth was without form " * 3 + "\n"
)


def wait_for_checkpoint(directory, step, *processes):
    """Waits until a next run would go on from a checkpoint of `step` or later.

    That is when the file `checkpoint` names it: its index is there a moment before.
    """
    deadline = time.monotonic() + 240
    while _last_step(directory) < step:
        time.sleep(0.02)
        if time.monotonic() < deadline and all(process.poll() is None for process in processes):
            continue
        for process in processes:
            process.kill()
        told = [process.communicate()[1] for process in processes]
        raise AssertionError(f"no checkpoint of step {step} came; the processes told {told}")


def _last_step(directory):
    latest = tf.train.latest_checkpoint(str(directory))
    return int(latest.rsplit("-", 1)[1]) if latest else -1


def metrics_of(directory, name="eval_results"):
    """Reads eval_results.txt and checks that the JSON file says the same."""
    text = (directory / f"{name}.txt").read_text()
    values = {key: float(value) for key, value in (line.split(" = ") for line in text.splitlines())}
    assert list(values) == sorted(values)
    assert json.loads((directory / f"{name}.json").read_text()) == pytest.approx(values, rel=1e-6)
    return values


def pretraining(tmp_path, data, model_dir, **flags):
    return run_pretraining.Options(
        **{
            "output_dir": str(tmp_path / "out"),
            "bert_dir": str(model_dir),
            "input_file": str(data),
            "learning_rate": 1e-3,
            "num_train_steps": 20,
            "num_warmup_steps": 2,
            "train_batch_size": 16,
            **flags,
        }
    )


def classification(tmp_path, reviews, model_dir, **flags):
    return run_classifier.Options(
        **{
            "task_name": "SST-2",
            "data_dir": str(reviews),
            "output_dir": str(tmp_path / "out"),
            "bert_dir": str(model_dir),
            "max_seq_length": 32,
            "train_batch_size": 8,
            "num_train_epochs": 20,
            "learning_rate": 2e-3,
            **flags,
        }
    )


def extraction(tmp_path, model_dir, text, **flags):
    (tmp_path / "lines.txt").write_text(text)
    return extract_features.Options(
        **{
            "input_file": str(tmp_path / "lines.txt"),
            "output_file": str(tmp_path / "features.jsonl"),
            "bert_dir": str(model_dir),
            "layers": "-1,-2",
            **flags,
        }
    )


def read_features(path):
    return [json.loads(line) for line in path.read_text().splitlines()]
