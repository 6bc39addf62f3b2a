"""Several hosts, as processes on this one: they train the model that one trains, and survive."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import ROOT
from stage_runs import wait_for_checkpoint

import run_classifier
from bert_toolkit.errors import UserError
from bert_toolkit.training import cluster

pytestmark = pytest.mark.platform

STEPS = 40


def command(out, data, model_dir, *more):
    flags = {
        "input_file": data,
        "eval_file": data,
        "output_dir": out,
        "bert_dir": model_dir,
        "num_train_steps": STEPS,
        "num_warmup_steps": 2,
        "train_batch_size": 24,
        "learning_rate": 1e-3,
        "save_checkpoints_steps": 20,
    }
    words = [f"--{name}={value}" for name, value in flags.items()]
    return [sys.executable, ROOT / "run_pretraining.py", "--do_train", "--do_eval", *words, *more]


def free_addresses(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in sockets:
            listener.bind(("localhost", 0))
        return [f"localhost:{listener.getsockname()[1]}" for listener in sockets]


def start_hosts(addresses, *arguments):
    processes = []
    for index in range(len(addresses)):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = {**os.environ, "TF_CONFIG": json.dumps(task)}
        processes.append(
            subprocess.Popen(
                command(*arguments), env=environment, stderr=subprocess.PIPE, text=True
            )
        )
    return processes


def errors_of(processes):
    found = []
    for process in processes:
        errors = process.communicate(timeout=200)[1]
        assert process.returncode == 0, errors
        found.append(errors)
    return found


def trained_alone(out, data, model_dir):
    subprocess.run(command(out, data, model_dir), check=True, capture_output=True, timeout=200)
    return out


def assert_same_run(one, other):
    """Weights, and what was shown of the steps, of both runs are alike."""
    for name, _ in tf.train.list_variables(str(one)):
        values = [tf.train.load_variable(str(directory), name) for directory in (one, other)]
        np.testing.assert_allclose(*values, rtol=0, atol=3e-5, err_msg=name)
    logs = [
        {
            line["step"]: line["loss"]
            for line in map(json.loads, (directory / "training_log.jsonl").read_text().splitlines())
        }
        for directory in (one, other)
    ]
    assert logs[0].keys() == logs[1].keys()
    for step, loss in logs[0].items():
        assert logs[1][step] == pytest.approx(loss, rel=1e-5)
    metrics = [
        json.loads((directory / "eval_results.json").read_text()) for directory in (one, other)
    ]
    assert metrics[1]["loss"] == pytest.approx(metrics[0]["loss"], rel=1e-5)


@pytest.mark.slow
def test_three_hosts_train_the_model_that_one_trains(tmp_path, pretraining_data, model_dir):
    alone = trained_alone(tmp_path / "one", pretraining_data, model_dir)
    together = tmp_path / "together"
    processes = start_hosts(free_addresses(3), together, pretraining_data, model_dir)
    for errors in errors_of(processes):
        assert "running on 3 hosts" in errors
        assert f"step {STEPS}/{STEPS}" in errors
    assert_same_run(alone, together)


@pytest.mark.slow
def test_a_killed_host_ends_the_others_and_all_go_on(tmp_path, pretraining_data, model_dir):
    alone = trained_alone(tmp_path / "one", pretraining_data, model_dir)
    together = tmp_path / "together"
    addresses = free_addresses(2)
    processes = start_hosts(addresses, together, pretraining_data, model_dir)
    wait_for_checkpoint(together, 20, *processes)
    processes[1].send_signal(signal.SIGKILL)
    errors = processes[0].communicate(timeout=60)[1]
    assert processes[0].returncode == cluster.EXIT_HOST_LOST, errors
    assert f"error: the host {addresses[1]} is gone" in errors
    processes[1].communicate()
    for errors in errors_of(start_hosts(addresses, together, pretraining_data, model_dir)):
        assert "finding the place in the data" in errors
    assert_same_run(alone, together)


@pytest.mark.slow
def test_the_first_of_two_hosts_evaluates_a_classifier(tmp_path, reviews, model_dir):
    """Its model is built anew for that, on one host, while the cluster is still named."""
    words = [
        f"--train_file={reviews / 'train.tsv'}",
        f"--eval_file={reviews / 'dev.tsv'}",
        f"--bert_dir={model_dir}",
        f"--output_dir={tmp_path / 'out'}",
        "--train_batch_size=12",
        "--num_train_epochs=2",
    ]
    addresses = free_addresses(2)
    processes = []
    for index in range(2):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = {**os.environ, "TF_CONFIG": json.dumps(task)}
        script = [sys.executable, ROOT / "run_classifier.py", *words]
        processes.append(
            subprocess.Popen(script, env=environment, stderr=subprocess.PIPE, text=True)
        )
    first, second = errors_of(processes)
    assert "eval_accuracy" in first
    assert "eval_accuracy" not in second
    metrics = json.loads((tmp_path / "out" / "eval_results.json").read_text())
    assert metrics["global_step"] == 6


@pytest.mark.parametrize(
    ("config", "chief"),
    [
        ("", True),
        ('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}', True),
        ('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}', False),
        (
            '{"cluster": {"chief": ["a:1"], "worker": ["b:1"]},'
            ' "task": {"type": "worker", "index": 0}}',
            False,
        ),
    ],
)
def test_which_host_writes(config, chief, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    assert cluster.is_chief() is chief
    with cluster.left_out():
        assert cluster.is_chief()
    assert os.environ["TF_CONFIG"] == config


def test_what_several_hosts_cannot_do_is_refused(monkeypatch):
    cluster_of_two = {"worker": ["a:1", "b:1"]}
    task = {"cluster": cluster_of_two, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(task))
    options = run_classifier.Options(
        output_dir="out", train_file="a.tsv", num_runs=2, evaluate_every="epoch", overwrite=True
    )
    refused = [sentence.split(":")[0] for sentence in cluster.conflicts(options)]
    assert refused == ["--overwrite", "--evaluate_every", "--num_runs"]
    curve = run_classifier.Options(
        output_dir="out", train_file="a.tsv", eval_file="b.tsv", learning_curve=["10", "all"]
    )
    with pytest.raises(UserError, match="--learning_curve: not on several hosts; train once for"):
        run_classifier.run(curve)
    monkeypatch.delenv("TF_CONFIG")
    assert cluster.conflicts(options) == []
