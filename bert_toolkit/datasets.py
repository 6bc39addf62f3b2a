"""The examples of a task: read, checked, labelled, split, and described before training."""

import collections
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Optional

import numpy as np
from absl import logging

from bert_toolkit import files, hugging_face, problems, tables
from bert_toolkit.data_flags import DataOptions
from bert_toolkit.errors import UserError
from bert_toolkit.problems import MULTI, REGRESSION, SINGLE, Problem
from bert_toolkit.tables import BadRow
from bert_toolkit.tasks import Split, Task

BAD_ROWS, TASK_FILE = "bad_rows.tsv", "task.json"
# Bad rows that an error names; the others are counted.
NAMED = 10
# A label that is so much rarer than the most frequent one is told.
RARE = 0.1


class Example(NamedTuple):
    """A text or a pair of texts to classify.

    Attributes:
      name: what a prediction is listed under: the row's own index, or its number from 0.
      text_a: the text, or the first of two.
      text_b: the second, or None.
      label: a string, a tuple of strings where there may be several, or a number; None where it is
        to be predicted.
      line: where it stands in its file.
    """

    name: str
    text_a: str
    text_b: Optional[str]
    label: Any
    line: int = 0


@dataclasses.dataclass(frozen=True)
class Data:
    """The examples that a run needs: those of splits that are not needed are not read."""

    problem: Problem
    metric: str
    train: Optional[list[Example]]
    dev: Mapping[str, list[Example]]
    test: Mapping[str, list[Example]]


class _BadRows:
    """Rows that cannot be used: an error, or left out and listed."""

    def __init__(self, skip: bool):
        self.skip = skip
        self.rows: list[tuple[str, int, str]] = []

    def add(self, path: str, line: int, why: str) -> None:
        self.rows.append((path, line, why))

    def finish(self, directory: str) -> None:
        """Tells of them.

        Raises:
          UserError: they are not to be left out.
        """
        if not self.rows:
            return
        if not self.skip:
            sentences = [f"{path} line {line}: {why}" for path, line, why in self.rows[:NAMED]]
            more = len(self.rows) - NAMED
            if more > 0:
                sentences.append(f"and {more:,} rows more; --on_bad_row=skip leaves such rows out")
            raise UserError("\n".join(sentences))
        path = os.path.join(directory, BAD_ROWS)
        lines = ["file\tline\twhat is wrong", *("\t".join(map(str, row)) for row in self.rows)]
        files.write_text(path, "\n".join(lines) + "\n")
        logging.warning("%s bad rows left out; %s lists them", f"{len(self.rows):,}", path)


class Wanted(NamedTuple):
    """Which splits to read."""

    train: bool
    dev: bool
    test: bool


def load(
    task: Task, options: DataOptions, splits: Wanted, seed: int, model_dirs: Sequence[str]
) -> Data:
    """Reads the splits that are asked for.

    Args:
      task: says where they are.
      options: say what to do with bad rows and without a dev file.
      splits: which to read.
      seed: of the division by --eval_split.
      model_dirs: where a model may lie that was trained before, and knows its labels.

    Raises:
      UserError: a file is missing, has no row that can be used, or rows that cannot.
    """
    train, dev, test = splits
    bad = _BadRows(options.on_bad_row == "skip")
    directory = options.data_dir or ""

    def read(files_of: Mapping[str, Split]) -> dict[str, tuple[str, list[Example]]]:
        there = {
            suffix: split
            for suffix, split in files_of.items()
            if not suffix or files.exists(os.path.join(directory, split.file))
        }
        return {suffix: _read(directory, split, task, bad) for suffix, split in there.items()}

    splits_own = dev and not task.dev
    raw_train = read({"": task.train})[""] if task.train and (train or splits_own) else None
    raw_dev = read(task.dev) if dev else {}
    raw_test = read(task.test) if test else {}
    if not bad.skip:
        bad.finish(options.output_dir)
    problem = _problem(task, raw_train, model_dirs)
    metric = task.metric or USUAL_METRIC[problem.kind]

    def labelled(raw: Optional[tuple[str, list[Example]]]) -> list[Example]:
        return _labelled(*raw, problem, task, bad) if raw else []

    train_rows = labelled(raw_train)
    dev_rows = {suffix: labelled(raw) for suffix, raw in raw_dev.items()}
    test_rows = {suffix: rows for suffix, (_, rows) in raw_test.items()}
    bad.finish(options.output_dir)
    if splits_own:
        train_rows, dev_rows[""] = _divided(train_rows, options.eval_split, problem, seed)
    return Data(problem, metric, train_rows if train else None, dev_rows, test_rows)


USUAL_METRIC = {SINGLE: "accuracy", MULTI: "f1_micro", REGRESSION: "spearman"}


# --- Reading ---


def _read(directory: str, split: Split, task: Task, bad: _BadRows) -> tuple[str, list[Example]]:
    """Returns the path of a split and its examples, with labels as they stand there."""
    path = os.path.join(directory, split.file)
    if split.file == tables.STANDARD_INPUT:
        path = tables.STANDARD_INPUT
    elif not files.exists(path):
        where = (
            f"--data_dir={directory}: no {split.file} in it"
            if directory
            else f"{path}: no such file"
        )
        raise UserError(where)
    table = tables.Table(path, tables.Layout(split.header, split.quoting, split.columns))
    examples: list[Example] = []
    for line, fields in table.rows():
        try:
            if isinstance(fields, BadRow):
                raise fields
            if split.keep is None or split.keep(fields):
                examples.append(_example(table, line, fields, split, len(examples)))
        except BadRow as why:
            bad.add(path, line, str(why))
    if table.blank:
        logging.warning("%s: %d blank lines left out", path, table.blank)
    if not examples and not bad.rows:
        raise UserError(f"{path}: no row to use in it")
    return path, examples


def _example(table: tables.Table, line: int, fields: Any, split: Split, number: int) -> Example:
    def text(column: Any) -> str:
        value = tables.cell(table, fields, column)
        if not isinstance(value, str):
            raise BadRow(f"{column!r} is {value!r}; expected text")
        return value

    label = None if split.label is None else tables.cell(table, fields, split.label)
    name = str(number)
    # Only what is predicted needs the ids of its file.
    if split.index is not None and (split.label is None or split.index in (table.names or fields)):
        name = str(tables.cell(table, fields, split.index))
    text_b = None if split.text_b is None else text(split.text_b)
    example = Example(name, text(split.text_a), text_b, label, line)
    if not example.text_a.strip() and split.label is not None:
        raise BadRow("its text is empty")
    return example


# --- Labels ---


def _problem(task: Task, train: Any, directories: Sequence[str]) -> Problem:
    """Returns what is to be predicted: declared, or known to a model, or seen in the data."""
    known = stored(directories) if train is None else None
    if task.kind is not None and (task.labels is not None or task.kind == REGRESSION):
        return _in_order_of(known, Problem(task.kind, task.labels or ()))
    if train is None:
        if task.labels is not None:
            return _in_order_of(known, Problem(known.kind if known else SINGLE, task.labels))
        if known is None:
            raise UserError(
                "the labels are not known: --output_dir holds no model trained by this program, and"
                " --bert_dir no classifier; pass --labels, or --train_file to train one"
            )
        return known
    labels = [_as_stored(example.label, task.kind, task.separator) for example in train[1]]
    usable = [label for label in labels if label not in (None, "", ())]
    if not usable:
        raise UserError(f"{train[0]}: no row has a label")
    if task.kind == SINGLE:  # numbers would be taken for what they look like
        inferred = Problem(SINGLE, problems.in_order(set(usable)))
    else:
        inferred = problems.infer(usable)
    problem = Problem(inferred.kind, task.labels or inferred.labels)
    _check_number(train[0], problem, len(usable))
    return problem


def _in_order_of(known: Optional[Problem], wanted: Problem) -> Problem:
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


def _as_stored(label: Any, kind: Optional[str], separator: Optional[str]) -> Any:
    """A label as a string, or as a tuple of strings where there may be several."""
    if isinstance(label, list):
        return tuple(str(part) for part in label)
    text = "" if label is None else str(label).strip()
    if kind == MULTI:
        return tuple(part.strip() for part in text.split(separator) if part.strip())
    return text


def stored(directories: Sequence[str]) -> Optional[Problem]:
    """Returns what the model in the first directory that has one predicts; None if none has.

    The directory is one that `store` wrote to, or one of Hugging Face's.
    """
    for directory in directories:
        path = os.path.join(directory, TASK_FILE)
        if files.exists(path):
            task = json.loads(files.read_text(path))
            return Problem(task["problem_type"], tuple(task["labels"]))
        path = os.path.join(directory, hugging_face.CONFIG)
        if files.exists(path):
            return hugging_face.problem_of(path)
    return None


def store(directory: str, data: Data) -> None:
    """Writes what is predicted beside a model, for later runs."""
    store_problem(directory, data.problem, data.metric)


def store_problem(directory: str, problem: Problem, metric: Optional[str] = None) -> None:
    """Writes what a model predicts, and a metric that it is judged by, else the usual one."""
    task = {
        "problem_type": problem.kind,
        "labels": problem.labels,
        "metric": metric or USUAL_METRIC[problem.kind],
    }
    files.write_text(os.path.join(directory, TASK_FILE), json.dumps(task, indent=2) + "\n")


def _labelled(
    path: str, examples: list[Example], problem: Problem, task: Task, bad: _BadRows
) -> list[Example]:
    """Returns the examples with the labels of the problem; those without are bad rows."""
    labelled = []
    for example in examples:
        try:
            label = _label(example.label, problem, task)
            labelled.append(example._replace(label=label))
        except BadRow as why:
            bad.add(path, example.line, str(why))
    return labelled


def _label(raw: Any, problem: Problem, task: Task) -> Any:
    value = _as_stored(raw, problem.kind, task.separator)
    if problem.kind == REGRESSION:
        try:
            number = float(value)
        except ValueError:
            number = np.nan
        if not np.isfinite(number):
            raise BadRow(f"label {value!r}, expected a number")
        return number
    names = value if isinstance(value, tuple) else (value,)
    names = tuple(task.synonyms.get(name, name) for name in names)
    unknown = [name for name in names if name not in problem.labels]
    if unknown:
        expected = ", ".join(problem.labels[:20]) + (", ..." if len(problem.labels) > 20 else "")
        raise BadRow(f"label {unknown[0]!r}, expected one of {expected}")
    if problem.kind == SINGLE and len(names) != 1:
        raise BadRow(f"{len(names)} labels, expected one")
    return names if problem.kind == MULTI else names[0]


def _divided(
    examples: list[Example], share: float, problem: Problem, seed: int
) -> tuple[list[Example], list[Example]]:
    """Returns the examples to train on and those to evaluate on."""
    from sklearn.model_selection import train_test_split

    if not share:
        raise UserError("nothing to evaluate on: pass --eval_file, or --eval_split=0.1")
    labels = [example.label for example in examples] if problem.kind == SINGLE else None
    if labels and min(collections.Counter(labels).values()) < 2:
        rare = min(collections.Counter(labels).items(), key=lambda item: item[1])[0]
        raise UserError(f"--eval_split: the label {rare!r} has one row, which cannot be divided")
    try:
        numbers = train_test_split(
            np.arange(len(examples)), test_size=share, random_state=seed, stratify=labels
        )
    except ValueError as error:
        raise UserError(f"--eval_split={share}: {error}") from None
    first, second = ([examples[number] for number in sorted(part)] for part in numbers)
    logging.info("%s rows to train on, %s to evaluate on", f"{len(first):,}", f"{len(second):,}")
    return first, second


# --- What is worth knowing before training ---


def describe(data: Data) -> list[str]:
    """Returns lines about the data that training may go wrong by."""
    lines = []
    for name, rows in [("train", data.train), *((f"dev{s}", rows) for s, rows in data.dev.items())]:
        if rows:
            lines.append(f"{name}: {len(rows):,} rows, {_label_counts(rows, data.problem)}")
    if not data.train:
        return lines
    seen = {(example.text_a, example.text_b) for example in data.train}
    if len(seen) < len(data.train):
        lines.append(f"train: {len(data.train) - len(seen):,} rows are repetitions of others")
    for suffix, rows in data.dev.items():
        shared = sum((example.text_a, example.text_b) in seen for example in rows)
        if shared:
            lines.append(
                f"dev{suffix}: {shared:,} rows are in the training data too; its metrics will be"
                " too good"
            )
    lines += _imbalance(data)
    return lines


def _label_counts(rows: list[Example], problem: Problem) -> str:
    if problem.kind == REGRESSION:
        numbers = np.array([example.label for example in rows])
        return f"{numbers.min():g} to {numbers.max():g}, mean {numbers.mean():.3g}"
    counts = count_labels(rows, problem)
    shown = [f"{label} {count:,}" for label, count in counts.most_common(12)]
    return ", ".join(shown) + (f" and {len(counts) - 12} labels more" if len(counts) > 12 else "")


def count_labels(rows: list[Example], problem: Problem) -> collections.Counter:
    """Returns how many rows have each label; 0 for labels that none has."""
    counts = collections.Counter(dict.fromkeys(problem.labels, 0))
    for example in rows:
        counts.update(example.label if problem.kind == MULTI else [example.label])
    return counts


def _imbalance(data: Data) -> list[str]:
    if data.problem.kind == REGRESSION or not data.train:
        return []
    counts = count_labels(data.train, data.problem)
    most = counts.most_common(1)[0][1]
    absent = [label for label, count in counts.items() if not count]
    rare = [label for label, count in counts.items() if 0 < count < RARE * most]
    lines = []
    if absent:
        lines.append(f"train: no row has the label {', '.join(absent[:5])}; it cannot be learned")
    if rare:
        lines.append(
            f"train: {', '.join(rare[:5])} much rarer than the most frequent label; --class_weights"
            "=balanced or --oversample may help, and f1_macro tells more than accuracy"
        )
    return lines
