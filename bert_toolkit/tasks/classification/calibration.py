"""Probabilities one can rely on: a temperature, thresholds of labels, and when not to answer.

They are chosen on the dev data, kept beside the model, and used when predicting.
"""

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import Optional

import numpy as np

from bert_toolkit.errors import UserError
from bert_toolkit.io import files
from bert_toolkit.problems import MULTI, REGRESSION, SINGLE, Problem

FILE = "calibration.json"
OTHER = "other"  # the answer where no label is sure enough


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How logits become answers.

    Attributes:
      temperature: what logits are divided by.
      thresholds: the probability from which on each label is given, where there may be several.
      reject_below: the probability below which the answer is OTHER, where there is one label.
    """

    temperature: float = 1.0
    thresholds: Optional[Sequence[float]] = None
    reject_below: float = 0.0

    def probabilities(self, problem: Problem, logits: np.ndarray) -> np.ndarray:
        """Returns calibrated probabilities, [N, labels], or the numbers predicted, [N, 1]."""
        scaled = logits if problem.kind == REGRESSION else logits / self.temperature
        return problem.probabilities(scaled)

    def answers(self, problem: Problem, probabilities: np.ndarray) -> list[str]:
        """Returns what is answered for each text: a label, labels with commas, or a number."""
        if problem.kind == REGRESSION:
            return [str(number) for number in probabilities[:, 0]]
        if problem.kind == MULTI:
            given = probabilities >= (0.5 if self.thresholds is None else np.array(self.thresholds))
            return [",".join(np.array(problem.labels)[row]) for row in given]
        best, sure = probabilities.argmax(-1), probabilities.max(-1)
        return [
            OTHER if chance < self.reject_below else problem.labels[label]
            for label, chance in zip(best, sure)
        ]


def fit(problem: Problem, logits: np.ndarray, targets: np.ndarray) -> Calibration:
    """Returns the temperature with the least loss, and the thresholds with the best F1 by label.

    Temperature scaling: Guo et al., 2017, https://arxiv.org/abs/1706.04599, section 4.2.
    """
    if problem.kind == REGRESSION:
        return Calibration()

    from scipy import optimize  # a second to import, which predictions do without

    def loss(log_temperature: float) -> float:
        return float(problem.losses(logits / np.exp(log_temperature), targets).mean())

    found = optimize.minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded")
    temperature = float(np.exp(found.x))
    thresholds = None
    if problem.kind == MULTI:
        probabilities = problem.probabilities(logits / temperature)
        thresholds = [_best_threshold(*columns) for columns in zip(probabilities.T, targets.T)]
    return Calibration(temperature, thresholds)


def _best_threshold(probabilities: np.ndarray, targets: np.ndarray) -> float:
    from sklearn import metrics

    if not targets.any():
        return 0.5
    precision, recall, thresholds = metrics.precision_recall_curve(targets, probabilities)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return float(thresholds[f1[:-1].argmax()])


def reject(
    calibration: Calibration, below: str, problem: Problem, logits: np.ndarray
) -> Calibration:
    """Returns the calibration with the bound of --reject_below: a probability, or a share of dev.

    Raises:
      UserError: the flag is neither, or the problem is not one of one label.
    """
    if problem.kind != SINGLE:
        raise UserError(
            f"--reject_below is for one label a text, this is {problem.kind}; leave it out"
        )
    share = below.endswith("%")
    try:
        number = float(below.removesuffix("%"))
    except ValueError:
        number = -1.0
    if not 0 <= number <= (100 if share else 1):
        raise UserError(
            f"--reject_below={below}: expected a probability, 0.8 say, or the share of the dev"
            " data to reject, 10% say"
        )
    if share:
        sure = calibration.probabilities(problem, logits).max(-1)
        number = float(np.quantile(sure, number / 100))
    return dataclasses.replace(calibration, reject_below=number)


def write(directory: str, calibration: Calibration) -> None:
    """Keeps a calibration beside the model."""
    text = json.dumps(dataclasses.asdict(calibration), indent=2)
    files.write_text(os.path.join(directory, FILE), text + "\n")


def read(directory: str) -> Calibration:
    """Returns the calibration that is kept beside a model, or one that changes nothing."""
    path = os.path.join(directory, FILE)
    if not files.exists(path):
        return Calibration()
    return Calibration(**json.loads(files.read_text(path)))
