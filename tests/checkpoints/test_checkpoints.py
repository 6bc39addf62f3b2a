import logging
import re
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import GOLDEN
from safetensors.numpy import save_file

import modeling
from bert_toolkit.checkpoints import checkpoint_files, constants, hugging_face_names, restore
from bert_toolkit.compute import ComputeOptions
from bert_toolkit.errors import UserError
from bert_toolkit.features import vectors
from bert_toolkit.options import DeviceOptions
from bert_toolkit.training import model_functions
from bert_toolkit.training.estimator_api import PREDICT

PREFIX = str(GOLDEN / "model/bert_model.ckpt")
BATCH = dict(np.load(GOLDEN / "model_outputs.npz"))
CONFIG = modeling.BertConfig.from_json_file(str(GOLDEN / "model/bert_config.json"))


def golden_weights():
    reader = tf.train.load_checkpoint(PREFIX)
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def hugging_face_weights(prefix="bert.", old_names=False, dtype=np.float32):
    """The golden weights by Hugging Face's names, as transformers' save_pretrained writes them."""
    named = {}
    for name, value in golden_weights().items():
        parts = name.removeprefix("bert/").split("/")
        if parts[-1] == "kernel":
            parts[-1], value = "weight", value.T
        elif parts[-1] in ("gamma", "beta") and not old_names:
            parts[-1] = {"gamma": "weight", "beta": "bias"}[parts[-1]]
        elif parts[-1].endswith("_embeddings"):
            parts.append("weight")
        elif parts[-1].startswith("output_"):
            parts[-1] = (
                parts[-1].removeprefix("output_").removesuffix("s")
                if parts[-1] == "output_weights"
                else "bias"
            )
        joined = ".".join(parts).replace("layer_", "layer.")
        named[joined if name.startswith("cls/") else prefix + joined] = np.ascontiguousarray(
            value
        ).astype(dtype)
    named[f"{prefix}embeddings.position_ids"] = np.arange(128)[None]
    named["cls.predictions.decoder.weight"] = named[
        f"{prefix}embeddings.word_embeddings.weight"
    ].copy()
    named["cls.predictions.decoder.bias"] = named["cls.predictions.bias"].copy()
    return named


def pooled_output(checkpoint, tmp_path):
    """What a model that starts from `checkpoint` computes of the golden batch; and its report."""
    with (
        checkpoint_files.as_tensorflow(checkpoint) as weights,
        tf.Graph().as_default(),
        tf.Session() as session,
    ):
        inputs = [tf.constant(BATCH[name]) for name in ("input_ids", "input_mask", "segment_ids")]
        model = modeling.BertModel(CONFIG, False, *inputs)
        fitting = restore.fit(weights, tf.trainable_variables())
        restore.restore_at_start(weights, fitting)
        session.run(tf.global_variables_initializer())
        return session.run(model.get_pooled_output()), fitting


def v1_file(tmp_path):
    with tf.Graph().as_default(), tf.Session() as session:
        variables = [
            tf.get_variable(name, initializer=value) for name, value in golden_weights().items()
        ]
        session.run(tf.global_variables_initializer())
        path = str(tmp_path / "v1" / "bert_model.ckpt")
        (tmp_path / "v1").mkdir()
        tf.train.Saver(variables, write_version=tf.train.SaverDef.V1).save(
            session, path, write_state=False
        )
    assert (tmp_path / "v1" / "bert_model.ckpt").is_file()
    return path


@pytest.mark.parametrize(
    "given", ["bert_model.ckpt", "bert_model.ckpt.index", "bert_model.ckpt.data-00000-of-00001", ""]
)
def test_every_way_to_name_a_checkpoint(given, tmp_path):
    assert (
        checkpoint_files.find(str(GOLDEN / "model" / given), "init_checkpoint").rstrip("/")
        == PREFIX
    )
    computed, fitting = pooled_output(
        checkpoint_files.find(str(GOLDEN / "model" / given), "init_checkpoint"), tmp_path
    )
    assert np.abs(computed - BATCH["pooled_output"]).max() < 1e-5
    assert not fitting.absent


@pytest.mark.parametrize("directory", [True, False])
def test_v1_files(directory, tmp_path):
    path = v1_file(tmp_path)
    found = checkpoint_files.find(str(tmp_path / "v1") if directory else path, "init_checkpoint")
    computed, _ = pooled_output(found, tmp_path)
    assert np.abs(computed - BATCH["pooled_output"]).max() < 1e-5


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [
        ({}, 1e-5),
        ({"prefix": ""}, 1e-5),
        ({"old_names": True}, 1e-5),
        ({"dtype": np.float16}, 1e-2),
    ],
    ids=["bert.", "no prefix", "gamma and beta", "float16"],
)
def test_hugging_face_directories(settings, tolerance, tmp_path):
    save_file(hugging_face_weights(**settings), tmp_path / "model.safetensors")
    computed, fitting = pooled_output(checkpoint_files.find(str(tmp_path), "bert_dir"), tmp_path)
    assert np.abs(computed - BATCH["pooled_output"]).max() < tolerance
    assert not fitting.absent
    assert (
        len(fitting.unused) == 7
    )  # the pretraining heads, every one of them under its published name
    assert set(fitting.unused) <= set(golden_weights())


def test_bfloat16_weights_are_read(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    save_file(hugging_face_weights(dtype=ml_dtypes.bfloat16), tmp_path / "model.safetensors")
    computed, _ = pooled_output(str(tmp_path / "model.safetensors"), tmp_path)
    assert np.abs(computed - BATCH["pooled_output"]).max() < 0.1


def test_names_of_classification_heads():
    assert hugging_face_names.to_published("classifier.weight") == "output_weights"
    assert hugging_face_names.to_published("classifier.bias") == "output_bias"
    assert hugging_face_names.to_published("cls.predictions.decoder.bias") is None


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no checkpoint in it"),
        ({"a.index": b"", "b.index": b""}, r"several checkpoints \(a, b\) in it"),
    ],
)
def test_directories_without_a_clear_checkpoint(files, message, tmp_path):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        checkpoint_files.find(str(tmp_path), "bert_dir")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing", None, "--init_checkpoint=.*missing: no checkpoint there"),
        ("pytorch_model.bin", b"x", "a pickle"),
        ("text.txt", b"no checkpoint\n" * 9, "cannot be read as a checkpoint"),
        ("model.safetensors", b"no safetensors" * 9, "cannot be read as safetensors"),
    ],
)
def test_files_that_are_no_checkpoint(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        pooled_output(checkpoint_files.find(str(tmp_path / name), "init_checkpoint"), tmp_path)


def test_another_shape_is_named(tmp_path):
    weights = golden_weights()
    weights["bert/pooler/dense/bias"] = np.zeros([31], np.float32)
    checkpoint_files.save(str(tmp_path / "other.ckpt"), weights)
    with pytest.raises(
        UserError,
        match=r"bert/pooler/dense/bias has shape \[31\], but the model's config makes it \[32\]",
    ):
        pooled_output(str(tmp_path / "other.ckpt"), tmp_path)


def test_a_checkpoint_without_an_encoder_is_an_error(tmp_path):
    checkpoint_files.save(str(tmp_path / "other.ckpt"), {"conv/kernel": np.zeros([2], np.float32)})
    with pytest.raises(
        UserError, match=r"none of its variables belongs to a BERT encoder \(it has conv/kernel\)"
    ):
        pooled_output(str(tmp_path / "other.ckpt"), tmp_path)


def test_what_was_restored_and_what_not_is_told():
    fitting = restore.Fit(["a"] * 3, ["new"], ["output_bias"], ["1", "2", "3", "4", "5", "6"])
    assert fitting.text() == (
        "restored 3 variables; new new, as the checkpoint has none of that name; output_bias new, as the"
        " checkpoint has them for other labels; 1, 2, 3, 4 and 2 more in the checkpoint, but not in this model"
    )


def test_a_missing_layer_is_warned_about_in_training_and_refused_otherwise(tmp_path, caplog):
    weights = {name: value for name, value in golden_weights().items() if "layer_1/" not in name}
    checkpoint_files.save(str(tmp_path / "other.ckpt"), weights)
    source = checkpoint_files.Weights(str(tmp_path / "other.ckpt"), "other.ckpt")
    features = {
        name: tf.constant(BATCH[name]) for name in ("input_ids", "input_mask", "segment_ids")
    }
    with (
        tf.Graph().as_default(),
        pytest.raises(UserError, match="other.ckpt: has no trained bert/encoder/layer_1"),
    ):
        features = {
            name: tf.constant(BATCH[name]) for name in ("input_ids", "input_mask", "segment_ids")
        }
        features["unique_ids"] = tf.range(8)
        model_fn = model_functions.make(vectors.network(CONFIG, [-1]), None, source)
        model_fn(features, None, PREDICT, {})
    assert "16 variables of the encoder start from random values" in caplog.text


def test_a_copied_directory_needs_no_checkpoint_file(tmp_path):
    for path in (GOLDEN / "model").iterdir():
        shutil.copy(path, tmp_path / path.name.replace("bert_model.ckpt", "model.ckpt-7"))
    assert checkpoint_files.find(str(tmp_path), "bert_dir") == str(tmp_path / "model.ckpt-7")


@pytest.fixture(autouse=True)
def _logs(caplog):
    caplog.set_level(logging.INFO)


def test_where_every_variable_comes_from_is_told():
    there = {"bert/pooler/dense/bias": [4], "output_bias": [2], "cls/predictions/output_bias": [9]}
    with tf.Graph().as_default():
        variables = [
            tf.get_variable("bert/pooler/dense/bias", [4]),
            tf.get_variable("output_bias", [3]),
            tf.get_variable("output_weights", [3, 4]),
        ]
        fitting = restore.fit_shapes(there, "a model", variables)
        assert restore.origins(fitting, there, variables).splitlines() == [
            "bert/pooler/dense/bias [4]: from the checkpoint",
            "output_bias [3]: new",
            "output_weights [3, 4]: new",
            "cls/predictions/output_bias [9]: left out",
        ]


def predicted(constant_kernels):
    """Returns what the golden model predicts in bfloat16, and the names of its variables."""
    with tf.Graph().as_default():
        features = {
            name: tf.constant(BATCH[name]) for name in ("input_ids", "input_mask", "segment_ids")
        }
        features["unique_ids"] = tf.range(8)
        model_fn = model_functions.make(
            vectors.network(CONFIG, [-1], ComputeOptions(precision="bfloat16")),
            None,
            checkpoint_files.Weights(PREFIX, PREFIX),
            constant_kernels=constant_kernels,
        )
        layer = model_fn(features, None, PREDICT, {}).predictions["layer_-1"]
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            return session.run(layer), {one.op.name for one in tf.trainable_variables()}


def test_kernels_as_constants_give_the_same_numbers(monkeypatch):
    plain, variables = predicted(None)
    found, left = predicted("bfloat16")
    np.testing.assert_array_equal(found, plain)
    kernels = {name for name in variables if re.search(r"^bert/encoder/.*/kernel$", name)}
    assert len(kernels) == 6 * CONFIG.num_hidden_layers
    assert left == variables - kernels
    monkeypatch.setattr(constants, "MOST_BYTES", 1000)
    assert predicted("bfloat16")[1] == variables


@pytest.mark.parametrize(
    ("precision", "xla", "sequences", "expected"),
    [
        ("bfloat16", False, 2000, "bfloat16"),
        ("bfloat16", False, 1999, None),
        ("bfloat16", False, None, None),
        ("bfloat16", True, 2000, None),
        ("float32", False, 2000, None),
    ],
)
def test_constants_where_they_are_quicker(precision, xla, sequences, expected):
    device = DeviceOptions(precision=precision, xla=xla)
    assert constants.precision(device, sequences) == expected
