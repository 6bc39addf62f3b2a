"""Files of answers: to texts that were predicted, and to those that were evaluated on."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Optional

import numpy as np
from absl import logging

from bert_toolkit.errors import UserError
from bert_toolkit.io import files
from bert_toolkit.problems import MULTI, REGRESSION, SINGLE, Problem

EVALUATED = "eval_predictions{}.jsonl"


def one_line(text: str) -> str:
    """Returns a text as a column of a line can have it."""
    return " ".join(text.split()) if any(c in text for c in "\t\n\r") else text


# --- What was predicted ---


def rows(
    problem: Problem,
    examples: Sequence[Any],
    answers: Sequence[str],
    probabilities: np.ndarray,
    empty_if_blank: bool,
) -> list[list[str]]:
    """Returns for each example: its name, the answer, probabilities, and the margin of a label.

    Args:
      problem: what was predicted.
      examples: the rows of the file.
      answers: to each.
      probabilities: [N, labels], or the numbers, [N, 1].
      empty_if_blank: whether a blank line has an empty answer.
    """
    found = []
    for example, answer, numbers in zip(examples, answers, probabilities):
        cells = [answer, *map(str, numbers), *_margin(problem, numbers)]
        if empty_if_blank and example.is_blank:
            cells = [""] * len(cells)
        found.append([one_line(example.name), *cells])
    return found


def _margin(problem: Problem, probabilities: np.ndarray) -> list[str]:
    """Returns how far the first label is before the second."""
    if problem.kind != SINGLE:
        return []
    second, first = np.sort(probabilities)[-2:]
    return [str(first - second)]


def show(rows: Sequence[Sequence[str]]) -> None:
    """Prints rows, as a pipeline takes them."""
    sys.stdout.writelines("\t".join(row) + "\n" for row in rows)


def write(
    directory: str,
    suffix: str,
    problem: Problem,
    rows: Sequence[list[str]],
    submission: Optional[str] = None,
) -> None:
    """Writes rows to test_results.tsv (probabilities only, as published) and test_predictions.tsv.

    Args:
      directory: to write to.
      suffix: of the files' names.
      problem: what was predicted.
      rows: as the function of that name returns them.
      submission: the file's name that a task has for what is handed in.
    """
    header = ["index", "prediction"]
    if problem.kind != REGRESSION:
        header += [f"probability_{label}" for label in problem.labels]
    header += ["margin"] if problem.kind == SINGLE else []
    texts = {
        f"test_results{suffix}.tsv": [row[2 : 2 + problem.outputs] for row in rows],
        f"test_predictions{suffix}.tsv": [header, *(row[: len(header)] for row in rows)],
    }
    if submission:
        texts[submission] = [["index", "prediction"], *(row[:2] for row in rows)]
    for name, lines in texts.items():
        text = "".join("\t".join(line) + "\n" for line in lines)
        files.write_text(os.path.join(directory, name), text)
    paths = " and ".join(os.path.join(directory, name) for name in texts)
    logging.info("%s rows predicted: %s", f"{len(rows):,}", paths)


# --- What was evaluated ---


class Evaluated(NamedTuple):
    """Answers to examples whose labels are known, before any calibration.

    Attributes:
      probabilities: [N, labels], or the numbers predicted, [N, 1].
      targets: [N] ids or numbers, or [N, labels] zeros and ones.
    """

    probabilities: np.ndarray
    targets: np.ndarray

    def logits(self, problem: Problem) -> np.ndarray:
        """Returns outputs that have these probabilities, [N, outputs]."""
        if problem.kind == REGRESSION:
            return self.probabilities
        sure = np.clip(self.probabilities, 1e-12, 1.0)
        if problem.kind == SINGLE:
            return np.log(sure)
        return np.log(sure) - np.log(np.clip(1.0 - self.probabilities, 1e-12, 1.0))


def write_evaluated(
    path: str, problem: Problem, examples: Sequence[Any], logits: np.ndarray
) -> None:
    """Writes an object a line for each example: id, line, label, and what was predicted."""
    lines = []
    for example, numbers in zip(examples, problem.probabilities(logits).astype(float)):
        line = {"id": example.name, "line": example.line, "label": example.label}
        if problem.kind == REGRESSION:
            line["prediction"] = numbers[0]
        else:
            line["probabilities"] = dict(zip(problem.labels, numbers))
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    files.write_text(path, "".join(lines))


def read_evaluated(path: str, problem: Problem) -> Evaluated:
    """Returns what `write_evaluated` wrote.

    Raises:
      UserError: the file is damaged, or of another problem.
    """
    text = files.read_text(path)
    try:
        # Texts and labels may have other ends of lines in them, U+2028 for one.
        lines = [json.loads(line) for line in text.split("\n") if line]
        values = [problem.values(_label(problem, line["label"])) for line in lines]
        targets = np.array(values) if problem.kind == MULTI else np.array(values)[:, 0]
        return Evaluated(np.array([_numbers(problem, line) for line in lines]), targets)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(
            f"{path}: {type(error).__name__}: {error}; expected a line for each row, as bert"
            " classify --do_eval writes it for the labels of task.json; evaluate again"
        ) from None


def _label(problem: Problem, label: Any) -> Any:
    return tuple(label) if problem.kind == MULTI else label


def _numbers(problem: Problem, line: Mapping[str, Any]) -> list[float]:
    if problem.kind == REGRESSION:
        return [float(line["prediction"])]
    return [float(line["probabilities"][label]) for label in problem.labels]
