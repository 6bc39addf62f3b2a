"""Distillation: losses, the BiLSTM, changed copies, and the command as a user runs it."""

import itertools
import json
import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import run_stage
from scipy.special import expit, log_softmax, softmax

import bert_toolkit
import modeling
from bert_toolkit.checkpoints import checkpoint_files
from bert_toolkit.commands import convert_checkpoint, distill
from bert_toolkit.errors import UserError
from bert_toolkit.inference import teacher
from bert_toolkit.problems import MULTI, REGRESSION, SINGLE, Problem
from bert_toolkit.serving import kinds
from bert_toolkit.serving.batching import Limits
from bert_toolkit.serving.metrics import Metrics
from bert_toolkit.serving.models import ServedModel
from bert_toolkit.tasks import students
from bert_toolkit.tasks.classification import bilstm, lessons
from bert_toolkit.tasks.classification.distillation import DistillationLoss
from bert_toolkit.tasks.classification.task_data import Example
from bert_toolkit.tasks.distillation_options import CROSS_ENTROPY

# --- The loss ---

LOGITS = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]], np.float32)
TEACHER = np.array([[2.0, 0.0, -1.0], [-1.0, 4.0, 0.5]], np.float32)
HAS_LABEL = np.array([1, 0])


def losses_of(loss, problem, labels, logits=LOGITS, teacher_logits=TEACHER):
    """Returns the parts of the loss by name, as they are minimised."""
    with tf.Graph().as_default(), tf.Session() as session:
        features = {
            "label_ids": tf.constant(labels),
            "teacher_logits": tf.constant(teacher_logits),
            "has_label": tf.constant(HAS_LABEL),
        }
        found = loss.losses(problem, features, tf.constant(logits))
        return session.run({name: mean.value() for name, mean in found.items()})


def binary_entropy(wanted, logits):
    return -(wanted * np.log(expit(logits)) + (1 - wanted) * np.log(expit(-logits)))


def test_the_distance_of_logits():
    found = losses_of(DistillationLoss(), Problem(SINGLE, ("a", "b", "c")), [2, 0])
    assert found == {"distillation_loss": pytest.approx(np.square(LOGITS - TEACHER).mean())}


def test_the_cross_entropy_at_a_temperature_and_the_label():
    loss = DistillationLoss(CROSS_ENTROPY, 4.0, 0.3)
    found = losses_of(loss, Problem(SINGLE, ("a", "b", "c")), [2, 0])
    soft = -16.0 * (softmax(TEACHER / 4, -1) * log_softmax(LOGITS / 4, -1)).sum(-1)
    assert found["distillation_loss"] == pytest.approx((0.7 * soft[0] + soft[1]) / 2, rel=1e-5)
    assert found["label_loss"] == pytest.approx(-0.3 * log_softmax(LOGITS, -1)[0, 2] / 2, rel=1e-5)


def test_several_labels_and_numbers():
    loss = DistillationLoss(CROSS_ENTROPY, 2.0, 0.5)
    labels = np.array([[1, 0, 1], [0, 0, 0]])
    found = losses_of(loss, Problem(MULTI, ("a", "b", "c")), labels)
    soft = 4.0 * binary_entropy(expit(TEACHER / 2), LOGITS / 2).mean(-1)
    assert found["distillation_loss"] == pytest.approx((0.5 * soft[0] + soft[1]) / 2, rel=1e-5)
    hard = binary_entropy(labels, LOGITS).mean(-1)
    assert found["label_loss"] == pytest.approx(0.5 * hard[0] / 2, rel=1e-5)

    numbers = np.array([0.25, 9.0], np.float32)
    found = losses_of(
        DistillationLoss(hard_label_weight=0.5),
        Problem(REGRESSION),
        numbers,
        LOGITS[:, :1],
        TEACHER[:, :1],
    )
    assert found["distillation_loss"] == pytest.approx((0.5 * 1.0 + 1.0) / 2)
    assert found["label_loss"] == pytest.approx(0.5 * 0.75**2 / 2)


# --- The BiLSTM ---


def plain_lstm(rows, kernel, bias):
    """The last state of an LSTM over rows [S, H], step by step; gates i, g, f, o."""
    state = memory = np.zeros(len(bias) // 4)
    for row in rows:
        i, g, f, o = np.split(np.concatenate([row, state]) @ kernel + bias, 4)
        memory = expit(f) * memory + expit(i) * np.tanh(g)
        state = expit(o) * np.tanh(memory)
    return state


def test_the_bilstm_is_that_of_its_equations_whatever_the_padding():
    config = bilstm.config_of(modeling.BertConfig(vocab_size=20, hidden_size=6), lstm_size=5)
    ids = np.array([[2, 7, 9, 3, 0, 0], [2, 3, 0, 0, 0, 0], [2, 4, 5, 6, 8, 3]], np.int32)
    mask = (ids > 0).astype(np.int32)
    with tf.Graph().as_default(), tf.Session() as session:
        features = {"input_ids": tf.constant(ids), "input_mask": tf.constant(mask)}
        output = bilstm.pooled_output(config, features, "infer")
        session.run(tf.global_variables_initializer())
        found = session.run(output)
        weights = {v.op.name: value for v, value in zip(tf.trainable_variables(), session.run(tf.trainable_variables()))}  # fmt: skip
    forget = weights["bilstm/forward/bias"].reshape(4, 5)
    np.testing.assert_array_equal(forget, np.array([[0.0], [0.0], [1.0], [0.0]]) * np.ones(5))
    for row, length, values in zip(ids, mask.sum(-1), found):
        words = weights["bert/embeddings/word_embeddings"][row[:length]]
        states = [
            plain_lstm(part, weights[f"bilstm/{name}/kernel"], weights[f"bilstm/{name}/bias"])
            for name, part in (("forward", words), ("backward", words[::-1]))
        ]
        dense = np.concatenate(states) @ weights["bilstm/dense/kernel"]
        expected = np.maximum(dense + weights["bilstm/dense/bias"], 0)
        np.testing.assert_allclose(values, expected, atol=1e-5)


def test_gradients_of_the_bilstm_are_differences_of_its_output():
    """Of TensorFlow's two fused LSTMs one has a wrong gradient."""
    config = bilstm.config_of(modeling.BertConfig(vocab_size=20, hidden_size=4), lstm_size=3)
    ids = np.array([[2, 7, 9, 3, 0, 0], [2, 4, 5, 6, 8, 3]], np.int32)
    with tf.Graph().as_default(), tf.Session() as session:
        features = {"input_ids": tf.constant(ids), "input_mask": tf.constant(np.sign(ids))}
        total = tf.reduce_sum(tf.square(bilstm.pooled_output(config, features, "infer")))
        variables = tf.trainable_variables()
        gradients = tf.gradients(total, variables)
        chance = np.random.default_rng(1)
        for variable in variables:
            variable.load(chance.normal(0.0, 0.5, variable.shape.as_list()), session)
        for variable, gradient in zip(
            variables, session.run(list(map(tf.convert_to_tensor, gradients)))
        ):
            values, direction = session.run(variable), chance.normal(size=gradient.shape)
            sums = []
            for step in (0.01, -0.01):
                variable.load(values + step * direction, session)
                sums.append(session.run(total))
            variable.load(values, session)
            slope = (sums[0] - sums[1]) / 0.02
            assert slope == pytest.approx((gradient * direction).sum(), rel=0.01, abs=0.01)


def test_other_stages_say_that_a_bilstm_is_no_encoder():
    config = bilstm.config_of(modeling.BertConfig(vocab_size=20), 5)
    assert not config.problems()
    with pytest.raises(UserError, match="model_type is 'bilstm', which only classifies"):
        modeling.BertModel(config, False, tf.zeros([1, 4], tf.int32))


# --- Changed copies ---

TEXT = "one two three four five six seven eight nine ten"


def texts_of(how, text_a=TEXT, text_b=None, seed=1):
    copies = lessons.augment([Example("7", text_a, text_b, "1", 3)], how, seed)
    assert all(copy.name == "7" and copy.line == 3 and copy.label is None for copy in copies)
    return [(copy.text_a, copy.text_b) for copy in copies]


def test_words_are_masked_with_the_probability():
    found = texts_of(lessons.Augmentation(400, 0.3, 0.0), f"{TEXT} {TEXT}")
    words = [text.split() for text, _ in found]
    assert {len(one) for one in words} == {20}
    masked = np.mean([word == lessons.MASK for one in words for word in one])
    assert masked == pytest.approx(0.3, abs=0.02)
    for one in words:
        assert all(word in (lessons.MASK, own) for word, own in zip(one, TEXT.split() * 2))
    few = texts_of(lessons.Augmentation(400, 0.1, 0.0))
    assert len(set(few)) == len(few) < 400
    assert (TEXT, None) not in few
    assert texts_of(lessons.Augmentation(400, 0.1, 0.0)) == few
    assert texts_of(lessons.Augmentation(400, 0.1, 0.0), seed=2) != few


def test_words_in_a_row_are_left():
    found = {text for text, _ in texts_of(lessons.Augmentation(3000, 0.0, 1.0))}
    words = TEXT.split()
    rows = {
        " ".join(words[start : start + length])
        for length, start in itertools.product(range(1, 6), range(10))
        if start + length <= 10
    }
    assert found == rows


def test_pairs_and_texts_without_spaces():
    found = texts_of(lessons.Augmentation(3, 0.3, 0.0), "a b c d e f g h", "i j k l m n o p")
    assert len(found) == 3
    changed = [(first != "a b c d e f g h", second != "i j k l m n o p") for first, second in found]
    assert changed == [(True, False), (False, True), (True, True)]
    [(text, _), *_] = texts_of(lessons.Augmentation(5, 0.5, 0.0), "很好看的电影")
    assert len(text.split()) == 6
    assert texts_of(lessons.Augmentation(5, 1.0, 0.0)) == []  # nothing but [MASK] is no text


def test_layers_of_another_model():
    weights = {f"bert/encoder/layer_{n}/x": n for n in range(12)} | {"bert/pooler/y": 5}
    found = students.with_layers(weights, [1, 10])
    assert found == {"bert/encoder/layer_0/x": 1, "bert/encoder/layer_1/x": 10, "bert/pooler/y": 5}


# --- The command ---


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"teacher_dir": None}, "--teacher_dir is required"),
        ({"student": "bert"}, "no student; pass --student=bilstm, --teacher_layers, --bert_dir or"),
        ({"teacher_layers": ["0"]}, "--student=bilstm and --teacher_layers: each is a student"),
        (
            {"student": "bert", "teacher_layers": ["0", "-1"]},
            "--teacher_layers=0,-1: '-1'; expected numbers of layers, counted from 0",
        ),
        ({"temperature": 2.0}, "--temperature goes with --distillation_loss=cross_entropy"),
        ({"unlabeled_file": "-"}, "--unlabeled_file=-: only --predict_file reads standard input"),
        ({"use_tpu": True}, "--student=bilstm: not on a TPU"),
        (
            {"train_file": None, "unlabeled_file": "a.txt", "hard_label_weight": 0.5},
            "--hard_label_weight is for labels; expected a --train_file with them",
        ),
        (
            {"train_file": None, "unlabeled_file": "a.txt", "eval_split": 0.5},
            "--eval_split divides --train_file",
        ),
        ({"train_file": None}, "--task_name is required, or --train_file"),
    ],
)
def test_options_that_do_not_go_together(flags, message):
    chosen = {"teacher_dir": "t", "train_file": "a.tsv", "student": "bilstm", "output_dir": "out"}
    if "train_file" in flags and "unlabeled_file" not in flags:
        chosen["do_train"] = True
    with pytest.raises(UserError, match=message):
        distill.Options(**{**chosen, **flags})


def texts(path):
    return [line.split("\t")[0] for line in path.read_text().splitlines()[1:]]


def kept_logits(directory):
    [folder] = os.listdir(directory)
    names = sorted(os.listdir(directory / folder))
    return [directory / folder / name for name in names]


@pytest.mark.slow
def test_a_bilstm_learns_what_the_teacher_says(tmp_path, distill_reviews, reviews, caplog):
    caplog.set_level("INFO")
    metrics = distill_reviews(student="bilstm", lstm_size=16, augment=4, num_train_epochs=20.0)
    assert metrics["eval_accuracy"] == 1.0
    assert "to learn from: 36 texts with a label, 0 without, " in caplog.text
    out = tmp_path / "out"
    of_teacher = bert_toolkit.TextClassifier("teacher").predict(texts(reviews / "dev.tsv"))
    found = bert_toolkit.TextClassifier(str(out)).predict(texts(reviews / "dev.tsv"))
    for one, other in zip(found, of_teacher):
        assert one.probabilities["1"] == pytest.approx(other.probabilities["1"], abs=0.1)
    # It is served, but for attention, which it has none of.
    served = ServedModel("m", str(out), kinds.ModelSettings(), Limits(), Metrics())
    assert served.kinds == [kinds.CLASSIFY]
    assert served.submit(["woe"], [3]).result(timeout=60)[0].label in ("0", "1")
    served.close()
    # The teacher's embeddings are where it starts.
    word_embeddings = "bert/embeddings/word_embeddings"
    np.testing.assert_array_equal(
        checkpoint_files.read(str(out / "start" / "bert_model.ckpt"))[word_embeddings],
        tf.train.load_variable("teacher", word_embeddings),
    )
    # bert classify predicts with it by the directory alone.
    result = run_stage(
        "run_classifier",
        {"output_dir": out, "predict_file": "-", "max_seq_length": 32},
        input="\n".join(texts(reviews / "dev.tsv")) + "\n",
    )
    assert result.returncode == 0, result.stderr
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[1] for row in rows] == [one.label for one in found]
    assert [float(row[3]) for row in rows] == pytest.approx(
        [one.probabilities["1"] for one in found], abs=1e-4
    )


@pytest.mark.slow
def test_layers_of_the_teacher_and_what_is_kept(
    tmp_path, distill_reviews, reviews, caplog, monkeypatch
):
    caplog.set_level("INFO")
    monkeypatch.setattr(teacher, "PART", 10)
    flags = {"teacher_layers": ["1"], "num_train_epochs": 5.0, "evaluate_every": "epoch"}
    metrics = distill_reviews(**flags)
    assert metrics["eval_accuracy"] == 1.0
    out = tmp_path / "out"
    config = json.loads((out / "bert_config.json").read_text())
    assert config["num_hidden_layers"] == 1
    start = checkpoint_files.read(str(out / "start" / "bert_model.ckpt"))
    there = checkpoint_files.read(tf.train.latest_checkpoint("teacher"))
    query = "bert/encoder/layer_{}/attention/self/query/kernel"
    np.testing.assert_array_equal(start[query.format(0)], there[query.format(1)])
    assert query.format(1) not in start
    # The teacher's answers are those of the model, and are not asked for again.
    parts = kept_logits(out / "teacher_logits")
    assert [path.name for path in parts] == [f"{number:05d}.npy" for number in range(4)]
    logits = np.concatenate([np.load(path) for path in parts])
    found = bert_toolkit.TextClassifier("teacher").predict(texts(reviews / "train.tsv"))
    np.testing.assert_allclose(
        softmax(logits, -1), [list(one.probabilities.values()) for one in found], atol=1e-5
    )
    before = [path.stat().st_mtime_ns for path in parts]
    parts[2].unlink()
    caplog.clear()
    again = distill_reviews(**flags)
    assert "nothing to train" in caplog.text
    assert again == pytest.approx(metrics)
    np.testing.assert_allclose(np.load(parts[2]), logits[20:30], atol=1e-5)
    after = [path.stat().st_mtime_ns for path in parts]
    assert [one == other for one, other in zip(before, after)] == [True, True, False, True]
    # It is a classifier like any other: transformers' layout takes it.
    convert_checkpoint.run(convert_checkpoint.Options(bert_dir="out", output_dir="converted"))
    by_other = bert_toolkit.TextClassifier("converted").predict(["a song of joy"])
    assert by_other[0].label == "1"


@pytest.mark.slow
def test_texts_without_labels_and_a_model_from_nothing(
    tmp_path, distill_reviews, reviews, model_dir, caplog
):
    caplog.set_level("INFO")
    (tmp_path / "texts.txt").write_text("\n".join(texts(reviews / "train.tsv")) + "\n\n")
    config = json.loads((model_dir / "bert_config.json").read_text()) | {"num_hidden_layers": 1}
    (tmp_path / "small.json").write_text(json.dumps(config))
    convert_checkpoint.run(convert_checkpoint.Options(bert_dir="teacher", output_dir="theirs"))
    metrics = distill_reviews(
        teacher_dir="theirs",
        train_file=None,
        unlabeled_file="texts.txt",
        bert_config_file="small.json",
        distillation_loss="cross_entropy",
        temperature=2.0,
        num_train_epochs=20.0,
        num_runs=2,
    )
    assert "to learn from: 0 texts with a label, 36 without, 0 changed copies" in caplog.text
    assert metrics["eval_accuracy"] == 1.0
    assert len(kept_logits(tmp_path / "out" / "teacher_logits")) == 1  # both runs share them
    assert len((tmp_path / "out" / "runs.tsv").read_text().splitlines()) == 5


@pytest.mark.slow
def test_labels_are_in_the_order_of_the_teacher(tmp_path, distill_reviews, reviews):
    config = tmp_path / "teacher" / "task.json"
    names = json.loads(config.read_text()) | {"labels": ["bad", "good"]}
    config.write_text(json.dumps(names))
    (tmp_path / "teacher" / "labels.txt").write_text("bad\ngood\n")
    rows = [line.split("\t") for line in (reviews / "train.tsv").read_text().splitlines()[1:]]
    named = [f"{text}\t{'good' if label == '1' else 'bad'}" for text, label in rows]
    only_good = [row for row in named if row.endswith("good")]
    for name, lines in (("all.tsv", named), ("good.tsv", only_good)):
        (tmp_path / name).write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    metrics = distill_reviews(
        train_file="good.tsv",  # of one label; the teacher knows the others
        eval_file="all.tsv",
        student="bilstm",
        hard_label_weight=0.5,
        num_train_epochs=1.0,
    )
    assert 0.0 <= metrics["eval_accuracy"] <= 1.0
    assert (tmp_path / "out" / "labels.txt").read_text() == "bad\ngood\n"
    with pytest.raises(UserError, match="all.tsv line 2: .*expected one of bad, good"):
        (tmp_path / "all.tsv").write_text("sentence\tlabel\na song\tfine\n")
        distill_reviews(train_file="all.tsv", student="bilstm")


@pytest.mark.slow
def test_several_labels_in_parts_of_a_batch(tmp_path, distill_reviews, reviews):
    config = tmp_path / "teacher" / "task.json"
    kind = {"problem_type": "multi_label", "metric": "f1_micro"}
    config.write_text(json.dumps(json.loads(config.read_text()) | kind))
    metrics = distill_reviews(
        student="bilstm",
        lstm_size=16,
        distillation_loss="cross_entropy",
        temperature=2.0,
        hard_label_weight=0.5,
        augment=2,
        gradient_accumulation_steps=3,
        num_train_epochs=10.0,
    )
    assert metrics["eval_f1_micro"] > 0.9
    [prediction] = bert_toolkit.TextClassifier("out").predict(["a song of joy and peace 1"])
    assert prediction.label == "1"


@pytest.mark.slow
def test_teachers_that_cannot_be_used(tmp_path, distill_reviews, model_dir, monkeypatch):
    with pytest.raises(UserError, match="--teacher_dir=nowhere: no such directory"):
        distill_reviews(teacher_dir="nowhere", student="bilstm")
    with pytest.raises(
        UserError, match="golden_model: no task.json; expected a trained classifier; train"
    ):
        distill_reviews(teacher_dir=str(model_dir), student="bilstm")
    with pytest.raises(UserError, match="--teacher_layers=0,2: no layer 2; the teacher has 2"):
        distill_reviews(teacher_layers=["0", "2"])
    with pytest.raises(UserError, match="--max_seq_length=512, but .*128"):
        distill_reviews(student="bilstm", max_seq_length=512)
    with pytest.raises(UserError, match="--problem_type=multi_label, but the teacher was trained"):
        distill_reviews(student="bilstm", problem_type="multi_label")
    (tmp_path / "blank.txt").write_text("\n\n")
    with pytest.raises(UserError, match="blank.txt: only blank lines in it; expected texts"):
        distill_reviews(student="bilstm", train_file=None, unlabeled_file="blank.txt")
    config = tmp_path / "teacher" / "task.json"
    number = {"problem_type": "regression", "labels": []}
    config.write_text(json.dumps(json.loads(config.read_text()) | number))
    with pytest.raises(UserError, match="cross_entropy: the teacher predicts a number"):
        distill_reviews(student="bilstm", distillation_loss="cross_entropy")
    hosts = {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(hosts))
    with pytest.raises(UserError, match="TF_CONFIG: its cluster has several hosts"):
        distill_reviews(student="bilstm")
    assert not (tmp_path / "out" / "checkpoint").exists()


@pytest.mark.slow
def test_what_a_bilstm_cannot_do(tmp_path, distill_reviews):
    distill_reviews(student="bilstm", num_train_epochs=1.0)
    for stage, flags in (
        ("convert_checkpoint", {"output_dir": "converted"}),
        (
            "extract_features",
            {"input_file": "reviews/dev.tsv", "output_file": "f.jsonl", "layers": "-1"},
        ),  # fmt: skip
    ):
        result = run_stage(stage, {"bert_dir": "out", **flags}, cwd=tmp_path)
        assert result.returncode == 1
        assert "model_type is 'bilstm', which only classifies" in result.stderr.splitlines()[-1]
    result = run_stage(
        "export_model", {"bert_dir": "out", "output_dir": "e", "format": "tflite"}, cwd=tmp_path
    )
    assert "--format=tflite: the model is a BiLSTM" in result.stderr
    result = run_stage("export_model", {"bert_dir": "out", "output_dir": "e"}, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
