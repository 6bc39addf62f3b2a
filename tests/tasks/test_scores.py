"""Metrics and calibration: against scikit-learn, scipy and the definitions."""

import json
import re

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

import run_classifier
from bert_toolkit import problems
from bert_toolkit.errors import UserError
from bert_toolkit.problems import MULTI, REGRESSION, SINGLE, Problem
from bert_toolkit.tasks import best_model
from bert_toolkit.tasks.classification import calibration, scores, slices, task_data

RANDOM = np.random.RandomState(0)
BINARY = Problem(SINGLE, ("no", "yes"))
THREE = Problem(SINGLE, ("a", "b", "c"))
TAGS = Problem(MULTI, ("x", "y", "z"))
NUMBER = Problem(REGRESSION)


def logits_of(targets, labels, strength=1.0):
    return RANDOM.normal(size=(len(targets), labels)) + strength * np.eye(labels)[targets]


def test_one_of_two_labels():
    targets = RANDOM.randint(0, 2, 200)
    logits = logits_of(targets, 2)
    found = scores.score(BINARY, logits, targets)
    chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    predicted = logits.argmax(-1)
    expected = {
        "loss": metrics.log_loss(targets, chances),
        "accuracy": metrics.accuracy_score(targets, predicted),
        "f1": metrics.f1_score(targets, predicted),
        "f1_macro": metrics.f1_score(targets, predicted, average="macro"),
        "precision": metrics.precision_score(targets, predicted),
        "recall": metrics.recall_score(targets, predicted),
        "matthews": metrics.matthews_corrcoef(targets, predicted),
        "roc_auc": metrics.roc_auc_score(targets, chances[:, 1]),
        "average_precision": metrics.average_precision_score(targets, chances[:, 1]),
    }
    for name, value in expected.items():
        assert found[f"eval_{name}"] == pytest.approx(value), name


def test_one_of_three_labels():
    targets = RANDOM.randint(0, 3, 200)
    logits = logits_of(targets, 3)
    found = scores.score(THREE, logits, targets)
    chances = THREE.probabilities(logits)
    assert found["eval_loss"] == pytest.approx(metrics.log_loss(targets, chances))
    assert found["eval_roc_auc_macro"] == pytest.approx(
        metrics.roc_auc_score(targets, chances, multi_class="ovr")
    )
    assert "eval_f1" not in found


def test_several_labels():
    targets = RANDOM.randint(0, 2, (200, 3))
    logits = RANDOM.normal(size=(200, 3)) + targets
    found = scores.score(TAGS, logits, targets)
    chances = 1 / (1 + np.exp(-logits))
    loss = np.mean([metrics.log_loss(targets[:, i], chances[:, i]) for i in range(3)])
    assert found["eval_loss"] == pytest.approx(loss)
    assert found["eval_f1_micro"] == pytest.approx(
        metrics.f1_score(targets, logits > 0, average="micro")
    )
    assert found["eval_accuracy"] == pytest.approx((targets == (logits > 0)).all(-1).mean())


def test_numbers():
    targets = RANDOM.normal(size=50)
    predicted = targets + RANDOM.normal(size=50)
    found = scores.score(NUMBER, predicted[:, None], targets)
    assert found["eval_pearson"] == pytest.approx(stats.pearsonr(targets, predicted)[0])
    assert found["eval_spearman"] == pytest.approx(stats.spearmanr(targets, predicted)[0])
    assert found["eval_loss"] == pytest.approx(((targets - predicted) ** 2).mean())


def test_labels_that_none_has_give_no_metric_that_is_no_number():
    found = scores.score(BINARY, logits_of(np.zeros(5, int), 2), np.zeros(5, int))
    assert all(np.isfinite(value) for value in found.values())
    assert "eval_roc_auc" not in found


def test_calibration_error_by_its_definition():
    sure = np.array([0.95, 0.95, 0.95, 0.95, 0.55])
    chances = np.stack([sure, 1 - sure], -1)
    targets = np.array([0, 0, 0, 1, 0])
    # Bin of 0.95: sure 0.95, right 0.75, 4 of 5; bin of 0.55: sure 0.55, right 1, 1 of 5.
    expected = 0.8 * 0.2 + 0.2 * 0.45
    assert scores.calibration_error(chances, targets) == pytest.approx(expected)


def test_a_report_has_each_label_and_the_matrix():
    targets = np.array([0, 1, 2, 2])
    report = scores.report(THREE, np.eye(3)[[0, 1, 2, 0]] * 5.0, targets)
    assert report.splitlines()[-3:] == [
        "     a     1     0     0",
        "     b     0     1     0",
        "     c     1     0     1",
    ]


@pytest.mark.parametrize("problem", [BINARY, TAGS], ids=["single", "multi"])
def test_a_temperature_is_found(problem):
    """Logits that are three times too sure."""
    true = RANDOM.normal(size=(4000, problem.outputs)) * 1.5
    chances = problem.probabilities(true)
    if problem is BINARY:
        targets = (RANDOM.uniform(size=4000) < chances[:, 1]).astype(int)
    else:
        targets = (RANDOM.uniform(size=chances.shape) < chances).astype(int)
    found = calibration.fit(problem, 3 * true, targets)
    assert found.temperature == pytest.approx(3, rel=0.1)


def test_thresholds_of_rare_labels_have_the_best_f1():
    targets = (RANDOM.uniform(size=(3000, 3)) < [0.05, 0.3, 0.6]).astype(int)
    logits = 2 * targets + RANDOM.normal(size=targets.shape) - 1.5
    found = calibration.fit(TAGS, logits, targets)
    chances = found.probabilities(TAGS, logits)
    for label, threshold in enumerate(found.thresholds):
        best = metrics.f1_score(targets[:, label], chances[:, label] >= threshold)
        for other in np.linspace(0.05, 0.95, 19):
            assert best >= metrics.f1_score(targets[:, label], chances[:, label] >= other)


@pytest.mark.parametrize(("below", "answers"), [("0.8", ["other", "yes"]), ("50%", ["other", "yes"]), ("0.5", ["yes", "yes"])])  # fmt: skip
def test_unsure_answers_are_rejected(below, answers):
    logits = np.array([[0.0, 0.5], [0.0, 3.0]])
    found = calibration.reject(calibration.Calibration(), below, BINARY, logits)
    assert found.answers(BINARY, found.probabilities(BINARY, logits)) == answers


def test_bounds_that_are_none():
    for below in ("x", "2", "101%"):
        with pytest.raises(UserError, match=f"--reject_below={below}: expected a probability"):
            calibration.reject(calibration.Calibration(), below, BINARY, np.zeros((1, 2)))
    with pytest.raises(UserError, match="this is regression"):
        calibration.reject(calibration.Calibration(), "0.5", NUMBER, np.zeros((1, 1)))


def test_answers_of_every_kind():
    plain = calibration.Calibration()
    assert plain.answers(TAGS, np.array([[0.6, 0.2, 0.9], [0.1, 0.1, 0.1]])) == ["x,z", ""]
    assert plain.answers(NUMBER, np.array([[1.5]])) == ["1.5"]
    assert plain.answers(problems.Problem(SINGLE, ("p", "q")), np.array([[0.7, 0.3]])) == ["p"]


def test_better_is_more_or_less():
    assert best_model.is_better("accuracy", 0.9, 0.8)
    assert best_model.is_better("loss", 0.8, 0.9)


def weighted(targets, predicted):
    values = metrics.precision_recall_fscore_support(
        targets, predicted, average="weighted", zero_division=0
    )
    names = ("precision_weighted", "recall_weighted", "f1_weighted")
    return {f"eval_{name}": pytest.approx(value) for name, value in zip(names, values)}


def test_averages_weighted_by_the_rows_of_labels():
    targets = RANDOM.choice(3, 200, p=[0.7, 0.2, 0.1])
    logits = logits_of(targets, 3)
    assert scores.score(THREE, logits, targets).items() >= weighted(targets, logits.argmax(-1)).items()  # fmt: skip
    several = RANDOM.randint(0, 2, (100, 3))
    logits = RANDOM.normal(size=several.shape) + several
    assert scores.score(TAGS, logits, several).items() >= weighted(several, logits > 0).items()


def test_parts_are_judged_as_scikit_learn_does():
    targets = RANDOM.randint(0, 2, 40)  # the third label does not occur, nor is it predicted
    logits = np.concatenate([logits_of(targets, 2), np.full((40, 1), -9.0)], 1)
    found = scores.of_part(THREE, logits, targets)
    assert found == {
        "rows": 40,
        "accuracy": metrics.accuracy_score(targets, logits.argmax(-1)),
        "f1_macro": metrics.f1_score(targets, logits.argmax(-1), average="macro"),
    }
    several = RANDOM.randint(0, 2, (40, 3))
    logits = RANDOM.normal(size=several.shape) + several
    found = scores.of_part(TAGS, logits, several)
    assert found["f1_micro"] == metrics.f1_score(several, logits > 0, average="micro")
    numbers = RANDOM.normal(size=40)
    found = scores.of_part(NUMBER, numbers[:, None] + 1, numbers)
    assert found == {"rows": 40, "mean_absolute_error": pytest.approx(1), "spearman": 1.0}


def test_answers_with_a_calibration_are_judged():
    targets = RANDOM.randint(0, 3, 300)
    logits = logits_of(targets, 3)
    found = calibration.Calibration(temperature=2.0, reject_below=0.5)
    result = scores.calibrated(THREE, found, logits, targets)
    chances = THREE.probabilities(logits / 2)
    sure = chances.max(-1) >= 0.5
    assert result["answered"] == sure.mean()
    right, answered = targets[sure], logits[sure].argmax(-1)
    assert result["accuracy"] == metrics.accuracy_score(right, answered)
    assert result["f1_macro"] == metrics.f1_score(right, answered, average="macro")
    assert result["loss"] == pytest.approx(metrics.log_loss(targets, chances))
    several = RANDOM.randint(0, 2, (300, 3))
    logits = RANDOM.normal(size=several.shape) + several
    found = calibration.Calibration(2.0, [0.3, 0.5, 0.7])
    result = scores.calibrated(TAGS, found, logits, several)
    predicted = 1 / (1 + np.exp(-logits / 2)) >= [0.3, 0.5, 0.7]
    assert result["f1_macro"] == pytest.approx(
        metrics.f1_score(several, predicted, average="macro")
    )
    assert list(result["labels"]) == ["x", "y", "z"]
    assert result["labels"]["z"] == {
        "threshold": 0.7,
        "precision": pytest.approx(metrics.precision_score(several[:, 2], predicted[:, 2])),
        "recall": pytest.approx(metrics.recall_score(several[:, 2], predicted[:, 2])),
        "f1": pytest.approx(metrics.f1_score(several[:, 2], predicted[:, 2])),
        "rows": several[:, 2].sum(),
    }


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        (range(1, 9), {"1 to 3": 3, "4 to 5": 2, "6 to 7": 2, "8": 1}),
        ([5] * 9 + [7], {"5": 9, "7": 1}),
        ([4], {"4": 1}),
    ],
)
def test_quarters_by_length(lengths, expected):
    lengths = np.array(lengths)
    found = slices.quarters(lengths)
    assert {name: int(inside.sum()) for name, inside in found.items()} == expected
    assert sum(inside.astype(int) for inside in found.values()).tolist() == [1] * len(lengths)


@pytest.mark.slow
def test_slices_of_a_run(tmp_path, reviews, model_dir, caplog):
    """Rows, metrics, table and JSON, through the stage; the test part is judged alike."""
    caplog.set_level("INFO")
    _, *lines = (reviews / "train.tsv").read_text().splitlines()
    rows = [f"{line}\t{'Ann Bo Cy'.split()[n % 4 % 3]}" for n, line in enumerate(lines)]
    train = tmp_path / "train.tsv"
    train.write_text("\n".join(["sentence\tlabel\tauthor", *rows]) + "\n")
    out = tmp_path / "out"
    options = run_classifier.Options(
        train_file=str(train),
        eval_split=0.25,
        test_split=0.25,
        bert_dir=str(model_dir),
        output_dir=str(out),
        max_seq_length=32,
        train_batch_size=6,
        num_train_epochs=1.0,
        slice_column=["author"],
        slice_by_length=True,
        calibrate=True,
        reject_below="20%",
    )
    run_classifier.run(options)
    for suffix in ("", "_test"):
        found = json.loads((out / f"eval_results{suffix}.json").read_text())
        assert list(found["slices"]) == ["author", "length in tokens"]
        for parts in found["slices"].values():
            assert sum(part["rows"] for part in parts.values()) == 9
            right = sum(part["rows"] * part["accuracy"] for part in parts.values())
            assert right / 9 == pytest.approx(found["eval_accuracy"])
        header, first, *_ = (out / f"eval_slices{suffix}.tsv").read_text().splitlines()
        assert header == "slice\tvalue\trows\taccuracy\tf1_macro"
        value, part = next(iter(found["slices"]["author"].items()))  # the largest
        numbers = f"{part['rows']}\t{part['accuracy']:.4f}\t{part['f1_macro']:.4f}"
        assert first == f"author\t{value}\t{numbers}"
        assert found["calibration"]["reject_below"] > 0
    text = (out / "eval_results.txt").read_text()
    assert "slices" not in text
    assert "calibration =" not in text
    assert any(re.match(r"author +Ann +\d", line) for line in caplog.messages)
    assert "calibrated: temperature" in caplog.text


def test_a_slice_column_that_is_not_there(tmp_path):
    (tmp_path / "a.tsv").write_text("text\tlabel\nx\ta\ny\tb\n")
    options = run_classifier.Options(
        train_file=str(tmp_path / "a.tsv"), eval_split=0.5, slice_column=["by"], output_dir="x"
    )
    with pytest.raises(UserError, match="no column 'by'; its columns: 'text', 'label'"):
        task_data.load(options.task(), options, task_data.Wanted(True, True, False), 0, [])
    with pytest.raises(UserError, match="--slice_column=0: columns count from 1"):
        run_classifier.Options(train_file="a.tsv", slice_column=["0"], output_dir="x")
