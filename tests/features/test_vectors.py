"""Vectors of lines and of combined layers."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import ROOT, run_stage

import extract_features
from bert_toolkit.errors import UserError
from bert_toolkit.features import vectors as vectors_module

LINES = "In the beginning\nthe word ||| was with God\nand the earth was without form and void\n"


@pytest.fixture
def extract(tmp_path, model_dir):
    """Extracts features of LINES; returns the JSON rows, or the array."""

    def extract(name="out.jsonl", **flags):
        (tmp_path / "lines.txt").write_text(LINES)
        out = tmp_path / name
        chosen = {"bert_dir": str(model_dir), "input_file": str(tmp_path / "lines.txt"), **flags}
        count = extract_features.run(extract_features.Options(output_file=str(out), **chosen))
        assert count == 3
        if name.endswith(".npy"):
            return np.load(out)
        return [json.loads(line) for line in out.read_text().splitlines()]

    return extract


def states(rows, layer):
    """[tokens, H] for each line, of a layer by its place in the row."""
    return [
        np.array([token["layers"][layer]["values"] for token in row["features"]]) for row in rows
    ]


def vectors(rows):
    return np.array([row["vector"] for row in rows])


@pytest.mark.parametrize(
    ("pooling", "pool"),
    [
        pytest.param("cls", lambda x: x[0], marks=pytest.mark.slow),
        ("mean", lambda x: x.mean(0)),
        pytest.param("max", lambda x: x.max(0), marks=pytest.mark.slow),
        ("mean_max", lambda x: np.concatenate([x.mean(0), x.max(0)])),
    ],
)
def test_pooling(extract, pooling, pool):
    tokens = states(extract(layers="-1"), 0)
    expected = np.array([pool(line) for line in tokens])
    np.testing.assert_allclose(vectors(extract(layers="-1", pooling=pooling)), expected, atol=2e-6)
    lengths = np.linalg.norm(expected, axis=-1, keepdims=True)
    found = vectors(extract(layers="-1", pooling=pooling, normalize=True))
    np.testing.assert_allclose(found, expected / lengths, atol=2e-6)


@pytest.mark.parametrize(
    ("combine", "make"),
    [
        ("concat", lambda a, b: np.concatenate([a, b], -1)),
        ("mean", lambda a, b: (a + b) / 2),
        ("sum", lambda a, b: a + b),
    ],
)
def test_combined_layers(extract, combine, make):
    rows = extract(layers="0,1")
    expected = [make(a, b) for a, b in zip(states(rows, 0), states(rows, 1))]
    found = extract(layers="0..1", combine=combine)
    assert {token["layers"][0]["index"] for row in found for token in row["features"]} == {"0,1"}
    for line, wanted in zip(states(found, 0), expected):
        np.testing.assert_allclose(line, wanted, atol=3e-6)


def test_an_array_has_the_vectors_of_the_lines(extract):
    flags = {"layers": "all", "pooling": "mean", "batch_size": 2, "batch_tokens": 0}
    rows, array = extract(**flags), extract("out.npy", **flags)
    assert array.shape == (3, 64)
    assert array.dtype == np.float32
    np.testing.assert_allclose(array, vectors(rows), atol=1e-6)


@pytest.mark.slow
def test_a_pipeline(model_dir):
    result = run_stage(
        "extract_features",
        {"input_file": "-", "output_file": "-", "bert_dir": model_dir, "layers": -1},
        "--pooling=mean",
        input=LINES,
    )
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["linex_index"] for row in rows] == [0, 1, 2]
    assert len(rows[0]["vector"]) == 32


@pytest.mark.slow
def test_a_pipeline_that_has_read_a_line_before(tmp_path, model_dir):
    (tmp_path / "lines.txt").write_text("header\n" + LINES)
    command = "{ read -r header; %s extract_features.py --input_file=- --output_file=- --layers=-1"
    command = f"{command % sys.executable} --bert_dir={model_dir} --pooling=cls; }}"
    with open(tmp_path / "lines.txt") as stdin:
        result = subprocess.run(
            ["bash", "-c", command], stdin=stdin, capture_output=True, text=True, cwd=ROOT,
            check=False,
        )  # fmt: skip
    assert result.stdout.count("\n") == 3, result.stderr


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("out.npy", {}, "tokens of lines make no array; pass --pooling"),
        ("out.jsonl", {"normalize": True}, "--normalize goes with --pooling"),
        ("out.jsonl", {"layers": "1..0"}, "the range 1..0 ends before it begins"),
        ("out.jsonl", {"layers": "0..2"}, "no layer 2; the model has 2"),
    ],
)
def test_flags_that_do_not_fit(extract, name, flags, message):
    with pytest.raises(UserError, match=message):
        extract(name, **flags)


def test_layers_above_are_not_computed(model_dir):
    """The graph of a lower layer does not hold the upper one."""
    import modeling

    config = modeling.BertConfig.from_json_file(str(model_dir / "bert_config.json"))
    with tf.Graph().as_default() as graph:
        features = {
            name: tf.ones([1, 4], tf.int32) for name in ("input_ids", "input_mask", "segment_ids")
        }
        features["unique_ids"] = tf.zeros([1], tf.int32)
        outputs = vectors_module.network(config, [0])(features, "infer")
        kept = tf.graph_util.extract_sub_graph(
            graph.as_graph_def(), [outputs.predictions["layer_0"].op.name]
        )
        assert not any("layer_1/" in node.name for node in kept.node)
