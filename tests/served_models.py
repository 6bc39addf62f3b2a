"""Small models of every kind, made of the golden one, and a server of them as a user starts it."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
from conftest import GOLDEN, ROOT

from bert_toolkit.checkpoints import checkpoint_files

TASKS = {
    "encoder": None,
    "classifier": {"problem_type": "single_label", "labels": ["bad", "good"]},
    "tagger": {"problem_type": "token_classification", "labels": ["O", "B-X", "I-X"]},
    "answerer": {"problem_type": "question_answering", "labels": []},
}
# What each does, by its name in TASKS.
VERBS = {"encoder": "encode", "classifier": "classify", "tagger": "tag", "answerer": "answer"}


def make_model(directory, name, seed=0):
    """Makes a model of TASKS whose head is chance."""
    shutil.copytree(GOLDEN / "model", directory)
    shutil.copy(GOLDEN / "vocab.txt", directory)
    task = TASKS[name]
    if task is None and seed == 0:
        return directory
    weights = checkpoint_files.read(str(directory / "bert_model.ckpt"))
    weights = {key: value for key, value in weights.items() if key.startswith("bert/")}
    chance = np.random.default_rng(seed)
    if task is None:
        key = "bert/encoder/layer_1/output/LayerNorm/gamma"
        weights[key] = weights[key] * np.float32(1 + seed)
    else:
        head = "cls/squad/" if name == "answerer" else ""
        outputs = len(task["labels"]) or 2
        weights[f"{head}output_weights"] = chance.normal(size=(outputs, 32)).astype(np.float32)
        weights[f"{head}output_bias"] = np.zeros([outputs], np.float32)
        (directory / "task.json").write_text(json.dumps({**task, "metric": "f1"}))
    checkpoint_files.save(str(directory / "bert_model.ckpt"), weights)
    return directory


@contextlib.contextmanager
def server(*arguments, expected=0):
    """Starts bert serve at a free port; yields its process and URL; ends it by SIGTERM."""
    command = [sys.executable, "-m", "bert_toolkit", "serve", "--port=0", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            told = []
            for line in process.stderr:
                told.append(line)
                if line.startswith("serving on "):
                    break
            assert told, process.wait()
            assert told[-1].startswith("serving on "), told
            yield process, told[-1].split()[-1]
        finally:
            if process.poll() is None:
                process.terminate()
            process.communicate(timeout=60)
        assert process.returncode == expected


def call(url, body=None, headers=()):
    """Returns status, content and headers of an answer; a body that is not bytes is sent as JSON."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, dict(headers))
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read(), response.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers
