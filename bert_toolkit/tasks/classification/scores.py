"""What predictions are judged by, from scikit-learn and scipy."""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats
from sklearn import metrics

from bert_toolkit.problems import MULTI, REGRESSION, SINGLE, Problem
from bert_toolkit.tasks.classification.calibration import Calibration

CALIBRATION_BINS = 15
# Labels beyond which a confusion matrix is no picture any more.
LARGEST_MATRIX = 30


def score(problem: Problem, logits: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Returns metrics by name, "eval_..." each.

    Args:
      problem: what was predicted.
      logits: [N, outputs].
      targets: [N] ids or numbers, or [N, labels] zeros and ones.
    """
    probabilities = problem.probabilities(logits)
    found = {"loss": float(problem.losses(logits, targets).mean())}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of labels that none has, or that are never predicted
        found.update(
            {SINGLE: _single, MULTI: _multi, REGRESSION: _numbers}[problem.kind](
                problem, probabilities, targets
            )
        )
    return {f"eval_{name}": float(value) for name, value in found.items() if np.isfinite(value)}


def _single(problem: Problem, probabilities: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
    predicted = probabilities.argmax(-1)
    ids = range(len(problem.labels))
    found = {
        "accuracy": metrics.accuracy_score(targets, predicted),
        "matthews": metrics.matthews_corrcoef(targets, predicted),
        "calibration_error": calibration_error(probabilities, targets),
        **_averages(targets, predicted, ids, ["macro", "weighted"]),
    }
    if len(problem.labels) == 2:
        # As for GLUE: the second label is the positive one.
        found.update(
            f1=metrics.f1_score(targets, predicted),
            precision=metrics.precision_score(targets, predicted),
            recall=metrics.recall_score(targets, predicted),
        )
        if len(set(targets)) == 2:
            found["roc_auc"] = metrics.roc_auc_score(targets, probabilities[:, 1])
            found["average_precision"] = metrics.average_precision_score(
                targets, probabilities[:, 1]
            )
    elif len(set(targets)) == len(problem.labels):
        found["roc_auc_macro"] = metrics.roc_auc_score(
            targets, probabilities, multi_class="ovr", labels=list(ids)
        )
    return found


def _multi(problem: Problem, probabilities: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
    predicted = (probabilities >= 0.5).astype(int)
    found = {
        "accuracy": metrics.accuracy_score(targets, predicted),  # of all labels of a text at once
        "label_accuracy": float((targets == predicted).mean()),
        **_averages(targets, predicted, range(len(problem.labels)), ["micro", "macro", "weighted"]),
    }
    both = [label for label in range(targets.shape[1]) if len(set(targets[:, label])) == 2]
    if both:
        found["roc_auc_macro"] = metrics.roc_auc_score(targets[:, both], probabilities[:, both])
        found["average_precision_macro"] = metrics.average_precision_score(
            targets[:, both], probabilities[:, both]
        )
    return found


def _averages(targets, predicted, ids, averages: Sequence[str]) -> dict[str, Any]:
    found = {}
    for average in averages:
        values = metrics.precision_recall_fscore_support(
            targets, predicted, labels=list(ids), average=average, zero_division=0
        )
        found.update(
            {
                f"{name}_{average}": value
                for name, value in zip(("precision", "recall", "f1"), values)
            }
        )
    return found


def _numbers(problem: Problem, predicted: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
    predicted = predicted[:, 0]
    return {
        "pearson": stats.pearsonr(targets, predicted)[0] if len(targets) > 1 else np.nan,
        "spearman": stats.spearmanr(targets, predicted)[0] if len(targets) > 1 else np.nan,
        "mean_squared_error": metrics.mean_squared_error(targets, predicted),
        "mean_absolute_error": metrics.mean_absolute_error(targets, predicted),
    }


def calibration_error(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """The expected calibration error (Guo et al., 2017, https://arxiv.org/abs/1706.04599).

    Equation 3 there: the mean distance between how sure predictions are and how often they are
    right, over bins of equal width.
    """
    bins = reliability(probabilities.max(-1), probabilities.argmax(-1) == targets)
    return sum(one.rows * abs(one.sure - one.right) for one in bins) / len(targets)


class Bin(NamedTuple):
    """Predictions that are alike sure.

    Attributes:
      rows: how many they are.
      sure: the mean of their probabilities.
      right: the share that is right.
    """

    rows: int
    sure: float
    right: float


def reliability(sure: np.ndarray, right: np.ndarray) -> list[Bin]:
    """Returns the bins of equal width that have predictions, the least sure first.

    Args:
      sure: [N] probabilities of what is predicted.
      right: [N] whether it is so.
    """
    bins = np.minimum((sure * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    inside = (bins == number for number in range(CALIBRATION_BINS))
    return [
        Bin(int(rows.sum()), float(sure[rows].mean()), float(right[rows].mean()))
        for rows in inside
        if rows.any()
    ]


def of_part(problem: Problem, logits: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
    """Returns the metrics that a part of the data is judged by, the number of its rows first.

    F1 is the mean over the labels that occur in the part, as true ones or as answers. Args as of
    `score`.
    """
    probabilities = problem.probabilities(logits)
    found: dict[str, Any] = {"rows": len(targets)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a part may have one value only
        if problem.kind == REGRESSION:
            numbers = _numbers(problem, probabilities, targets)
            found.update({name: numbers[name] for name in ("mean_absolute_error", "spearman")})
        elif problem.kind == MULTI:
            predicted = (probabilities >= 0.5).astype(int)
            found["accuracy"] = metrics.accuracy_score(targets, predicted)
            found["f1_micro"] = metrics.f1_score(
                targets, predicted, average="micro", zero_division=0
            )
        else:
            found.update(_right(targets, probabilities.argmax(-1)))
    return {name: float(value) if name != "rows" else value for name, value in found.items()}


def _right(targets: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    return {
        "accuracy": metrics.accuracy_score(targets, predicted),
        "f1_macro": metrics.f1_score(targets, predicted, average="macro", zero_division=0),
    }


def calibrated(
    problem: Problem, found: Calibration, logits: np.ndarray, targets: np.ndarray
) -> dict[str, Any]:
    """Returns the metrics of the answers that a calibration makes, as predictions have them.

    Those that are rejected count for nothing: "answered" is the share of the others. Args as of
    `score`.
    """
    probabilities = found.probabilities(problem, logits)
    scaled = logits / found.temperature
    result: dict[str, Any] = {
        "temperature": found.temperature,
        "loss": float(problem.losses(scaled, targets).mean()),
    }
    if problem.kind == MULTI:
        thresholds = [0.5] * len(problem.labels) if found.thresholds is None else found.thresholds
        predicted = (probabilities >= np.array(thresholds)).astype(int)
        ids = range(len(problem.labels))
        result.update(accuracy=float(metrics.accuracy_score(targets, predicted)))
        averages = _averages(targets, predicted, ids, ["micro", "macro", "weighted"])
        result.update({name: float(value) for name, value in averages.items()})
        of_labels = by_label(problem, predicted, targets)
        result["labels"] = {
            label: {"threshold": float(threshold), **found}
            for (label, found), threshold in zip(of_labels.items(), thresholds)
        }
        return result
    result["calibration_error"] = calibration_error(probabilities, targets)
    if found.reject_below:
        answered = probabilities.max(-1) >= found.reject_below
        result.update(reject_below=found.reject_below, answered=float(answered.mean()))
        if answered.any():
            result.update(_right(targets[answered], probabilities[answered].argmax(-1)))
    return result


def by_label(
    problem: Problem, predicted: np.ndarray, targets: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Returns precision, recall, F1 and rows of each label.

    Args:
      problem: what was predicted, labels.
      predicted: [N] ids, or [N, labels] zeros and ones.
      targets: the same.
    """
    columns = metrics.precision_recall_fscore_support(
        targets, predicted, labels=list(range(len(problem.labels))), average=None, zero_division=0
    )
    return {
        label: {
            "precision": float(precision),
            "recall": float(recall),
            "f1": float(f1),
            "rows": int(rows),
        }
        for label, precision, recall, f1, rows in zip(problem.labels, *columns)
    }


# --- Reports for people ---


def report(problem: Problem, logits: np.ndarray, targets: np.ndarray) -> str:
    """Returns precision, recall and F1 of each label, and the confusion matrix, as text."""
    if problem.kind == REGRESSION:
        return ""
    probabilities = problem.probabilities(logits)
    single = problem.kind == SINGLE
    predicted = probabilities.argmax(-1) if single else (probabilities >= 0.5).astype(int)
    text = metrics.classification_report(
        targets,
        predicted,
        labels=list(range(len(problem.labels))),
        target_names=problem.labels,
        digits=4,
        zero_division=0,
    )
    if not single or len(problem.labels) > LARGEST_MATRIX:
        return text
    matrix = confusion(problem, probabilities, targets)
    width = max(6, *(len(label) + 2 for label in problem.labels))
    rows = [["", *problem.labels], *([name, *row] for name, row in zip(problem.labels, matrix))]
    lines = ["".join(f"{value!s:>{width}}" for value in row) for row in rows]
    return "\n".join([text, "rows: true label, columns: predicted", *lines]) + "\n"


def confusion(problem: Problem, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns the confusion matrix, [labels, labels]: true label, predicted label."""
    ids = list(range(len(problem.labels)))
    return metrics.confusion_matrix(targets, probabilities.argmax(-1), labels=ids)


def draw_confusion(path: str, problem: Problem, probabilities: np.ndarray, targets: np.ndarray):
    """Writes the confusion matrix as a picture, if matplotlib is there; returns whether it is."""
    try:
        import matplotlib

        matplotlib.use("agg")
        from matplotlib import pyplot
    except ImportError:
        return False
    size = 3 + 0.5 * len(problem.labels)
    figure, axes = pyplot.subplots(figsize=(size, size))
    metrics.ConfusionMatrixDisplay(
        confusion(problem, probabilities, targets), display_labels=problem.labels
    ).plot(ax=axes, xticks_rotation="vertical", colorbar=False)
    figure.savefig(path, bbox_inches="tight", dpi=150)
    pyplot.close(figure)
    return True
