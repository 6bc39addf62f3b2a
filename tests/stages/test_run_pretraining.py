"""Pretraining, run for real on a tiny model."""

import json
import math
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import ROOT, run_stage
from stage_runs import (
    metrics_of,
    pretraining,
    wait_for_checkpoint,
)

import run_pretraining


@pytest.fixture(autouse=True)
def _show_logs(caplog):
    caplog.set_level("INFO")


def test_pretraining_learns_evaluates_and_goes_on(tmp_path, pretraining_data, model_dir, caplog):
    before = run_pretraining.run(
        pretraining(
            tmp_path, pretraining_data, model_dir, do_eval=True, eval_file=str(pretraining_data)
        )
    )
    after = run_pretraining.run(
        pretraining(
            tmp_path,
            pretraining_data,
            model_dir,
            do_train=True,
            do_eval=True,
            eval_file=str(pretraining_data),
        )
    )
    assert after["masked_lm_loss"] < before["masked_lm_loss"] - 0.5
    assert "restored 46 variables" in caplog.text
    assert "step 20/20: loss " in caplog.text
    log = [json.loads(line) for line in (tmp_path / "out" / "training_log.jsonl").open()]
    assert [line["step"] for line in log] == [1, 20]
    assert {"loss", "masked_lm_loss", "learning_rate", "tokens/s"} < set(log[-1])
    assert 0 < log[-1]["gradient_norm"] < 1000
    assert 0 <= log[-1]["padding"] < 0.5
    values = metrics_of(tmp_path / "out")
    assert set(values) == {
        "global_step",
        "loss",
        "masked_lm_accuracy",
        "masked_lm_loss",
        "masked_lm_perplexity",
        "next_sentence_accuracy",
        "next_sentence_loss",
    }
    perplexity = values["masked_lm_perplexity"]
    assert perplexity == pytest.approx(math.exp(values["masked_lm_loss"]), rel=1e-5)
    assert values["global_step"] == 20
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"bert_config.json", "vocab.txt", "tokenizer_config.json", "checkpoint"} <= written
    caplog.clear()
    run_pretraining.run(
        pretraining(tmp_path, pretraining_data, model_dir, do_train=True, num_train_steps=30)
    )
    assert "model.ckpt-20: step 20 of 30" in caplog.text
    caplog.clear()
    run_pretraining.run(
        pretraining(tmp_path, pretraining_data, model_dir, do_train=True, num_train_steps=30)
    )
    assert "nothing to train" in caplog.text


@pytest.mark.slow
def test_evaluation_reads_the_whole_file_with_its_last_partial_batch(
    tmp_path, pretraining_data, model_dir
):
    def evaluate(**flags):
        options = pretraining(tmp_path, pretraining_data, model_dir, do_eval=True, **flags)
        return run_pretraining.run(options)

    one_by_one = evaluate(eval_file=str(pretraining_data), eval_batch_size=1)
    by_fifty = evaluate(eval_file=str(pretraining_data), eval_batch_size=50)
    for name in (
        "masked_lm_accuracy",
        "masked_lm_loss",
        "next_sentence_accuracy",
        "next_sentence_loss",
    ):
        assert one_by_one[name] == pytest.approx(by_fifty[name], rel=1e-5)
    # 183 instances: the published limit of 100 batches holds only for --input_file.
    limited = evaluate(eval_batch_size=1)
    assert limited["masked_lm_loss"] != pytest.approx(one_by_one["masked_lm_loss"], rel=1e-5)
    assert limited == evaluate(
        eval_file=str(pretraining_data), eval_batch_size=1, max_eval_steps=100
    )


@pytest.mark.slow
def test_the_seed_decides_the_run(tmp_path, pretraining_data, model_dir):
    """Random weights, the data's order and dropout: the same bits for a seed."""
    config = json.loads((model_dir / "bert_config.json").read_text())
    config.update(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    (model_dir / "dropout.json").write_text(json.dumps(config))

    def weights(number, seed):
        flags = {
            "input_file": pretraining_data,
            "bert_config_file": model_dir / "dropout.json",
            "output_dir": tmp_path / f"out{number}",
            "learning_rate": 1e-3,
            "num_train_steps": 3,
            "num_warmup_steps": 2,
            "seed": seed,
        }
        result = run_stage("run_pretraining", flags, "--do_train", "--deterministic")
        assert result.returncode == 0, result.stderr
        name = "bert/encoder/layer_0/output/dense/kernel"
        return tf.train.load_variable(str(flags["output_dir"]), name)

    first, same, other = weights(1, 5), weights(2, 5), weights(3, 6)
    assert (first == same).all()
    assert np.abs(first - other).max() > 1e-3


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path, pretraining_data, model_dir):
    flags = {
        "input_file": pretraining_data,
        "output_dir": tmp_path / "out",
        "bert_dir": model_dir,
        "num_train_steps": 400,
        "num_warmup_steps": 2,
        "save_checkpoints_steps": 20,
    }
    command = [
        sys.executable,
        ROOT / "run_pretraining.py",
        "--do_train",
        *(f"--{k}={v}" for k, v in flags.items()),
    ]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    wait_for_checkpoint(tmp_path / "out", 40, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    flags["num_train_steps"] = 100
    result = run_stage("run_pretraining", flags, "--do_train")
    assert result.returncode == 0, result.stderr
    step = int(re.search(r"going on from .*: step (\d+) of 100", result.stderr)[1])
    assert 40 <= step < 100
    assert (tmp_path / "out" / "model.ckpt-100.index").exists()


@pytest.mark.slow
def test_ctrl_c_tells_what_is_kept(tmp_path, pretraining_data, model_dir):
    flags = {
        "input_file": pretraining_data,
        "output_dir": tmp_path / "out",
        "bert_dir": model_dir,
        "save_checkpoints_steps": 10,
    }
    command = [
        sys.executable,
        ROOT / "run_pretraining.py",
        "--do_train",
        *(f"--{k}={v}" for k, v in flags.items()),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for_checkpoint(tmp_path / "out", 20, process)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "is the last checkpoint; the same command goes on from it" in errors
    assert "Traceback" not in errors
