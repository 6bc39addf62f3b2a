"""Kinds of problems: labels or a number of a text; tags of its words; answers in it."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

SINGLE, MULTI, REGRESSION = "single_label", "multi_label", "regression"
KINDS = (SINGLE, MULTI, REGRESSION)  # of classification
TAGGING, ANSWERING = "token_classification", "question_answering"
# Kind -> the command for its models.
COMMANDS = {**dict.fromkeys(KINDS, "bert classify"), TAGGING: "bert tag", ANSWERING: "bert answer"}


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is to be predicted of a text.

    Attributes:
      kind: one of KINDS, TAGGING or ANSWERING.
      labels: in the order of their ids; none for a number, or for answers.
    """

    kind: str
    labels: tuple[str, ...] = ()

    @property
    def outputs(self) -> int:
        """The number of the model's outputs."""
        return 2 if self.kind == ANSWERING else len(self.labels) or 1

    def spelled(self, name: str) -> str:
        """Returns a label as the problem spells it, if that differs by .0 only: 1.0 for 1."""
        if name in self.labels:
            return name
        return next((label for label in self.labels if whole(label) == whole(name)), name)

    def values(self, label: Any) -> list:
        """Returns what a record has of a label; None, where it is to be predicted, is zeros."""
        if self.kind == SINGLE:
            return [self.labels.index(label) if label is not None else 0]
        if self.kind == MULTI:
            return [int(name in (label or ())) for name in self.labels]
        return [label or 0.0]

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """[N, outputs] -> [N, labels]: probabilities of labels; [N, 1]: the number itself."""
        if self.kind == SINGLE:
            shifted = np.exp(logits - logits.max(-1, keepdims=True))
            return shifted / shifted.sum(-1, keepdims=True)
        if self.kind == MULTI:
            return 1.0 / (1.0 + np.exp(-logits))
        return logits

    def losses(self, logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Returns the loss of each example, [N].

        Args:
          logits: [N, outputs].
          targets: what records have: [N] ids, [N, labels] zeros and ones, or [N] numbers.
        """
        if self.kind == SINGLE:
            shifted = logits - logits.max(-1, keepdims=True)
            normal = np.log(np.exp(shifted).sum(-1))
            return normal - shifted[np.arange(len(logits)), targets]
        if self.kind == MULTI:
            # log(1 + exp(x)) - x * t, without overflow
            entropy = np.maximum(logits, 0) - logits * targets + np.log1p(np.exp(-np.abs(logits)))
            return entropy.mean(-1)
        return (logits[:, 0] - targets) ** 2


def infer(labels: Sequence[Any]) -> Problem:
    """Returns the problem that the labels of training data speak of.

    Tuples of labels are several; numbers of which one is a fraction are numbers to predict; all
    else is one label each, whole numbers written 0.0 and 1.0 too.
    """
    if any(isinstance(label, tuple) for label in labels):
        return Problem(MULTI, distinct(labels))
    if any(_is_fraction(label) for label in labels) and all(is_number(label) for label in labels):
        return Problem(REGRESSION)
    return Problem(SINGLE, distinct(labels))


def distinct(labels: Sequence[Any]) -> tuple[str, ...]:
    """Returns the different labels of rows, in order.

    The order is by size for whole numbers, else by the alphabet. Of 1 and 1.0 only 1 is kept.
    """
    names = {name for label in labels for name in (label if isinstance(label, tuple) else (label,))}
    names = {name for name in names if whole(name) == name or whole(name) not in names}
    if all(re.fullmatch(r"[+-]?[0-9]+", whole(name)) for name in names):
        return tuple(sorted(names, key=lambda name: (int(whole(name)), name)))
    return tuple(sorted(names))


def is_one_line(label: str) -> bool:
    """Whether a label can be a column of a line of a file, as labels are written."""
    return "\t" not in label and len(label.splitlines()) < 2


def whole(label: str) -> str:
    """Returns a label without the .0 that programs write behind whole numbers: 1 for 1.0."""
    return re.sub(r"^([+-]?[0-9]+)\.0*$", r"\1", label)


def is_number(label: str) -> bool:
    """Whether a label is a number, neither infinite nor NaN."""
    try:
        return bool(np.isfinite(float(label)))
    except ValueError:
        return False


def _is_fraction(label: str) -> bool:
    return is_number(label) and not float(label).is_integer()
