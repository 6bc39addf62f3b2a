"""The flags of training, as a user gives them."""

import glob
import json

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import run_stage

import run_pretraining
from bert_toolkit.errors import UserError
from bert_toolkit.options import DeviceOptions
from bert_toolkit.training import precision


@pytest.fixture
def flags(tmp_path, pretraining_data, model_dir):
    return {
        "input_file": str(pretraining_data),
        "output_dir": str(tmp_path / "out"),
        "bert_dir": str(model_dir),
        "num_train_steps": 4,
        "num_warmup_steps": 1,
        "train_batch_size": 8,
    }


def train(flags, **more):
    run_pretraining.run(run_pretraining.Options(**{**flags, "do_train": True, **more}))


def weights(flags):
    name = "bert/encoder/layer_0/output/dense/kernel"
    return tf.train.load_variable(flags["output_dir"], name)


def test_lines_of_progress_come_every_so_many_steps(flags, caplog):
    caplog.set_level("INFO")
    train(flags, log_every_steps=2)
    with open(f"{flags['output_dir']}/training_log.jsonl", encoding="utf-8") as log:
        assert [json.loads(line)["step"] for line in log] == [1, 2, 4]
    assert "step 2/4: loss " in caplog.text
    assert "step 3/4" not in caplog.text
    [events] = glob.glob(f"{flags['output_dir']}/events.out.tfevents.*")
    steps = {
        event.step
        for event in tf.train.summary_iterator(events)
        for value in event.summary.value
        if value.tag == "loss"
    }
    assert steps == {1, 3}  # the Estimator counts from the first


@pytest.mark.slow
def test_going_on_overwriting_and_refusing(flags, caplog):
    caplog.set_level("INFO")
    train(flags)
    first = weights(flags)
    with pytest.raises(UserError, match=r"--noresume, but .*model.ckpt-4 is there; pass --resume"):
        train(flags, resume=False)
    train(flags)
    assert "nothing to train" in caplog.text
    train(flags, overwrite=True, seed=2)
    assert "files of an earlier run removed" in caplog.text
    assert not np.array_equal(first, weights(flags))
    with open(f"{flags['output_dir']}/training_log.jsonl", encoding="utf-8") as log:
        assert [json.loads(line)["step"] for line in log] == [1, 4]


def test_what_does_not_go_together(flags):
    bad = {"train_batch_size": 10, "gradient_accumulation_steps": 4, "profile_steps": ["x"]}
    with pytest.raises(UserError) as error:
        train(flags, **bad)
    assert "--train_batch_size=10 is no multiple of --gradient_accumulation_steps=4" in str(
        error.value
    )
    assert "--profile_steps=x: expected the first and the last step" in str(error.value)


@pytest.mark.slow
def test_going_on_with_other_frozen_layers_is_a_sentence(flags):
    train(flags, freeze=["0"])
    with pytest.raises(UserError, match="its checkpoint was trained with other flags"):
        train(flags, num_train_steps=8)


def test_a_gpu_that_is_not_there(flags):
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has GPUs")
    with pytest.raises(UserError, match="--require_gpu: TensorFlow sees no GPU"):
        train(flags, require_gpu=True)


@pytest.mark.slow
def test_parts_recomputation_and_xla_at_the_command_line(flags, tmp_path):
    """All give the weights of the plain run."""
    plain = run_stage("run_pretraining", "--do_train", flags)
    assert plain.returncode == 0, plain.stderr
    for more in (["--gradient_accumulation_steps=4", "--recompute"], ["--xla"]):
        other = {**flags, "output_dir": str(tmp_path / more[0])}
        result = run_stage("run_pretraining", "--do_train", other, *more)
        assert result.returncode == 0, result.stderr
        np.testing.assert_allclose(weights(flags), weights(other), atol=1e-5)


@pytest.mark.slow
def test_a_profile_for_tensorboard(flags, tmp_path):
    result = run_stage("run_pretraining", "--do_train", flags, "--profile_steps=2,3")
    assert result.returncode == 0, result.stderr
    assert "profile written: tensorboard --logdir=" in result.stderr
    assert list((tmp_path / "out").glob("plugins/profile/*/*.xplane.pb"))


@pytest.mark.parametrize(("flag", "chosen"), [("avx512_bf16", "bfloat16"), ("avx2", "float32")])
def test_auto_precision_is_what_the_processor_has(flag, chosen, caplog, monkeypatch, tmp_path):
    caplog.set_level("INFO")
    (tmp_path / "cpuinfo").write_text(f"flags : fpu sse4_2 {flag} fma")
    monkeypatch.setattr(precision, "CPUINFO", tmp_path / "cpuinfo")
    options = precision.resolve(DeviceOptions(precision="auto"))
    assert options.precision == options.compute().precision == chosen
    assert f"--precision=auto: {chosen}, as this processor" in caplog.text
    assert precision.resolve(options) is options


@pytest.mark.slow
def test_half_precision_says_when_the_processor_has_none(flags, caplog, monkeypatch):
    with open("/proc/cpuinfo", encoding="ascii", errors="ignore") as reader:
        has_it = "avx512_bf16" in reader.read()
    train(flags, precision="bfloat16", num_train_steps=1)
    assert ("cannot compute in it" in caplog.text) is not has_it
    assert weights(flags).dtype == np.float32
