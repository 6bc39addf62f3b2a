"""The examples of a task: read, checked, labelled, split, and described before training."""

import collections
import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Optional

import numpy as np
from absl import logging

from bert_toolkit import problems
from bert_toolkit.checkpoints import hugging_face, task_file
from bert_toolkit.errors import UserError
from bert_toolkit.io import files, tables
from bert_toolkit.io.tables import BadRow
from bert_toolkit.problems import MULTI, REGRESSION, SINGLE, Problem
from bert_toolkit.tasks.bad_rows import BadRows
from bert_toolkit.tasks.classification import glue
from bert_toolkit.tasks.classification.data_options import DataOptions
from bert_toolkit.tasks.classification.glue import Split, Task

# No name of a column is longer, in characters.
LONGEST_NAME = 100
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

    @property
    def is_blank(self) -> bool:
        """Whether there is no text in it."""
        return not (self.text_a + (self.text_b or "")).strip()


@dataclasses.dataclass(frozen=True)
class Data:
    """The examples that a run needs: those of splits that are not needed are not read."""

    problem: Problem
    metric: str
    train: Optional[list[Example]]
    dev: Mapping[str, list[Example]]
    test: Mapping[str, list[Example]]


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
    bad = BadRows(options.on_bad_row == "skip")
    directory = options.data_dir or ""

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

    splits_own = dev and not task.dev
    raw_train = read({"": task.train})[""] if task.train and (train or splits_own) else None
    raw_dev = read(task.dev) if dev else {}
    raw_test = read(task.test) if test else {}
    if not bad.skip:
        bad.finish(options.output_dir)
    problem = _problem(task, raw_train, model_dirs)
    metric = task.metric or task_file.USUAL_METRIC[problem.kind]

    def labelled(raw: Optional[tuple[str, list[Example]]]) -> list[Example]:
        return _labelled(*raw, problem, task, bad) if raw else []

    train_rows = labelled(raw_train)
    dev_rows = {suffix: labelled(raw) for suffix, raw in raw_dev.items()}
    test_rows = {suffix: rows for suffix, (_, rows) in raw_test.items()}
    bad.finish(options.output_dir)
    if splits_own:
        train_rows, dev_rows[""] = _divided(train_rows, options.eval_split, problem, seed)
    return Data(problem, metric, train_rows if train else None, dev_rows, test_rows)


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
    labels = {_as_stored(example.label, None, None) for example in examples} if label else set()
    known = {problems.whole(name) for name in labels if isinstance(name, str)}
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

    label = None if split.label is None else tables.cell(table, fields, split.label)
    _check_label(label)
    name = str(number)
    # Only what is predicted needs the ids of its file.
    if split.index is not None and (
        split.label is None or tables.has_column(table, fields, split.index)
    ):
        name = str(tables.cell(table, fields, split.index))
    text_b = None if split.text_b is None else text(split.text_b)
    example = Example(name, text(split.text_a), text_b, label, line)
    if not example.text_a.strip() and split.label is not None:
        raise BadRow("its text is empty")
    return example


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


# --- Labels ---


def _problem(task: Task, train: Any, directories: Sequence[str]) -> Problem:
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
    labels = [_as_stored(example.label, kind, task.separator) for example in train[1]]
    usable = [label for label in labels if label not in (None, ())]
    if not usable:
        raise UserError(f"{train[0]}: no row has a label")
    if kind is None:
        kind = problems.infer(usable).kind
        kind = SINGLE if task.labels and kind == REGRESSION else kind
    names = task.labels or problems.distinct(usable)
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


def _as_stored(label: Any, kind: Optional[str], separator: Optional[str]) -> Any:
    """A label as a string, or a tuple of strings where there may be several; None for no label."""
    if label is None or label != label:  # NaN, which some programs write
        return None
    if isinstance(label, list):
        return tuple(str(part).strip() for part in label)
    text = str(label).strip()
    if kind == MULTI:
        return tuple(part.strip() for part in text.split(separator) if part.strip())
    return text or None


def store(directory: str, data: Data) -> None:
    """Writes what is predicted beside a model, for later runs."""
    task_file.write(directory, data.problem, data.metric)


def _labelled(
    path: str, examples: list[Example], problem: Problem, task: Task, bad: BadRows
) -> list[Example]:
    """Returns the examples with the labels of the problem; those without are bad rows."""
    labelled = []
    for example in examples:
        try:
            label = _label(example.label, problem, task)
            labelled.append(example._replace(label=label))
        except BadRow as why:
            bad.add(path, f"line {example.line}", str(why))
    return labelled


def _label(raw: Any, problem: Problem, task: Task) -> Any:
    value = _as_stored(raw, problem.kind, task.separator)
    if problem.kind == REGRESSION:
        if not isinstance(value, str) or not problems.is_number(value):
            raise BadRow(f"{_found(value)}, expected a number")
        return float(value)
    expected = ", ".join(problem.labels[:20]) + (", ..." if len(problem.labels) > 20 else "")
    if value is None:
        raise BadRow(f"no label, expected one of {expected}")
    names = value if isinstance(value, tuple) else (value,)
    names = tuple(task.synonyms.get(name, name) for name in names)
    names = tuple(problem.spelled(name) for name in names)
    unknown = [name for name in names if name not in problem.labels]
    if unknown:
        raise BadRow(f"{_found(unknown[0])}, expected one of {expected}")
    if problem.kind == SINGLE and len(names) != 1:
        raise BadRow(f"{len(names)} labels, expected one")
    return names if problem.kind == MULTI else names[0]


def _found(label: Any) -> str:
    return "no label" if label is None else f"label {tables.shorten(label)}"


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
            lines.append(f"{name}: {len(rows):,} rows, {label_counts(rows, data.problem)}")
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
            f"train: {', '.join(rare[:5])} much rarer than the most frequent label;"
            " --class_weights=balanced or --oversample of bert classify may help, and f1_macro"
            " tells more than accuracy"
        )
    return lines
