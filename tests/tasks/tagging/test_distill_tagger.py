"""Distillation of taggers: the loss of words, windows, and the command as a user runs it."""

import json
import os
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import GOLDEN, ROOT, run_stage
from scipy.special import log_softmax, softmax

import bert_toolkit
import run_token_classifier
from bert_toolkit.checkpoints import checkpoint_files
from bert_toolkit.commands import convert_checkpoint, distill_tagger
from bert_toolkit.errors import UserError
from bert_toolkit.problems import TAGGING, Problem
from bert_toolkit.tasks.classification.distillation import DistillationLoss
from bert_toolkit.tasks.distillation_options import CROSS_ENTROPY
from bert_toolkit.tasks.tagging.data import Data, Model
from bert_toolkit.tasks.tagging.distillation import Lesson, TaggingDistillation, WordLoss
from bert_toolkit.tasks.tagging.formats import Sentence
from tokenization import FullTokenizer

SAMPLE = ROOT / "sample_data" / "tags"
LABELS = ("O", "B-X", "I-X")

# --- The loss ---


@pytest.mark.parametrize("kind", ["mse", CROSS_ENTROPY])
def test_the_loss_is_the_mean_over_first_pieces_of_words(kind):
    chance = np.random.default_rng(0)
    logits, teacher = (chance.normal(size=(2, size, 3)).astype(np.float32) for size in (5, 8))
    mask = np.array([[0, 1, 0, 1, 0], [0, 1, 1, 1, 0]])
    tags = np.array([[0, 2, 0, 1, 0], [0, 0, 0, 0, 0]])
    temperature = 2.0 if kind == CROSS_ENTROPY else 1.0
    with tf.Graph().as_default(), tf.Session() as session:
        features = {
            "label_mask": tf.constant(mask),
            "label_ids": tf.constant(tags),
            "has_label": tf.constant([1, 0]),
            "teacher_logits": tf.constant(teacher.reshape(2, 24)),  # of the longest sequence
        }
        loss = WordLoss(Problem(TAGGING, LABELS), DistillationLoss(kind, temperature, 0.25))
        losses = loss.losses(features, tf.constant(logits))
        shown = loss.shown(features, tf.constant(logits))
        found = session.run({k: v.value() for k, v in {**losses, **shown}.items()})
    distances, labels, same = [], [], []
    for row, place in zip(*mask.nonzero()):
        one, other = logits[row, place], teacher[row, place]
        distance = np.square(one - other).mean()
        if kind == CROSS_ENTROPY:
            distance = -4.0 * (softmax(other / 2) * log_softmax(one / 2)).sum()
        distances.append(distance * (0.75 if row == 0 else 1.0))
        labels.append(-0.25 * log_softmax(one)[tags[row, place]] if row == 0 else 0.0)
        same.append(one.argmax() == other.argmax())
    assert found["distillation_loss"] == pytest.approx(np.mean(distances), rel=1e-5)
    assert found["label_loss"] == pytest.approx(np.mean(labels), rel=1e-5)
    assert found["agreement"] == pytest.approx(np.mean(same))


def test_each_window_has_the_logits_of_its_own_words():
    words = tuple("the people rejoice with gladness in the house of mercy".split())
    logits = np.arange(30, dtype=np.float32).reshape(10, 3)
    chosen = options("out", max_seq_length=8, doc_stride=3)
    data = Data(Model(Problem(TAGGING, LABELS), "iob2", False), [], None, None)
    tokenizer = FullTokenizer(str(GOLDEN / "vocab.txt"))
    task = TaggingDistillation(data, chosen, tokenizer, [], "")
    encoded = task.encode(Lesson(Sentence(words, None, 1), logits))
    assert len(encoded) > 1
    found = []
    for one, own in encoded:
        grid = own["teacher_logits"].reshape(-1, 3)
        assert len(grid) == len(one.input_ids)
        mask = np.array(own["label_mask"], bool)
        assert not grid[~mask].any()
        assert own["has_label"] == [0]
        found.append(grid[mask])
    np.testing.assert_array_equal(np.concatenate(found), logits)


# --- The command ---


def options(output_dir, **flags):
    common = {
        "train_file": str(SAMPLE / "train.conll"),
        "eval_file": str(SAMPLE / "dev.conll"),
        "teacher_dir": "teacher",
        "teacher_layers": ["0"],
        "max_seq_length": 32,
        "train_batch_size": 8,
        "learning_rate": 2e-3,
        "output_dir": str(output_dir),
    }
    return distill_tagger.Options(**{**common, **flags})


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"teacher_dir": None}, "--teacher_dir is required"),
        (
            {"teacher_layers": None},
            "no student; pass --teacher_layers, --bert_dir or --bert_config",
        ),
        ({"bert_dir": "b"}, "--teacher_layers and --bert_dir: each is a student; pass one of them"),
        ({"temperature": 2.0}, "--temperature goes with --distillation_loss=cross_entropy"),
        ({"unlabeled_file": "-"}, "--unlabeled_file=-: only --predict_file reads standard input"),
        ({"hidden_state_weight": 1.0, "use_tpu": True}, "--hidden_state_weight: not on a TPU"),
        (
            {"train_file": None, "unlabeled_file": "a.txt", "hard_label_weight": 0.5},
            "--hard_label_weight is for labels; expected a --train_file with them",
        ),
        (
            {"train_file": None, "unlabeled_file": "a.txt", "eval_split": 0.5},
            "--eval_split divides --train_file",
        ),
        (
            {"train_file": None, "do_train": True},
            "--do_train: --train_file or --unlabeled_file is required",
        ),
    ],
)
def test_options_that_do_not_go_together(flags, message):
    with pytest.raises(UserError, match=message):
        options("out", **flags)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A tagger of the sample sentences, in a directory of its own."""
    directory = tmp_path_factory.mktemp("tagger")
    shutil.copytree(GOLDEN / "model", directory / "golden")
    shutil.copy(GOLDEN / "vocab.txt", directory / "golden")
    flags = {"bert_dir": str(directory / "golden"), "num_train_epochs": 12.0}
    trained(directory / "teacher", **flags)
    return directory


def trained(output_dir, **flags):
    """Trains a tagger on labels."""
    common = {
        "train_file": str(SAMPLE / "train.conll"),
        "eval_file": str(SAMPLE / "dev.conll"),
        "max_seq_length": 32,
        "train_batch_size": 8,
        "learning_rate": 2e-3,
        "output_dir": str(output_dir),
    }
    return run_token_classifier.run(run_token_classifier.Options(**{**common, **flags}))


@pytest.mark.slow
def test_layers_of_the_teacher_learn_its_tags(tmp_path, teacher, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.chdir(teacher)
    lines = (SAMPLE / "test.conll").read_text().split("\n\n")
    texts = [" ".join(row.split()[0] for row in part.splitlines()) for part in lines if part]
    (tmp_path / "more.txt").write_text("\n".join(texts) + "\n\n")
    flags = {
        "unlabeled_file": str(tmp_path / "more.txt"),
        "hard_label_weight": 0.2,
        "hidden_state_weight": 0.1,
        "attention_weight": 0.01,
        "gradient_accumulation_steps": 2,
        "num_train_epochs": 8.0,
    }
    metrics = distill_tagger.run(options(tmp_path / "out", **flags))
    assert f"to learn from: 160 sentences with tags, {len(texts)} without" in caplog.text
    assert "layers of the teacher to learn from: 0\n" in caplog.text
    sentences = [text.split() for text in texts]
    of_teacher = bert_toolkit.TokenClassifier("teacher").tags(sentences)
    found = bert_toolkit.TokenClassifier(str(tmp_path / "out")).tags(sentences)
    pairs = [pair for one, other in zip(of_teacher, found) for pair in zip(one, other)]
    assert np.mean([one == other for one, other in pairs]) > 0.9
    of_entities = [one == other for one, other in pairs if one != "O"]
    assert len(of_entities) > 20
    assert np.mean(of_entities) > 0.7
    assert metrics["eval_f1"] > 0.2
    # The answers that are kept are the teacher's: of the tagged sentences, then of the texts.
    [folder] = os.listdir(tmp_path / "out" / "teacher_logits")
    logits = np.load(tmp_path / "out" / "teacher_logits" / folder / "00000.npy")
    task = json.loads((teacher / "teacher" / "task.json").read_text())
    last = np.concatenate([[task["labels"].index(tag) for tag in tags] for tags in of_teacher])
    np.testing.assert_array_equal(logits.argmax(-1)[-len(last) :], last)
    assert json.loads((tmp_path / "out" / "task.json").read_text()) == task
    # bert tag takes it by the directory alone.
    result = run_stage(
        "run_token_classifier",
        {"output_dir": tmp_path / "out", "predict_file": "-", "max_seq_length": 32},
        input="Anna Weber took the train to Norby.\n",
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["text"] == "Anna Weber took the train to Norby."


@pytest.mark.slow
def test_texts_alone_and_a_teacher_in_the_layout_of_transformers(tmp_path, teacher, monkeypatch):
    monkeypatch.chdir(teacher)
    convert_checkpoint.run(
        convert_checkpoint.Options(bert_dir="teacher", output_dir=str(tmp_path / "theirs"))
    )
    config = json.loads((teacher / "golden" / "bert_config.json").read_text())
    small = tmp_path / "small.json"
    small.write_text(json.dumps(config | {"num_hidden_layers": 1, "hidden_size": 16}))
    metrics = distill_tagger.run(
        options(
            tmp_path / "out",
            teacher_dir=str(tmp_path / "theirs"),
            teacher_layers=None,
            bert_config_file=str(small),
            train_file=None,
            unlabeled_file=str(SAMPLE / "train.conll"),  # of which only the words are read
            distillation_loss=CROSS_ENTROPY,
            temperature=2.0,
            hidden_state_weight=0.1,
            num_train_epochs=1.0,
        )
    )
    assert np.isfinite(metrics["eval_loss"])
    there = checkpoint_files.shapes(tf.train.latest_checkpoint(str(tmp_path / "out")))
    assert there["distillation/hidden_states/kernel"] == [16, 32]


@pytest.mark.slow
def test_teachers_and_tags_that_cannot_be_used(tmp_path, teacher, monkeypatch):
    monkeypatch.chdir(teacher)
    out = tmp_path / "out"
    with pytest.raises(UserError, match="--teacher_dir=nowhere: no such directory"):
        distill_tagger.run(options(out, teacher_dir="nowhere"))
    with pytest.raises(UserError, match="golden: no task.json; expected a trained tagger; train"):
        distill_tagger.run(options(out, teacher_dir="golden"))
    with pytest.raises(UserError, match="--teacher_layers=5: no layer 5; the teacher has 2"):
        distill_tagger.run(options(out, teacher_layers=["5"]))
    strange = tmp_path / "strange.conll"
    strange.write_text("Anna B-GHOST\nsings O\n")
    with pytest.raises(UserError, match="strange.conll line 1: tag B-GHOST; expected one of 'O'"):
        distill_tagger.run(options(out, train_file=str(strange)))
    (tmp_path / "blank.txt").write_text("\n\n")
    with pytest.raises(UserError, match="blank.txt: only blank lines in it; expected texts"):
        distill_tagger.run(
            options(out, train_file=None, unlabeled_file=str(tmp_path / "blank.txt"))
        )
    trained(tmp_path / "crf", bert_dir="golden", crf=True, num_train_epochs=0.2)
    with pytest.raises(UserError, match="crf: a tagger with a CRF, whose answers are of whole"):
        distill_tagger.run(options(out, teacher_dir=str(tmp_path / "crf")))
    assert not (out / "checkpoint").exists()
