"""Models between Google's layout and Hugging Face's."""

import json
import shutil

import numpy as np
import pytest
from conftest import GOLDEN

from bert_toolkit.checkpoints import checkpoint_files, hugging_face_names
from bert_toolkit.commands import convert_checkpoint
from bert_toolkit.errors import UserError


def convert(**flags):
    convert_checkpoint.run(convert_checkpoint.Options(**{k: v if k in ("to", "dtype", "average", "inspect") else str(v) for k, v in flags.items()}))  # fmt: skip


def assert_same_weights(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert np.array_equal(value, other[name]), name


def test_there_and_back_with_equal_bits(tmp_path, model_dir):
    convert(bert_dir=model_dir, output_dir=tmp_path / "theirs")
    convert(bert_dir=tmp_path / "theirs", output_dir=tmp_path / "ours", to="google")
    original = checkpoint_files.read(str(GOLDEN / "model/bert_model.ckpt"))
    assert_same_weights(original, checkpoint_files.read(str(tmp_path / "ours" / "bert_model.ckpt")))
    for name in ("vocab.txt",):
        assert (tmp_path / "ours" / name).read_text() == (model_dir / name).read_text()
    settings = json.loads((tmp_path / "theirs" / "config.json").read_text())
    assert settings["architectures"] == ["BertForPreTraining"]
    assert settings["model_type"] == "bert"


def test_names_and_their_inverse():
    names = list(checkpoint_files.shapes(str(GOLDEN / "model/bert_model.ckpt")))
    names += ["output_weights", "output_bias"]
    for name in names:
        assert hugging_face_names.to_published(hugging_face_names.to_hugging_face(name)) == name
    assert hugging_face_names.to_hugging_face("output_weights") == "classifier.weight"
    assert (
        hugging_face_names.to_hugging_face("bert/encoder/layer_11/attention/self/query/kernel")
        == "bert.encoder.layer.11.attention.self.query.weight"
    )


def test_a_classifier_keeps_its_labels(tmp_path, model_dir):
    weights = checkpoint_files.read(str(model_dir / "bert_model.ckpt"))
    weights = {name: value for name, value in weights.items() if name.startswith("bert/")}
    weights["output_weights"] = np.ones([3, 32], np.float32)
    weights["output_bias"] = np.ones([3], np.float32)
    checkpoint_files.save(str(model_dir / "bert_model.ckpt"), weights)
    (model_dir / "task.json").write_text(
        '{"problem_type": "multi_label", "labels": ["x", "y", "z"], "metric": "f1_micro"}'
    )
    convert(bert_dir=model_dir, output_dir=tmp_path / "theirs")
    settings = json.loads((tmp_path / "theirs" / "config.json").read_text())
    assert settings["architectures"] == ["BertForSequenceClassification"]
    assert settings["problem_type"] == "multi_label_classification"
    assert settings["id2label"] == {"0": "x", "1": "y", "2": "z"}
    convert(bert_dir=tmp_path / "theirs", output_dir=tmp_path / "ours", to="google")
    assert (tmp_path / "ours" / "labels.txt").read_text() == "x\ny\nz\n"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_the_size(tmp_path, model_dir, dtype):
    convert(bert_dir=model_dir, output_dir=tmp_path / "half", dtype=dtype)
    convert(bert_dir=model_dir, output_dir=tmp_path / "whole")
    sizes = [(tmp_path / d / "model.safetensors").stat().st_size for d in ("half", "whole")]
    assert sizes[0] < 0.55 * sizes[1]
    original = checkpoint_files.read(str(model_dir / "bert_model.ckpt"))
    read = checkpoint_files.read(str(tmp_path / "half" / "model.safetensors"))
    for name, value in original.items():
        np.testing.assert_allclose(value, read[name], rtol=1e-2, atol=1e-6, err_msg=name)


def test_numbers_too_large_are_told(tmp_path, model_dir):
    weights = checkpoint_files.read(str(model_dir / "bert_model.ckpt"))
    weights["bert/pooler/dense/bias"][3] = 1e30
    checkpoint_files.save(str(model_dir / "bert_model.ckpt"), weights)
    with pytest.raises(UserError, match="--dtype=float16: bert/pooler/dense/bias has numbers"):
        convert(bert_dir=model_dir, output_dir=tmp_path / "half", dtype="float16")


def test_the_mean_of_checkpoints(tmp_path, model_dir):
    weights = checkpoint_files.read(str(model_dir / "bert_model.ckpt"))
    for number in (1, 3):
        scaled = {name: number * value for name, value in weights.items()}
        checkpoint_files.save(str(tmp_path / f"x{number}.ckpt"), scaled)
    paths = [str(tmp_path / "x1.ckpt"), str(tmp_path / "x3.ckpt")]
    convert(bert_dir=model_dir, output_dir=tmp_path / "mean", to="google", average=paths)
    mean = checkpoint_files.read(str(tmp_path / "mean" / "bert_model.ckpt"))
    for name, value in weights.items():
        np.testing.assert_allclose(mean[name], 2 * value, rtol=1e-6)
    del scaled["bert/pooler/dense/bias"]
    checkpoint_files.save(paths[1], scaled)
    with pytest.raises(UserError, match="bert/pooler/dense/bias has shape None in .*x3.ckpt"):
        convert(bert_dir=model_dir, output_dir=tmp_path / "mean", average=paths)


def test_looking_into_checkpoints(tmp_path, model_dir, capsys):
    weights = checkpoint_files.read(str(model_dir / "bert_model.ckpt"))
    weights["bert/pooler/dense/bias"][0] += 0.5
    del weights["cls/predictions/output_bias"]
    checkpoint_files.save(str(tmp_path / "other.ckpt"), weights)
    convert(bert_dir=model_dir, inspect=True, compare=tmp_path / "other.ckpt")
    lines = dict(line.split("\t", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["bert/pooler/dense/bias"] == "0.5"
    assert lines["bert/pooler/dense/kernel"] == "equal"
    assert lines["cls/predictions/output_bias"] == "only in the first"
    convert(bert_dir=model_dir, inspect=True)
    lines = capsys.readouterr().out.splitlines()
    assert "bert/pooler/dense/kernel\t32x32\tfloat32\t4096" in lines
    assert lines[-1].startswith("46 variables")


def test_nothing_to_do(model_dir):
    with pytest.raises(UserError, match="pass --output_dir, --inspect or --compare"):
        convert(bert_dir=model_dir)


@pytest.mark.slow
def test_transformers_computes_the_same(tmp_path, model_dir):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    golden = dict(np.load(GOLDEN / "model_outputs.npz"))
    shutil.rmtree(tmp_path / "theirs", ignore_errors=True)
    convert(bert_dir=model_dir, output_dir=tmp_path / "theirs")
    model = transformers.BertModel.from_pretrained(tmp_path / "theirs").eval()
    inputs = {
        "input_ids": golden["input_ids"],
        "attention_mask": golden["input_mask"],
        "token_type_ids": golden["segment_ids"],
    }
    with torch.no_grad():
        found = model(**{name: torch.tensor(value).long() for name, value in inputs.items()})
    np.testing.assert_allclose(found.pooler_output, golden["pooled_output"], atol=1e-5)
