"""Learning a teacher's hidden states and attention: the losses, and the command as a user runs it."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import GOLDEN, ROOT, run_stage
from plain_bert import PlainBert

import bert_toolkit
import modeling
from bert_toolkit.checkpoints import checkpoint_files
from bert_toolkit.commands import convert_checkpoint, distill, export_model
from bert_toolkit.compute import DEFAULT_COMPUTE, TPU_COMPUTE, ComputeOptions
from bert_toolkit.errors import UserError
from bert_toolkit.tasks.layer_distillation import LayerLoss, layers_to_learn
from bert_toolkit.training import model_functions

# --- The losses ---

IDS = np.array([[2, 70, 9, 3, 0, 0, 0], [2, 81, 55, 16, 8, 90, 3], [2, 3, 0, 0, 0, 0, 0]], np.int32)
MASK = np.sign(IDS)
SEGMENTS = np.array([[0, 0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1], [0] * 7], np.int32)
FEATURES = {"input_ids": IDS, "input_mask": MASK, "segment_ids": SEGMENTS}


def config_of(**settings):
    return modeling.BertConfig.from_dict(
        json.loads((GOLDEN / "model" / "bert_config.json").read_text()) | settings
    )


def losses_of(student, directory, layers, compute=DEFAULT_COMPUTE, weights=(3.0, 0.5)):
    """Returns losses of a student with random weights, and its gradients, by name.

    The student is written to `directory`.
    """
    prefix = str(GOLDEN / "model" / "bert_model.ckpt")
    # The teacher drops nothing, whatever its config says.
    teacher = config_of(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    loss = LayerLoss(checkpoint_files.Weights(prefix, prefix), teacher, layers, *weights)
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(3)
        features = {name: tf.constant(value) for name, value in FEATURES.items()}
        model = model_functions.encoder(student, features, "train", compute)
        found = loss.losses(model, features, compute)
        assert all(variable.name.startswith("teacher/") for variable in tf.local_variables())
        assert not [name for name in map(str, tf.global_variables()) if "teacher" in name]
        variables = tf.trainable_variables()
        total = tf.add_n([mean.value() for mean in found.values()])
        gradients = tf.gradients(total, [variable.handle for variable in variables])
        kept = [(v, tf.convert_to_tensor(g)) for v, g in zip(variables, gradients) if g is not None]
        session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
        values = {v.op.name: value for v, value in zip(variables, session.run(variables))}
        checkpoint_files.save(str(directory / "bert_model.ckpt"), values)
        (directory / "bert_config.json").write_text(student.to_json_string())
        by_name = session.run({v.op.name: gradient for v, gradient in kept})
        return session.run({name: mean.value() for name, mean in found.items()}), by_name


def expected(directory, layers):
    """Returns the distances of hidden states and of scores, a sequence at a time, unpadded."""
    ours, theirs = PlainBert(directory), PlainBert(GOLDEN / "model")
    names = ("embeddings", "hidden_states")
    kernels = [ours.weights.get(f"distillation/{name}/kernel", np.eye(32)) for name in names]
    hidden, tokens, attention, pairs = 0.0, 0, 0.0, 0
    for ids, segments, length in zip(IDS, SEGMENTS, MASK.sum(-1)):
        own, own_scores = ours.encode_layers(ids[:length], segments[:length])
        other, scores = theirs.encode_layers(ids[:length], segments[:length])
        hidden += np.square(own[0] @ kernels[0] - other[0]).mean(-1).sum()
        for number, layer in enumerate(layers):
            difference = own[number + 1] @ kernels[1] - other[layer + 1]
            hidden += np.square(difference).mean(-1).sum()
            attention += np.square(own_scores[number] - scores[layer]).mean(0).sum()
        tokens, pairs = tokens + length, pairs + length**2
    return hidden / tokens, attention / pairs


@pytest.mark.parametrize("compute", [DEFAULT_COMPUTE, TPU_COMPUTE], ids=["real", "padded"])
@pytest.mark.parametrize(
    ("settings", "layers"),
    [
        ({"hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 20}, [1]),
        ({"num_hidden_layers": 1}, [0]),
        ({"hidden_size": 48, "num_hidden_layers": 3}, [0, 1, 0]),
    ],
    ids=["narrower", "as wide", "wider and deeper"],
)
def test_the_losses_are_those_of_a_plain_bert(tmp_path, settings, layers, compute):
    found, gradients = losses_of(config_of(**settings), tmp_path, layers, compute)
    hidden, attention = expected(tmp_path, layers)
    assert found["hidden_state_loss"] == pytest.approx(3.0 * hidden, rel=1e-4)
    assert found["attention_loss"] == pytest.approx(0.5 * attention, rel=1e-4)
    projected = {f"distillation/{name}/kernel" for name in ("embeddings", "hidden_states")}
    learned = {name for name in gradients if name.startswith("distillation/")}
    assert learned == (projected if "hidden_size" in settings else set())
    assert "bert/encoder/layer_0/attention/self/query/kernel" in gradients


def test_either_alone_and_gradients_of_recomputed_layers(tmp_path):
    small = config_of(hidden_size=16, num_hidden_layers=2)
    only_hidden, _ = losses_of(small, tmp_path, [0, 1], weights=(1.0, 0.0))
    only_attention, _ = losses_of(small, tmp_path, [0, 1], weights=(0.0, 1.0))
    assert [*only_hidden, *only_attention] == ["hidden_state_loss", "attention_loss"]
    losses, gradients = losses_of(small, tmp_path, [0, 1])
    recompute = ComputeOptions(recompute=True)
    same, recomputed = losses_of(small, tmp_path, [0, 1], recompute)
    assert same == pytest.approx(losses, rel=1e-5)
    assert gradients.keys() == recomputed.keys()
    for name, gradient in gradients.items():
        np.testing.assert_allclose(recomputed[name], gradient, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("chosen", "student", "teacher", "layers"),
    [
        (None, 4, 12, [2, 5, 8, 11]),  # the paper's TinyBERT-4
        (None, 6, 12, [1, 3, 5, 7, 9, 11]),
        (None, 2, 2, [0, 1]),
        (None, 5, 12, [1, 3, 6, 8, 11]),
        (["0", "2", "5"], 3, 6, [0, 2, 5]),
    ],
)
def test_layers_are_spread_evenly_up_to_the_last(chosen, student, teacher, layers):
    assert layers_to_learn(chosen, student, teacher) == layers


# --- The command ---


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            {"student": "bilstm", "hidden_state_weight": 1.0},
            "--hidden_state_weight: a BiLSTM has no such layers; expected another student",
        ),
        (
            {"student": "bilstm", "attention_weight": 1.0},
            "--attention_weight: a BiLSTM has no such layers; expected another student",
        ),
        (
            {"teacher_layers": ["0"], "attention_weight": 1.0, "use_tpu": True},
            "--attention_weight: not on a TPU; leave it out, or --use_tpu",
        ),
    ],
)
def test_options_that_do_not_go_together(flags, message):
    common = {"teacher_dir": "t", "train_file": "a.tsv", "output_dir": "out"}
    with pytest.raises(UserError, match=message):
        distill.Options(**common, **flags)


def test_a_student_of_the_teacher_has_no_other_start(tmp_path):
    common = {"train_file": "a.tsv", "teacher_dir": str(tmp_path), "teacher_layers": ["0"]}
    for name in ("init_checkpoint", "vocab_file"):
        message = rf"--{name}: the student is made of the teacher \(--teacher_layers\)"
        with pytest.raises(UserError, match=message):
            distill.Options(**common, output_dir="out", **{name: "x"})
    with pytest.raises(UserError, match=f"--output_dir={tmp_path}/: the directory of the teacher"):
        distill.Options(**common, output_dir=f"{tmp_path}/")


def run_program(command, directory):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )


def smaller(directory, **settings):
    """Writes the config of another model beside the teacher's vocabulary; returns its path."""
    path = directory / "small.json"
    config = json.loads((directory / "teacher" / "bert_config.json").read_text())
    path.write_text(json.dumps(config | settings))
    return str(path)


def losses_logged(text):
    """Returns the hidden-state losses of the lines of a log."""
    found = [part for part in text.split(", ") if part.startswith("hidden_state_loss ")]
    return [float(part.split()[1]) for part in found]


@pytest.mark.slow
def test_a_narrower_student_goes_on_and_is_a_model_like_any_other(
    tmp_path, distill_reviews, reviews, caplog
):
    caplog.set_level("INFO")
    flags = {
        "bert_config_file": smaller(tmp_path, hidden_size=16, num_hidden_layers=1),
        "hidden_state_weight": 1.0,
        "attention_weight": 0.1,
        "gradient_accumulation_steps": 3,
        "learning_rate_schedule": "constant",
        "log_every_steps": 4,
    }
    distill_reviews(**flags, num_train_epochs=1.0)
    metrics = distill_reviews(**flags, num_train_epochs=20.0)
    assert "layers of the teacher to learn from: 1\n" in caplog.text
    assert "step 4 of 80" in caplog.text
    assert metrics["eval_accuracy"] == 1.0
    logged = losses_logged(caplog.text)
    assert logged[-1] < 0.7 * logged[0]
    # The projections are in the checkpoints of training, and in nothing that is made of them.
    latest = tf.train.latest_checkpoint("out")
    there = checkpoint_files.shapes(latest)
    assert there["distillation/hidden_states/kernel"] == [16, 32]
    assert not any("teacher" in name for name in there)
    assert not any("distillation" in name for name in checkpoint_files.read(latest))
    texts = ["a song of joy", "woe unto the house"]
    found = bert_toolkit.TextClassifier("out").predict(texts)
    assert [one.label for one in found] == ["1", "0"]
    convert_checkpoint.run(convert_checkpoint.Options(bert_dir="out", output_dir="converted"))
    by_other = bert_toolkit.TextClassifier("converted").predict(texts)
    export_model.run(export_model.Options(bert_dir="out", output_dir="exported"))
    for one, other in zip(found, by_other):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
    caplog.clear()
    predicted = run_stage(
        "run_classifier",
        {"output_dir": "out", "predict_file": "-", "max_seq_length": 32},
        input="\n".join(texts) + "\n",
        cwd=tmp_path,
    )
    assert predicted.returncode == 0, predicted.stderr
    assert "distillation" not in predicted.stderr
    # It may teach, or start, another one of any width.
    again = {"output_dir": "again", "bert_dir": "out", "num_train_epochs": 1.0}
    caplog.clear()
    distill_reviews(**again, hidden_state_weight=1.0)
    logged = losses_logged(caplog.text)
    assert logged
    assert np.isfinite(logged).all()


@pytest.mark.slow
def test_a_student_that_has_begun_keeps_its_layers(distill_reviews):
    flags = {"teacher_layers": ["0", "1"], "hidden_state_weight": 1.0}
    distill_reviews(**flags, num_train_epochs=1.0)
    message = r"--teacher_layers=1: the student in out was made of layers 0,1 and has begun"
    with pytest.raises(UserError, match=message):
        distill_reviews(**{**flags, "teacher_layers": ["1"]}, num_train_epochs=2.0)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_layers_of_the_teacher_are_compared_with_themselves(
    tmp_path, distill_reviews, caplog, precision
):
    """A student of the teacher's first layer that is not trained yet has that layer's states."""
    caplog.set_level("INFO")
    distill_reviews(
        teacher_layers=["0"],
        hidden_state_weight=1.0,
        attention_weight=1.0,
        learning_rate=1e-9,
        num_train_epochs=1.0,
        precision=precision,
    )
    assert "layers of the teacher to learn from: 0\n" in caplog.text
    assert "hidden_state_loss 0.0000, attention_loss 0.0000" in caplog.text
    assert not any("distillation" in name for name in checkpoint_files.shapes("out/model.ckpt-4"))


MIRRORED = """
import sys
from bert_toolkit import tensorflow_start
import tensorflow as tf
from bert_toolkit.commands import distill
from bert_toolkit.training import trainer

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
devices = {"two": lambda *_: trainer.mirrored(["/cpu:0", "/cpu:1"]), "one": lambda *_: None}
trainer.choose_strategy = devices[sys.argv[1]]
distill.run(distill.Options(
    teacher_dir="teacher", teacher_layers=["0"], train_file="reviews/train.tsv",
    output_dir=sys.argv[1], max_seq_length=32, train_batch_size=12, num_train_epochs=1.0,
    learning_rate=1e-3, hidden_state_weight=1.0, attention_weight=1.0,
))
"""


@pytest.mark.slow
def test_two_devices_train_as_one_does(tmp_path, distill_reviews):
    (tmp_path / "run.py").write_text(MIRRORED)
    for name in ("one", "two"):
        done = run_program([sys.executable, "run.py", name], tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = (checkpoint_files.read(f"{name}/model.ckpt-3") for name in ("one", "two"))
    start = checkpoint_files.read("one/start/bert_model.ckpt")
    query = "bert/encoder/layer_0/attention/self/query/kernel"
    assert np.abs(one[query] - start[query]).max() > 1e-4
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_students_whose_layers_cannot_be_compared(tmp_path, distill_reviews, model_dir):
    weights = {"hidden_state_weight": 1.0, "attention_weight": 1.0}
    with pytest.raises(UserError, match="the student has 2 attention heads, the teacher 4; expec"):
        distill_reviews(bert_config_file=smaller(tmp_path, num_attention_heads=2), **weights)
    with pytest.raises(
        UserError, match="the student has 3 layers, the teacher 2; expected no more"
    ):
        distill_reviews(bert_config_file=smaller(tmp_path, num_hidden_layers=3), **weights)
    other = tmp_path / "other"
    shutil.copytree(model_dir, other)
    *most, last, before = (model_dir / "vocab.txt").read_text().splitlines()
    (other / "vocab.txt").write_text("\n".join([*most, before, last]) + "\n")
    with pytest.raises(UserError, match="--hidden_state_weight: the student cuts text by other"):
        distill_reviews(bert_dir="other", **weights)
    with pytest.raises(UserError, match="--attention_weight: the student cuts text by .*vocab.txt"):
        distill_reviews(bert_dir=str(model_dir), do_lower_case=False, attention_weight=1.0)
    distill_reviews(student="bilstm", output_dir="bilstm", num_train_epochs=1.0)
    small = smaller(tmp_path, num_hidden_layers=1)
    with pytest.raises(
        UserError, match="--hidden_state_weight: the teacher is a bilstm, which has"
    ):
        distill_reviews(teacher_dir="bilstm", bert_config_file=small, hidden_state_weight=1.0)
    assert not (tmp_path / "out" / "checkpoint").exists()
    assert not os.path.exists("out/teacher_logits")
