"""Object-based checkpoints of TensorFlow 2.

golden/tensorflow_models: source.ckpt holds random weights under the published names; the others
were made from it by tf-models-official 2.15 (its tf2_bert_encoder_checkpoint_converter, its
BertEncoderV2 and its BertClassifier with a head of 0, 1, 2, ...).
"""

import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import GOLDEN, run_stage

from bert_toolkit.checkpoints import checkpoint_files, object_based
from bert_toolkit.errors import UserError

FOLDER = GOLDEN / "tensorflow_models"


@pytest.mark.parametrize("kind", ["encoder", "encoder_v2", "pretrainer", "classifier"])
def test_weights_are_those_it_was_made_from(kind):
    source = checkpoint_files.read(str(FOLDER / "source.ckpt"))
    found = checkpoint_files.read(
        checkpoint_files.find(str(FOLDER / f"{kind}.ckpt-1"), "init_checkpoint")
    )
    expected = {name for name in source if name.startswith("bert/")}
    if kind == "pretrainer":  # that converter leaves the head of sentences out
        expected |= {name for name in source if name.startswith("cls/predictions/")}
    if kind == "classifier":
        expected |= {"output_weights", "output_bias"}
        source["output_weights"] = np.arange(24, dtype=np.float32).reshape(8, 3).T
        source["output_bias"] = np.array([1, 2, 3], np.float32)
    assert set(found) == expected
    for name, value in found.items():
        np.testing.assert_array_equal(value, source[name])


def test_a_model_starts_from_one():
    checkpoint = str(FOLDER / "encoder.ckpt-1")
    with checkpoint_files.as_tensorflow(checkpoint) as weights:
        assert weights.source == checkpoint
        names = checkpoint_files.shapes(weights.prefix)
    assert names["bert/encoder/layer_1/attention/self/query/kernel"] == [8, 8]


def test_one_of_something_else(tmp_path):
    module = tf.Module()
    with tf.init_scope():
        module.layer = tf.compat.v2.Variable([1.0])
        path = tf.compat.v2.train.Checkpoint(model=module).save(str(tmp_path / "other"))
    with pytest.raises(UserError, match="but not of a BERT encoder as tensorflow/models"):
        checkpoint_files.read(path)


def test_slots_and_strangers_have_no_name():
    value = "/.ATTRIBUTES/VARIABLE_VALUE"
    for name in (
        f"model/layer_with_weights-0/embeddings/.OPTIMIZER_SLOT/optimizer/m{value}",
        f"model/layer_with_weights-2/kernel{value}",
        f"save_counter{value}",
        "model/layer_with_weights-0/embeddings",
    ):
        assert object_based.published_name(name) is None


@pytest.mark.slow
def test_conversion_to_hugging_face(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    shutil.copy(FOLDER / "bert_config.json", model)
    for ending in ("index", "data-00000-of-00001"):
        shutil.copy(FOLDER / f"encoder.ckpt-1.{ending}", model / f"bert_model.ckpt-1.{ending}")
    (model / "vocab.txt").write_text(
        "".join(f"{token}\n" for token in ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
        + "".join(f"w{number}\n" for number in range(25))
    )
    out = tmp_path / "out"
    result = run_stage("convert_checkpoint", {"bert_dir": model, "output_dir": out})
    assert result.returncode == 0, result.stderr
    source = checkpoint_files.read(str(FOLDER / "source.ckpt"))
    found = checkpoint_files.read(str(out / "model.safetensors"))
    for name, value in found.items():
        np.testing.assert_array_equal(value, source[name])
