"""Runs that are stopped, by every means there is, and go on."""

import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import GOLDEN, ROOT
from stage_runs import wait_for_checkpoint

import create_pretraining_data
import run_pretraining
from bert_toolkit.checkpoints import checkpoint_files


@pytest.fixture
def with_dropout(model_dir):
    config = model_dir / "bert_config.json"
    config.write_text(re.sub(r'(_dropout_prob": )0\.0', r"\g<1>0.1", config.read_text()))
    return model_dir


def command(data, model_dir, out, **flags):
    chosen = {
        "input_file": data,
        "output_dir": out,
        "bert_dir": model_dir,
        "train_batch_size": 8,
        "learning_rate": 1e-3,
        "num_train_steps": 60,
        "num_warmup_steps": 5,
        "save_checkpoints_steps": 7,
        **flags,
    }
    flags = [f"--{name}={value}" for name, value in chosen.items()]
    return [sys.executable, ROOT / "run_pretraining.py", "--do_train", "--deterministic", *flags]


def start(*arguments, **flags):
    return subprocess.Popen(command(*arguments, **flags), stderr=subprocess.PIPE, text=True)


def stop_at(process, out, step, sent):
    """Sends a signal once a checkpoint of `step` or later is the last."""
    wait_for_checkpoint(out, step, process)
    process.send_signal(sent)
    return process.wait(60), process.stderr.read()


def steps_in(out):
    found = (re.fullmatch(r"model\.ckpt-(\d+)\.index", path.name) for path in out.glob("*.index"))
    return sorted(int(match[1]) for match in found if match)


def weights_of(out):
    return {
        name: tf.train.load_variable(str(out), name)
        for name in checkpoint_files.shapes(tf.train.latest_checkpoint(str(out)))
    }


def assert_same_bits(first, second):
    one, other = weights_of(first), weights_of(second)
    assert sorted(one) == sorted(other)
    assert one["global_step"] == 60
    for name, value in one.items():
        assert np.array_equal(value, other[name]), name


@pytest.mark.slow
@pytest.mark.platform
def test_a_run_killed_again_and_again_ends_with_the_weights_of_one_that_was_not(
    tmp_path, pretraining_data, with_dropout
):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(pretraining_data, with_dropout, whole).wait(200) == 0
    # The first is killed between two checkpoints, the second and third stop in order.
    plan = ((7, signal.SIGKILL, -9), (21, signal.SIGTERM, 143), (35, signal.SIGINT, 130))
    for step, sent, expected in plan:
        code, errors = stop_at(start(pretraining_data, with_dropout, killed), killed, step, sent)
        assert code == expected, errors
        assert "Traceback" not in errors
        if sent != signal.SIGKILL:
            assert "the same command goes on from it" in errors
    last = start(pretraining_data, with_dropout, killed)
    errors = last.communicate(timeout=200)[1]
    assert last.returncode == 0, errors
    assert "going on from" in errors
    assert "in a new order" not in errors
    assert_same_bits(whole, killed)
    kept = {int(path.name.split("-")[1]) for path in killed.glob("input.ckpt-*")}
    assert kept <= set(steps_in(killed))


@pytest.mark.slow
def test_sigterm_saves_the_step_at_hand(tmp_path, pretraining_data, with_dropout):
    out = tmp_path / "out"
    process = start(
        pretraining_data, with_dropout, out, num_train_steps=100000, save_checkpoints_steps=100000
    )
    code, errors = stop_at(process, out, 0, signal.SIGTERM)
    assert code == 143
    assert "SIGTERM: stopping after this step" in errors
    assert "saved " in errors
    assert max(steps_in(out)) > 0


@pytest.mark.slow
def test_a_damaged_last_checkpoint_is_left_for_the_one_before(
    tmp_path, pretraining_data, with_dropout
):
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert start(pretraining_data, with_dropout, whole).wait(200) == 0
    assert start(pretraining_data, with_dropout, out).wait(200) == 0
    steps = steps_in(out)
    damaged = out / f"model.ckpt-{steps[-1]}.data-00000-of-00001"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    again = start(pretraining_data, with_dropout, out)
    errors = again.communicate(timeout=200)[1]
    assert again.returncode == 0, errors
    assert f"model.ckpt-{steps[-1]} cannot be read" in errors
    assert f"going on from {out}/model.ckpt-{steps[-2]}" in errors
    assert_same_bits(whole, out)


@pytest.mark.slow
def test_other_data_is_not_read_from_the_place_in_the_first(
    tmp_path, pretraining_data, model_dir, caplog
):
    """As when the last steps are trained on longer or shorter sequences."""
    caplog.set_level("INFO")
    other = tmp_path / "other.tfrecord"
    create_pretraining_data.run(
        create_pretraining_data.Options(
            input_file=str(GOLDEN / "corpus.txt"),
            output_file=str(other),
            vocab_file=str(GOLDEN / "vocab.txt"),
            max_seq_length=64,
            dupe_factor=1,
        )
    )

    def train(data, steps):
        run_pretraining.run(
            run_pretraining.Options(
                bert_dir=str(model_dir),
                output_dir=str(tmp_path / "out"),
                input_file=str(data),
                do_train=True,
                num_train_steps=steps,
                num_warmup_steps=1,
                train_batch_size=8,
            )
        )

    train(pretraining_data, 3)
    train(other, 6)
    assert caplog.text.count("in a new order") == 1
    train(other, 9)  # its seed is another since then
    assert steps_in(tmp_path / "out")[-1] == 9
