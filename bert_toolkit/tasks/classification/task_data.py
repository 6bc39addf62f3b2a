"""The examples of a task: read, checked, labelled, split, and described before training."""

import collections
import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Optional

import numpy as np
from absl import logging

from bert_toolkit import problems
from bert_toolkit.checkpoints import task_file
from bert_toolkit.errors import UserError
from bert_toolkit.io import files, tables
from bert_toolkit.io.tables import BadRow
from bert_toolkit.problems import MULTI, REGRESSION, Problem
from bert_toolkit.tasks.bad_rows import BadRows
from bert_toolkit.tasks.classification import division, glue, labels
from bert_toolkit.tasks.classification.data_options import DataOptions
from bert_toolkit.tasks.classification.glue import Split, Task, Template

# No name of a column is longer, in characters.
LONGEST_NAME = 100
# The ending of the results on the test part that --test_split divides off.
TEST = "_test"
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
      part_by: what --split_column says of it, where data is divided by that.
      slices: what the columns of --slice_column say of it, where it may be evaluated on.
    """

    name: str
    text_a: str
    text_b: Optional[str]
    label: Any
    line: int = 0
    part_by: Optional[str] = None
    slices: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The text, or both of a pair on lines of their own."""
        return f"{self.text_a}\n{self.text_b}" if self.text_b else self.text_a

    @property
    def is_blank(self) -> bool:
        """Whether there is no text in it."""
        return not (self.text_a + (self.text_b or "")).strip()


@dataclasses.dataclass(frozen=True)
class Data:
    """The examples that a run needs: those of splits that are not needed are not read.

    Attributes:
      problem: what is predicted.
      metric: what it is judged by.
      train: the examples to train on; None if they are not needed.
      dev: ending of the result files' names -> examples to evaluate on.
      test: likewise, examples to predict.
      other_label: the label that rare and unknown ones were joined into, if they were.
    """

    problem: Problem
    metric: str
    train: Optional[list[Example]]
    dev: Mapping[str, list[Example]]
    test: Mapping[str, list[Example]]
    other_label: Optional[str] = None


class Wanted(NamedTuple):
    """Which splits to read."""

    train: bool
    dev: bool
    test: bool


def load(
    task: Task, options: DataOptions, splits: Wanted, seed: int, model_dirs: Sequence[str]
) -> Data:
    """Reads the splits that are asked for, and divides the training data where that is.

    Args:
      task: says where they are.
      options: say what to do with bad rows and how to divide the training data.
      splits: which to read.
      seed: of the division, where there is no --split_seed, and of --max_train_examples.
      model_dirs: where a model may lie that was trained before, and knows its labels.

    Raises:
      UserError: a file is missing, has no row that can be used, or rows that cannot.
    """
    train, dev, test = splits
    bad = BadRows(options.on_bad_row == "skip")
    directory = options.data_dir or ""
    seed = seed if options.split_seed is None else options.split_seed

    def read(files_of: Mapping[str, Split]) -> dict[str, tuple[str, list[Example]]]:
        there = {
            suffix: split
            for suffix, split in files_of.items()
            if not suffix or files.exists(os.path.join(directory, split.file))
        }
        return {
            suffix: _read(_path(directory, split.file), split, options, bad)
            for suffix, split in there.items()
        }

    shares = division.Shares(
        dev=0.0 if task.dev else options.eval_split,
        test=options.test_split,
    )
    if dev and not task.dev and not any(shares):
        raise UserError("nothing to evaluate on: pass --eval_file, or --eval_split=0.1")
    of_train = train or (dev and any(shares)) or (test and bool(shares.test) and not task.test)
    raw_train = read({"": task.train})[""] if task.train and of_train else None
    raw_dev = read(task.dev) if dev else {}
    raw_test = read(task.test) if test else {}
    if not bad.skip:
        bad.finish(options.output_dir)
    seen = None if not train and labels.known_to_a_model(model_dirs) else raw_train
    problem, other = labels.problem_of(task, seen, model_dirs, options)
    metric = task.metric or task_file.USUAL_METRIC[problem.kind]

    def labelled(raw: Optional[tuple[str, list[Example]]]) -> list[Example]:
        return labels.labelled(*raw, problem, task, other, bad) if raw else []

    train_rows = labelled(raw_train)
    dev_rows = {suffix: labelled(raw) for suffix, raw in raw_dev.items()}
    test_rows = {suffix: rows for suffix, (_, rows) in raw_test.items()}
    bad.finish(options.output_dir)
    if raw_train and any(shares):
        parts = division.divide(raw_train[0], train_rows, shares, problem, options, seed)
        train_rows = parts.train
        if dev and shares.dev:
            dev_rows[""] = parts.dev
        if dev and shares.test:
            dev_rows[TEST] = parts.test
        if test and shares.test and not task.test:
            test_rows[""] = parts.test
    if train and options.max_train_examples:
        train_rows = division.sample(train_rows, options.max_train_examples, problem, seed)
    return Data(problem, metric, train_rows if train else None, dev_rows, test_rows, other)


# --- Reading ---


def _path(directory: str, file: str) -> str:
    if file == files.STREAM:
        return file
    path = os.path.join(directory, file)
    if not files.exists(path):
        where = f"--data_dir={directory}: no {file} in it" if directory else f"{path}: no such file"
        raise UserError(where)
    return path


def _read(path: str, split: Split, options: DataOptions, bad: BadRows) -> tuple[str, list[Example]]:
    """Returns the name of a split's file and its examples, with labels as they stand there."""
    if split.names:
        assert options.task_name
        split, warning = glue.place_columns(options.task_name, path, split)
        if warning:
            logging.warning("%s", warning)
    layout = tables.TableFormat(split.header, split.quoting, split.columns, split.delimiter)
    table = tables.Table(path, layout)
    examples: list[Example] = []
    blank: list[int] = []
    number = 0  # of the row: those that cannot be used count
    for line, fields in table.rows():
        if fields is None:
            blank.append(line)
            if split.keep_blank:
                name = str(number) if split.index is None else ""
                examples.append(Example(name, "", None, None, line))
                number += 1
            continue
        try:
            if isinstance(fields, BadRow):
                raise fields
            if split.only and tables.cell(table, fields, split.only[0]) != split.only[1]:
                continue
            examples.append(_example(table, line, fields, split, number))
        except BadRow as why:
            bad.add(table.name, f"line {line}", str(why))
        number += 1
    _warn(table, split, blank)
    if not split.names:
        _check_header(table, split, examples)
    if not examples and not bad.rows:
        part = f" of {' '.join(map(str, split.only[1:]))}" if split.only else ""
        raise UserError(f"{table.name}: no row{part} to use in it")
    return table.name, examples


def _warn(table: tables.Table, split: Split, blank: list[int]) -> None:
    """Says which lines are blank, and that quotes are taken for text."""
    if blank:
        shown = ", ".join(map(str, blank[:5])) + (", ..." if len(blank) > 5 else "")
        done = "have an empty answer" if split.keep_blank else "left out"
        logging.warning("%s: %d blank lines %s (lines %s)", table.name, len(blank), done, shown)
    if table.quoted:
        logging.warning(
            '%s: %d fields stand in quotes with "" inside, and are taken as they stand; pass'
            " --quoting if the quotes are none of the text, --noquoting if they are",
            table.name,
            table.quoted,
        )


def _check_header(table: tables.Table, split: Split, examples: list[Example]) -> None:
    """Says what was taken for the header where no name of a column confirms that it is one.

    Raises:
      UserError: it can be none.
    """
    columns = [split.text_a, split.text_b, split.label]
    numbers = [column for column in columns if isinstance(column, int)]
    if not table.header or any(isinstance(column, str) for column in columns):
        return
    where = f"{table.name} line {table.header_line}"
    for column in numbers:
        name = table.header[column] if column < len(table.header) else ""
        if len(name) > LONGEST_NAME or "\n" in name:
            raise UserError(
                f"{where}: {tables.shorten(name)} is no name of a column, and line"
                f" {table.header_line} no header; pass --noheader if the file has none"
            )
    label = table.header[split.label] if isinstance(split.label, int) else ""
    found = {labels.as_stored(example.label, None, None) for example in examples if label}
    known = {problems.whole(name) for name in found if isinstance(name, str)}
    if problems.whole(label) in known or (
        problems.is_number(label) and known and all(map(problems.is_number, known))
    ):
        logging.warning(
            "%s: taken for the header, though %r in it may be a label: %s; pass --noheader if it"
            " is a row",
            where,
            label,
            tables.listing(table.header),
        )
    else:
        logging.info(
            "%s: taken for the header: %s; pass --noheader if it is a row",
            where,
            tables.listing(table.header),
        )


def _example(table: tables.Table, line: int, fields: Any, split: Split, number: int) -> Example:
    def text(column: Any) -> str:
        value = tables.cell(table, fields, column)
        if not isinstance(value, str):
            raise BadRow(f"{column!r} is {tables.shorten(value)}; expected text")
        return value

    def named(column: Any) -> str:
        value = tables.cell(table, fields, column)
        return "" if value is None else str(value).strip()

    label = None if split.label is None else tables.cell(table, fields, split.label)
    _check_label(label)
    name = str(number)
    # Only what is predicted needs the ids of its file.
    if split.index is not None and (
        split.label is None or tables.has_column(table, fields, split.index)
    ):
        name = str(tables.cell(table, fields, split.index))
    text_a = _filled(table, fields, split.template) if split.template else text(split.text_a)
    text_b = None if split.text_b is None else text(split.text_b)
    example = Example(name, text_a, text_b, label, line)
    if not example.text_a.strip() and split.label is not None:
        raise BadRow("its text is empty")
    if split.part_by is not None:
        example = example._replace(part_by=named(split.part_by))
        if not example.part_by:
            raise BadRow("nothing in the column of --split_column, by which the data is divided")
    return example._replace(slices=tuple(named(column) for column in split.slices))


def _filled(table: tables.Table, fields: Any, template: Template) -> str:
    """Returns the text that a template makes of the columns of a row."""
    values = []
    for column in template.columns:
        if not tables.has_column(table, fields, column) and not isinstance(fields, Mapping):
            there = tables.listing(table.header) or f"{len(fields)}, numbered from 1"
            wanted = repr(column) if isinstance(column, str) else f"number {column + 1}"
            raise UserError(
                f"--text_template: no column {wanted} in {table.name}; its columns: {there}"
            )
        value = tables.cell(table, fields, column)
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise BadRow(f"{column!r} is {tables.shorten(value)}; expected text")
        values.append(str(value))
    return template.fill(values)


def _check_label(label: Any) -> None:
    """Raises a BadRow for what is no label, or none that can be written to a line of a file."""
    for part in label if isinstance(label, list) else [label]:
        if isinstance(part, (dict, list, BadRow)) or (part is None and part is not label):
            raise BadRow(
                f"label {tables.shorten(label)}; expected a string, a number, or a list of them"
            )
        text = str(part).strip()
        if not problems.is_one_line(text):
            raise BadRow(
                f"label {tables.shorten(text)}; expected one without tabs and line ends, as"
                " predictions are written a line each"
            )


def store(directory: str, data: Data) -> None:
    """Writes what is predicted beside a model, for later runs."""
    settings = {labels.OTHER_LABEL: data.other_label} if data.other_label else None
    task_file.write(directory, data.problem, data.metric, settings)


# --- What is worth knowing before training ---


def describe(data: Data) -> list[str]:
    """Returns lines about the data that training may go wrong by."""
    lines = []
    dev = {"test" if suffix == TEST else f"dev{suffix}": rows for suffix, rows in data.dev.items()}
    for name, rows in [("train", data.train), *dev.items()]:
        if rows:
            lines.append(f"{name}: {len(rows):,} rows, {label_counts(rows, data.problem)}")
    if not data.train:
        return lines
    seen = {(example.text_a, example.text_b) for example in data.train}
    if len(seen) < len(data.train):
        lines.append(f"train: {len(data.train) - len(seen):,} rows are repetitions of others")
    for name, rows in dev.items():
        shared = sum((example.text_a, example.text_b) in seen for example in rows)
        if shared:
            lines.append(
                f"{name}: {shared:,} rows are in the training data too; its metrics will be"
                " too good"
            )
    lines += _imbalance(data)
    return lines


def label_counts(rows: list[Example], problem: Problem) -> str:
    """Returns how many rows have each label, or the range of their numbers, in words."""
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
            f"train: few rows have the label {', '.join(rare[:5])};"
            " --class_weights=balanced or --oversample of bert classify may help, and f1_macro"
            " tells more than accuracy"
        )
    return lines
