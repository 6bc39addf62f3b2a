"""Training data divided: into parts to train on, to evaluate on and to test; and fewer of it."""

import collections
import datetime
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from bert_toolkit import problems
from bert_toolkit.errors import UserError
from bert_toolkit.problems import SINGLE, Problem
from bert_toolkit.tasks.classification.data_options import TIME, DataOptions


class Shares(NamedTuple):
    """The shares of the training data that are held out; 0 for none."""

    dev: float
    test: float


class Parts(NamedTuple):
    """The examples of each part, in the order of their file; those by time, in that order."""

    train: list[Any]
    dev: list[Any]
    test: list[Any]


def divide(
    path: str,
    examples: Sequence[Any],
    shares: Shares,
    problem: Problem,
    options: DataOptions,
    seed: int,
) -> Parts:
    """Returns the examples to train on, to evaluate on and to test.

    Rows are drawn with the labels in the same proportions, where there is one label a text; with
    --split_column, its values are drawn, with all their rows; with --split_by=time the last rows
    are held out.

    Raises:
      UserError: nothing would be left of a part, or a label cannot be divided.
    """
    if options.split_by == TIME:
        numbers = _by_time(path, examples, shares)
    else:
        divider = _Divider(examples, problem, bool(options.split_column), seed)
        rest, test = divider.hold_out(np.arange(len(examples)), "test_split", shares.test)
        left = shares.dev / (1 - shares.test)
        train, dev = divider.hold_out(rest, "eval_split", left)
        numbers = [train, dev, test]
    parts = Parts(*([examples[number] for number in part] for part in numbers))
    logging.info(
        "%s rows to train on%s%s%s",
        f"{len(parts.train):,}",
        f", {len(parts.dev):,} to evaluate on" if shares.dev else "",
        f", {len(parts.test):,} to test" if shares.test else "",
        _told(parts, options),
    )
    return parts


def _told(parts: Parts, options: DataOptions) -> str:
    """Returns which values of --split_column are in which part, for the log."""
    column = options.split_column
    if not column:
        return ""
    if options.split_by == TIME:
        until = [f"{name} until {part[-1].part_by}" for name, part in _named(parts)]
        return f", by {column}: {', '.join(until)}"
    counts = [f"{len({one.part_by for one in part}):,} {name}" for name, part in _named(parts)]
    return f"; values of {column}: {', '.join(counts)}"


def _named(parts: Parts) -> list[tuple[str, list[Any]]]:
    return [(name, part) for name, part in zip(parts._fields, parts) if part]


class _Divider:
    """Draws rows, or groups of rows."""

    def __init__(self, examples: Sequence[Any], problem: Problem, by_group: bool, seed: int):
        single = problem.kind == SINGLE
        self._labels = np.array([one.label for one in examples]) if single else None
        self._groups = np.array([one.part_by for one in examples]) if by_group else None
        self._seed = seed

    def hold_out(self, rows: np.ndarray, flag: str, share: float) -> tuple[np.ndarray, np.ndarray]:
        """Divides row numbers into those that stay and those that are held out, both in order."""
        from sklearn.model_selection import GroupShuffleSplit, train_test_split

        if not share:
            return rows, rows[:0]
        try:
            if self._groups is not None:
                splitter = GroupShuffleSplit(1, test_size=share, random_state=self._seed)
                [(stay, held)] = splitter.split(rows, groups=self._groups[rows])
                return rows[stay], rows[held]
            labels = None if self._labels is None else self._labels[rows]
            if labels is not None:
                _check_frequencies(flag, labels)
            parts = train_test_split(
                rows, test_size=share, random_state=self._seed, stratify=labels
            )
        except ValueError as error:
            raise UserError(f"--{flag}={share:g}: {error}") from None
        stay, held = map(np.sort, parts)
        return stay, held


def _check_frequencies(flag: str, labels: np.ndarray) -> None:
    label, rows = min(collections.Counter(labels.tolist()).items(), key=lambda item: item[1])
    if rows < 2:
        raise UserError(
            f"--{flag}: the label {label!r} has one row, which cannot be divided; leave it out, or"
            " let --min_label_count=3 join rare labels"
        )


def _by_time(path: str, examples: Sequence[Any], shares: Shares) -> list[np.ndarray]:
    """Returns the rows before, then those to evaluate on, then the last, to test.

    Rows of the same time are in one part, the later one where they are many.
    """
    times = _times(path, examples)
    order = np.argsort(times, kind="stable")
    ends = [round(len(order) * (1 - share)) for share in (shares.dev + shares.test, shares.test)]
    ends = [end if end == len(order) else _first_of_its_time(times[order], end) for end in ends]
    parts = np.split(order, ends)
    for name, part, share in zip(Parts._fields, parts, (1.0, *shares)):
        if share and not len(part):
            raise UserError(
                f"{path}: --split_by=time leaves no row to {name}, as rows of the same time stay"
                " together; expected more different times; pass another --split_column or share"
            )
    return parts


def _first_of_its_time(times: np.ndarray, position: int) -> int:
    return int(np.searchsorted(times, times[position], side="left"))


def _times(path: str, examples: Sequence[Any]) -> np.ndarray:
    """Returns a number for the time of each row: seconds of dates, numbers as they are."""
    values = [example.part_by for example in examples]
    numeric = problems.is_number(values[0])
    found = []
    for example, value in zip(examples, values):
        try:
            found.append(_number(value) if numeric else _seconds(value))
        except ValueError:
            kind = "a number" if numeric else "a date such as 2026-01-31 or 2026-01-31 12:00"
            raise UserError(
                f"{path} line {example.line}: {value!r} in the column of --split_column; expected"
                f" {kind} for --split_by=time"
            ) from None
    return np.array(found)


def _number(value: str) -> float:
    if not problems.is_number(value):
        raise ValueError
    return float(value)


def _seconds(value: str) -> float:
    """Returns the seconds since 1970 of an ISO 8601 date or time; without a zone it is UTC."""
    # Until Python 3.11, fromisoformat does not know Z.
    text = f"{value[:-1]}+00:00" if value.endswith("Z") else value
    time = datetime.datetime.fromisoformat(text)
    return (time if time.tzinfo else time.replace(tzinfo=datetime.timezone.utc)).timestamp()


def sample(examples: list[Any], number: int, problem: Problem, seed: int) -> list[Any]:
    """Returns so many of the examples, in their order, with labels in the same proportions.

    Labels are kept in proportion where there is one label a text.
    """
    from sklearn.utils import resample

    if number >= len(examples):
        return examples
    labels = [one.label for one in examples] if problem.kind == SINGLE else None
    rows = resample(
        np.arange(len(examples)),
        replace=False,
        n_samples=number,
        random_state=seed,
        stratify=labels,
    )
    logging.info("%s of %s rows to train on are taken", f"{number:,}", f"{len(examples):,}")
    return [examples[row] for row in np.sort(rows)]
