"""Exported models give what Python gives: SavedModel of ids and of texts, TFLite."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf2
import tensorflow.compat.v1 as tf
from conftest import GOLDEN, run_stage
from hypothesis import example, given, settings
from hypothesis import strategies as st

import bert_toolkit
from bert_toolkit.checkpoints import checkpoint_files
from bert_toolkit.commands import export_model
from bert_toolkit.errors import UserError
from bert_toolkit.inference import text_classifier
from bert_toolkit.inference import trained as trained_model
from bert_toolkit.options import ModelOptions
from bert_toolkit.problems import KINDS
from bert_toolkit.text import encoding, tokenizer_rules
from bert_toolkit.text import in_graph as graph_text
from tokenization import AddedToken, FullTokenizer

TEXTS = [
    "the people rejoice with gladness",
    "woe",
    "",
    "Ünwantéd\u00a0running, of the HOUSE\u0301 中文",
    "a cry of sorrow and wrath in the house of violence " * 9,
]


def export(model, out, **flags):
    return export_model.run(export_model.Options(bert_dir=str(model), output_dir=str(out), **flags))


def ids_of(model, texts):
    """The inputs of a batch, by Python's tokenization."""
    tokenizer = FullTokenizer(str(model / "vocab.txt"))
    encoded = [encoding.SequenceEncoder(tokenizer, 128).encode(text)[0].input_ids for text in texts]
    ids = np.zeros((len(texts), max(map(len, encoded))), np.int32)
    for row, numbers in enumerate(encoded):
        ids[row, : len(numbers)] = numbers
    mask = (np.arange(ids.shape[1]) < [[len(numbers)] for numbers in encoded]).astype(np.int32)
    return {"input_ids": ids, "input_mask": mask, "segment_ids": np.zeros_like(ids)}


def signature(model, name, **values):
    outputs = model.signatures[name](**{key: tf2.constant(value) for key, value in values.items()})
    return {key: value.numpy() for key, value in outputs.items()}


# --- SavedModel ---


@pytest.mark.slow
def test_an_exported_encoder_gives_the_vectors_of_python(tmp_path, model_dir):
    pytest.importorskip("tensorflow_text")
    saved = tf2.saved_model.load(export(model_dir, tmp_path / "out", normalize=True))
    encoder = bert_toolkit.Encoder(str(model_dir), normalize=True)
    expected = encoder.encode(TEXTS)
    found = signature(saved, "serving_default", **ids_of(model_dir, TEXTS))
    np.testing.assert_allclose(found["vector"], expected, atol=1e-6)
    np.testing.assert_allclose(signature(saved, "text", text=TEXTS)["vector"], expected, atol=1e-6)
    others = TEXTS[::-1]
    pairs = signature(saved, "text_pair", text_a=TEXTS, text_b=others)
    expected = encoder.encode(list(zip(TEXTS, others)))
    np.testing.assert_allclose(pairs["vector"], expected, atol=1e-6)
    assert (tmp_path / "out/1/assets/vocab.txt").read_text() == (
        model_dir / "vocab.txt"
    ).read_text()


@pytest.mark.slow
def test_versions_and_the_config_of_a_server(tmp_path, model_dir):
    out = tmp_path / "out"
    flags = {"with_text": False, "pooling": "none", "layers": "0,1", "model_name": "bible"}
    assert export(model_dir, out, **flags) == str(out / "1")
    assert export(model_dir, out, **flags) == str(out / "2")
    assert sorted(path.name for path in out.iterdir()) == ["1", "2", "models.config"]
    config = (out / "models.config").read_text()
    assert 'name: "bible"' in config
    assert f'base_path: "{out}"' in config
    batch = ids_of(model_dir, TEXTS[:2])
    found = signature(tf2.saved_model.load(str(out / "2")), "serving_default", **batch)
    assert found["states"].shape == (*batch["input_ids"].shape, 64)


@pytest.fixture
def trained(tmp_path, model_dir):
    """Makes the output directory of a classifier with random head and some calibration."""

    def trained(kind, labels, calibration):
        directory = tmp_path / kind
        shutil.copytree(model_dir, directory)
        weights = checkpoint_files.read(str(directory / "bert_model.ckpt"))
        for path in directory.glob("bert_model.ckpt*"):
            path.unlink()
        rng = np.random.RandomState(1)
        outputs = len(labels) or 1
        weights["output_weights"] = rng.randn(outputs, 32).astype(np.float32)
        weights["output_bias"] = rng.randn(outputs).astype(np.float32)
        checkpoint_files.save(str(directory / "model.ckpt-1"), weights)
        tf.train.update_checkpoint_state(str(directory), str(directory / "model.ckpt-1"))
        task = {"problem_type": kind, "labels": labels, "metric": "accuracy"}
        (directory / "task.json").write_text(json.dumps(task))
        (directory / "labels.txt").write_text("".join(f"{label}\n" for label in labels))
        (directory / "calibration.json").write_text(json.dumps(calibration))
        return directory

    return trained


CALIBRATION = {"temperature": 1.7, "thresholds": None, "reject_below": 0.6}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "labels", "changes"),
    [
        ("single_label", ["bad", "good", "mixed"], {}),
        ("multi_label", ["bad", "good"], {"thresholds": [0.3, 0.7], "reject_below": 0.0}),
        ("regression", [], {"temperature": 1.0, "reject_below": 0.0}),
    ],
)
def test_an_exported_classifier_answers_as_python_does(tmp_path, trained, kind, labels, changes):
    pytest.importorskip("tensorflow_text")
    model = trained(kind, labels, {**CALIBRATION, **changes})
    saved = tf2.saved_model.load(export(model, tmp_path / "out"))
    answers = bert_toolkit.TextClassifier(str(model)).predict(TEXTS)
    for found in (
        signature(saved, "text", text=TEXTS),
        signature(saved, "serving_default", **ids_of(model, TEXTS)),
    ):
        if kind == "regression":
            expected = [float(answer.label) for answer in answers]
            np.testing.assert_allclose(found["value"], expected, atol=1e-5)
            continue
        expected = [list(answer.probabilities.values()) for answer in answers]
        np.testing.assert_allclose(found["probabilities"], expected, atol=1e-6)
        if kind == "single_label":
            assert [label.decode() for label in found["label"]] == [a.label for a in answers]
        else:
            given = [",".join(np.array(labels)[row]) for row in found["predicted"]]
            assert given == [answer.label for answer in answers]
    assets = {path.name for path in (tmp_path / "out/1/assets").iterdir()}
    assert assets == ({"vocab.txt", "labels.txt"} if labels else {"vocab.txt"})


@pytest.mark.slow
def test_the_command_line_of_tensorflow_runs_it(tmp_path, model_dir):
    result = run_stage(
        "export_model", {"bert_dir": model_dir, "output_dir": tmp_path / "out"}, "--nowith_text"
    )
    assert result.returncode == 0, result.stderr
    batch = ids_of(model_dir, TEXTS)
    for name, values in batch.items():
        np.save(tmp_path / f"{name}.npy", values)
    command = [
        sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", "run",
        "--dir", tmp_path / "out/1", "--tag_set", "serve", "--signature_def", "serving_default",
        "--inputs", ";".join(f"{name}={tmp_path}/{name}.npy" for name in batch),
        "--outdir", tmp_path, "--overwrite",
    ]  # fmt: skip
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    expected = bert_toolkit.Encoder(str(model_dir)).encode(TEXTS)
    np.testing.assert_allclose(np.load(tmp_path / "vector.npy"), expected, atol=1e-6)


def test_the_best_model_keeps_what_was_chosen_on_the_dev_data(tmp_path, trained):
    best = trained("single_label", ["bad", "good"], CALIBRATION).rename(tmp_path / "best")
    (best / "calibration.json").rename(tmp_path / "calibration.json")
    tf.train.update_checkpoint_state(str(best), str(best / "model.ckpt-1"))
    found = trained_model.find(ModelOptions(bert_dir=str(best), do_lower_case=False), KINDS)
    assert text_classifier.calibration_of(str(best)).reject_below == 0.6
    assert not found.files.rules.do_lower_case


@pytest.mark.slow
def test_a_head_without_its_task_is_told(tmp_path, trained, caplog):
    model = trained("single_label", ["bad", "good"], CALIBRATION)
    (model / "task.json").unlink()
    export(model, tmp_path / "out", with_text=False)
    assert "has a classifier's head, but no task.json says what it predicts" in caplog.text


# --- Texts in the graph ---


@pytest.fixture(scope="module")
def in_graph():
    """A function (rules, texts, others, length) -> features by the graph."""
    pytest.importorskip("tensorflow_text")
    graphs = {}

    def run(rules, texts, others, length):
        key = (rules, others is None)
        if key not in graphs:
            with tf.Graph().as_default() as graph:
                tokenizer = graph_text.GraphTokenizer(str(GOLDEN / "vocab.txt"), rules)
                first, second = (tf.placeholder(tf.string, [None]) for _ in range(2))
                size = tf.placeholder(tf.int64, [])
                given = None if others is None else second
                outputs = tokenizer.features(first, given, size)
                session = tf.Session(graph=graph)
                session.run(tf.tables_initializer())
                graphs[key] = (session, first, second, size, outputs)
        session, first, second, size, outputs = graphs[key]
        feed = {first: texts, size: length}
        return session.run(outputs, feed | ({} if others is None else {second: others}))

    return run


def check_equal(in_graph, rules, texts, others, length):
    tokenizer = rules.tokenizer(str(GOLDEN / "vocab.txt"))
    found = in_graph(rules, texts, others, length)
    for row, text in enumerate(texts):
        other = None if others is None else others[row]
        expected = encoding.SequenceEncoder(tokenizer, length).encode(text, other)[0]
        count = int(found["input_mask"][row].sum())
        assert found["input_ids"][row, :count].tolist() == expected.input_ids
        assert found["segment_ids"][row, :count].tolist() == expected.segment_ids
        assert not found["input_ids"][row, count:].any()


# A Hugging Face model's, with a limit that random texts reach.
THEIRS = tokenizer_rules.Rules(
    added_tokens=(AddedToken("[MASK]", 4), AddedToken("[MA", 4000), AddedToken("\u4e2d$", 4001)),
    max_input_chars_per_word=12,
    hugging_face=True,
)

texts = st.lists(
    st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=20)
    | st.text("the word was God, .\t\u00e9\u0301\u200b中\ue000\u03a3", max_size=60)
    | st.lists(st.sampled_from(["[MASK]", "[MA", "god", "GOD", "中$", "$", " ", "a"])).map("".join),
    min_size=1,
    max_size=5,
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@example(["\x000[MA\0SK]", "[MASK]\0"], 20)
@given(texts, st.integers(5, 20))
def test_texts_in_the_graph_become_what_python_makes_of_them(in_graph, texts, length):
    for rules in (
        tokenizer_rules.Rules(),
        tokenizer_rules.Rules(do_lower_case=False),
        tokenizer_rules.Rules(strip_accents=False),
        tokenizer_rules.Rules(never_split=("[MASK]", "god"), tokenize_chinese_chars=False),
        THEIRS,
    ):
        check_equal(in_graph, rules, texts, None, length)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(texts, texts, st.integers(5, 20))
def test_pairs_in_the_graph_too(in_graph, first, second, length):
    count = min(len(first), len(second))
    check_equal(in_graph, tokenizer_rules.Rules(), first[:count], second[:count], length)


def test_golden_strings_in_the_graph(in_graph):
    for case in json.loads((GOLDEN / "tokenization.json").read_text()):
        rules = tokenizer_rules.Rules(do_lower_case=case["do_lower_case"])
        found = in_graph(rules, [case["text"]], None, 512)
        assert found["input_ids"][0, 1:-1].tolist() == case["ids"]


# --- TFLite ---


def run_tflite(path, values):
    """All outputs of a batch."""
    interpreter = tf2.lite.Interpreter(path)
    for place in interpreter.get_input_details():
        interpreter.resize_tensor_input(place["index"], values[place["name"]].shape)
    interpreter.allocate_tensors()
    for place in interpreter.get_input_details():
        interpreter.set_tensor(place["index"], values[place["name"]])
    interpreter.invoke()
    return [interpreter.get_tensor(place["index"]) for place in interpreter.get_output_details()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-5), ("float16", 5e-3), ("int8", 0.1)]
)
def test_tflite(tmp_path, trained, dtype, tolerance):
    model = trained("single_label", ["bad", "good"], CALIBRATION)
    path = export(model, tmp_path / "lite", format="tflite", dtype=dtype)
    answers = bert_toolkit.TextClassifier(str(model)).predict(TEXTS)
    found = run_tflite(path, ids_of(model, TEXTS))
    expected = np.array([list(answer.probabilities.values()) for answer in answers])
    assert min(np.abs(array - expected).max() for array in found) < tolerance
    assert (tmp_path / "lite/labels.txt").read_text() == "bad\ngood\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags", [{"pooling": "mean_max", "normalize": True, "layers": "0,1"}, {"pooling": "cls"}]
)
def test_tflite_of_vectors(tmp_path, model_dir, flags):
    path = export(model_dir, tmp_path / "lite", format="tflite", **flags)
    chosen = {**flags, "layers": [0, 1] if "layers" in flags else [-1]}
    expected = bert_toolkit.Encoder(str(model_dir), **chosen).encode(TEXTS)
    [found] = run_tflite(path, ids_of(model_dir, TEXTS))
    np.testing.assert_allclose(found, expected, atol=1e-5)


# --- Errors ---


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"dtype": "int8"}, "--dtype=int8 is for --format=tflite"),
        ({"with_text": True, "format": "tflite"}, ".tflite takes token ids only"),
        ({"pooling": "none", "normalize": True}, "goes with --pooling"),
        ({"max_seq_length": 4096}, "max_position_embeddings 128"),
        ({"output_dir": "gs://a/b"}, "export here, then copy"),
    ],
)
def test_what_cannot_be_exported(tmp_path, model_dir, flags, message):
    chosen = {"bert_dir": str(model_dir), "output_dir": str(tmp_path / "out"), **flags}
    with pytest.raises(UserError, match=message):
        export_model.run(export_model.Options(**chosen))
    assert not (tmp_path / "out/1").exists()


def test_tensorflow_text_is_asked_for(tmp_path, model_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_text", None)
    with pytest.raises(UserError, match=r"pip install 'bert-toolkit\[text\]'"):
        export(model_dir, tmp_path / "a", with_text=True)
    saved = export(model_dir, tmp_path / "b")
    assert list(tf2.saved_model.load(saved).signatures) == ["serving_default"]
