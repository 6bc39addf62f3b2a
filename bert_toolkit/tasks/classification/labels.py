"""Labels of a data set: which there are, how files spell them, and rare ones joined."""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any, Optional

from absl import logging

from bert_toolkit import problems
from bert_toolkit.checkpoints import hugging_face, task_file
from bert_toolkit.errors import UserError
from bert_toolkit.io import tables
from bert_toolkit.io.tables import BadRow
from bert_toolkit.problems import MULTI, REGRESSION, SINGLE, Problem
from bert_toolkit.tasks.bad_rows import BadRows
from bert_toolkit.tasks.classification.data_options import DataOptions
from bert_toolkit.tasks.classification.glue import Task

# The setting in the task's file beside a model: the label that rare ones were joined into.
OTHER_LABEL = "other_label"


def known_to_a_model(directories: Sequence[str]) -> bool:
    """Returns whether a trained model knows its labels by name: better than a file does."""
    known = task_file.read(directories, problems.KINDS)
    return known is not None and not all(map(hugging_face.UNNAMED.fullmatch, known.labels or ["-"]))


def problem_of(
    task: Task, train: Any, directories: Sequence[str], options: DataOptions
) -> tuple[Problem, Optional[str]]:
    """Returns what is to be predicted, and the label that stands for all that are not known.

    Args:
      task: may declare the labels.
      train: the name of the training file and its examples, if it was read.
      directories: where a model may lie that knows the labels.
      options: with --min_label_count and --other_label.

    Raises:
      UserError: the labels are not known, or cannot be learned.
    """
    problem = _problem(task, train, directories, options)
    if options.min_label_count > 1 and problem.kind == REGRESSION:
        raise UserError("--min_label_count: numbers are to be predicted, not labels; leave it out")
    if train is None:
        other = task_file.settings(directories).get(OTHER_LABEL)
    else:
        other = options.other_label if options.min_label_count > 1 else None
    return problem, other if other in problem.labels else None


def _problem(task: Task, train: Any, directories: Sequence[str], options: DataOptions) -> Problem:
    """Returns what is to be predicted: declared, or known to a model, or seen in the data."""
    known = task_file.read(directories, problems.KINDS) if train is None else None
    if task.kind is not None and (task.labels is not None or task.kind == REGRESSION):
        return in_order_of(known, Problem(task.kind, task.labels or ()))
    if train is None:
        if task.labels is not None:
            return in_order_of(known, Problem(known.kind if known else SINGLE, task.labels))
        if known is None:
            raise UserError(
                "the labels are not known: --output_dir holds no model trained by this program, and"
                " --bert_dir no classifier; pass --labels, or --train_file to train one"
            )
        if task.kind not in (None, known.kind):
            raise UserError(
                f"--problem_type={task.kind}, but the model was trained for {known.kind}; leave the"
                " flag out"
            )
        return known
    kind = task.kind
    if kind is None and any(isinstance(example.label, list) for example in train[1]):
        kind = MULTI
    labels = [as_stored(example.label, kind, task.separator) for example in train[1]]
    usable = [label for label in labels if label not in (None, ())]
    if not usable:
        raise UserError(f"{train[0]}: no row has a label")
    if kind is None:
        kind = problems.infer(usable).kind
        kind = SINGLE if task.labels and kind == REGRESSION else kind
    names = task.labels or problems.distinct(usable)
    if options.min_label_count > 1 and kind != REGRESSION:
        names = _join_rare(train[0], Problem(kind, names), usable, options)
    problem = Problem(kind, () if kind == REGRESSION else names)
    _check_number(train[0], problem, len(usable))
    if task.kind is None:
        others = " or ".join(other for other in problems.KINDS if other != kind)
        logging.info(
            "%s: taken for %s%s; if it is not, pass --problem_type=%s",
            train[0],
            kind,
            f" with {len(names)} labels ({tables.listing(names)})" if kind != REGRESSION else "",
            others,
        )
    return problem


def _join_rare(
    path: str, problem: Problem, found: Sequence[Any], options: DataOptions
) -> tuple[str, ...]:
    """Returns the labels that enough rows have, and the one that stands for all others.

    Args:
      path: of the training data, for messages.
      problem: with all labels.
      found: the labels of rows, as stored.
      options: with --min_label_count and --other_label.
    """
    least, other = options.min_label_count, options.other_label
    counts = collections.Counter(
        problem.spelled(name)
        for label in found
        for name in (label if isinstance(label, tuple) else (label,))
    )
    kept = [name for name in problem.labels if counts[name] >= least]
    if len(kept) == len(problem.labels):
        logging.info("%s: no label has fewer than %d rows", path, least)
        return problem.labels
    if set(kept) <= {other}:
        raise UserError(
            f"{path}: no label has the {least} rows that --min_label_count={least} asks for (the"
            f" most frequent has {max(counts.values())}); pass a smaller number"
        )
    return (*kept, *([] if other in kept else [other]))


def in_order_of(known: Optional[Problem], wanted: Problem) -> Problem:
    """Returns a problem with its labels in the order of a trained model's outputs.

    Raises:
      UserError: the model was trained for others.
    """
    if known is None or not known.labels or not wanted.labels:
        return wanted
    numbers = tuple(map(str, range(len(known.labels))))
    nameless = all(map(hugging_face.UNNAMED.fullmatch, known.labels))
    if wanted.labels == numbers or (nameless and len(wanted.labels) == len(known.labels)):
        return wanted
    names = {label.lower(): label for label in wanted.labels}
    there = [label.lower() for label in known.labels]
    if sorted(names) != sorted(there):
        raise UserError(
            f"the labels asked for are {', '.join(wanted.labels)}, but the model was trained for"
            f" {', '.join(known.labels)}; expected those, in any order, or a number for each from"
            " 0; or use another model"
        )
    return dataclasses.replace(wanted, labels=tuple(names[label] for label in there))


def _check_number(path: str, problem: Problem, rows: int) -> None:
    if problem.kind == REGRESSION:
        return
    count = len(problem.labels)
    if count < 2 and problem.kind == SINGLE:
        raise UserError(
            f"{path}: all rows have the label {problem.labels[0]!r}; expected two labels or more"
        )
    if count > 20 and count > rows / 2:
        raise UserError(
            f"{path}: {count:,} different labels in {rows:,} rows, such as {problem.labels[0]!r};"
            " is --label_column right? For numbers, pass --problem_type=regression"
        )


def as_stored(label: Any, kind: Optional[str], separator: Optional[str]) -> Any:
    """Returns a label as a string, or strings where there may be several; None for no label."""
    if label is None or label != label:  # NaN, which some programs write
        return None
    if isinstance(label, list):
        return tuple(str(part).strip() for part in label)
    text = str(label).strip()
    if kind == MULTI:
        return tuple(part.strip() for part in text.split(separator) if part.strip())
    return text or None


def labelled(
    path: str,
    examples: list[Any],
    problem: Problem,
    task: Task,
    other: Optional[str],
    bad: BadRows,
) -> list[Any]:
    """Returns the examples with the labels of the problem; those without are bad rows."""
    found = []
    joined: collections.Counter = collections.Counter()
    for example in examples:
        try:
            names = _names(example.label, problem, task)
            if other is not None:
                joined.update(name for name in names if name not in problem.labels)
                names = tuple(
                    dict.fromkeys(name if name in problem.labels else other for name in names)
                )
            found.append(example._replace(label=_label(names, problem)))
        except BadRow as why:
            bad.add(path, f"line {example.line}", str(why))
    if joined:
        logging.info(
            "%s: %s rare labels of %s rows are %r: %s",
            path,
            f"{len(joined):,}",
            f"{sum(joined.values()):,}",
            other,
            tables.listing(name for name, _ in joined.most_common()),
        )
    return found


def _names(raw: Any, problem: Problem, task: Task) -> tuple[str, ...]:
    """Returns the labels of a row as the problem spells them; a number is one too."""
    value = as_stored(raw, problem.kind, task.separator)
    if value is None:
        raise BadRow(f"no label, expected {_expected(problem)}")
    if problem.kind == REGRESSION and isinstance(value, tuple):
        raise BadRow(f"label {tables.shorten(raw)}, expected a number")
    names = value if isinstance(value, tuple) else (value,)
    return tuple(problem.spelled(task.synonyms.get(name, name)) for name in names)


def _label(names: tuple[str, ...], problem: Problem) -> Any:
    """Returns the label of an example: a string, several, or a number."""
    if problem.kind == REGRESSION:
        if not problems.is_number(names[0]):
            raise BadRow(f"label {tables.shorten(names[0])}, expected a number")
        return float(names[0])
    unknown = next((name for name in names if name not in problem.labels), None)
    if unknown is not None:
        raise BadRow(f"label {tables.shorten(unknown)}, expected {_expected(problem)}")
    if problem.kind == SINGLE and len(names) != 1:
        raise BadRow(f"{len(names)} labels, expected one")
    return names if problem.kind == MULTI else names[0]


def _expected(problem: Problem) -> str:
    if problem.kind == REGRESSION:
        return "a number"
    more = ", ..." if len(problem.labels) > 20 else ""
    return "one of " + ", ".join(problem.labels[:20]) + more
