"""Classification tasks: which files, which columns, which labels. Adding one is adding to TASKS."""

import dataclasses
import difflib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Optional

from absl import logging

from bert_toolkit import files
from bert_toolkit.errors import UserError


class Example(NamedTuple):
    """A text or a pair of texts to classify.

    Attributes:
      name: what a prediction is listed under: the row's own index, or its number from 0.
      text_a: the text, or the first of two.
      text_b: the second, or None.
      label: one of the task's labels; None where it is to be predicted.
    """

    name: str
    text_a: str
    text_b: Optional[str]
    label: Optional[str]


@dataclasses.dataclass(frozen=True)
class Split:
    """A tab-separated file of a data set; columns are counted from 0.

    Attributes:
      file: path below --data_dir.
      text_a: column of the text.
      text_b: column of the second text, if there are two.
      label: column of the label, -1 for the last; None if there is none.
      header: whether the first line names the columns.
      columns: how many there are, where no header tells.
      keep: decides by its fields whether a row belongs to the task.
      index: column with the name of a row, if there is one.
    """

    file: str
    text_a: int
    text_b: Optional[int] = None
    label: Optional[int] = None
    header: bool = True
    columns: int = 0
    keep: Optional[Callable[[list[str]], bool]] = None
    index: Optional[int] = None


@dataclasses.dataclass(frozen=True)
class Task:
    """A classification task.

    Attributes:
      labels: in the order of their ids.
      train: the split to train on.
      dev: ending of the result files' names -> split to evaluate on; "" for the main one.
      test: likewise, the splits to predict.
      synonyms: other spellings of labels in the files.
    """

    labels: tuple[str, ...]
    train: Split
    dev: Mapping[str, Split]
    test: Mapping[str, Split]
    synonyms: Mapping[str, str] = dataclasses.field(default_factory=dict)


def _is_chinese(fields: list[str]) -> bool:
    return fields[0] == "zh"


NLI_LABELS = ("contradiction", "entailment", "neutral")

TASKS = {
    "cola": Task(
        labels=("0", "1"),
        train=Split("train.tsv", text_a=3, label=1, header=False, columns=4),
        dev={"": Split("dev.tsv", text_a=3, label=1, header=False, columns=4)},
        test={"": Split("test.tsv", text_a=1, index=0)},
    ),
    "mnli": Task(
        labels=NLI_LABELS,
        train=Split("train.tsv", text_a=8, text_b=9, label=-1),
        dev={
            "": Split("dev_matched.tsv", text_a=8, text_b=9, label=-1),
            "_mismatched": Split("dev_mismatched.tsv", text_a=8, text_b=9, label=-1),
        },
        test={
            "": Split("test_matched.tsv", text_a=8, text_b=9, index=0),
            "_mismatched": Split("test_mismatched.tsv", text_a=8, text_b=9, index=0),
        },
    ),
    "mrpc": Task(
        labels=("0", "1"),
        train=Split("train.tsv", text_a=3, text_b=4, label=0),
        dev={"": Split("dev.tsv", text_a=3, text_b=4, label=0)},
        test={"": Split("test.tsv", text_a=3, text_b=4, index=0)},
    ),
    "sst-2": Task(
        labels=("0", "1"),
        train=Split("train.tsv", text_a=0, label=1),
        dev={"": Split("dev.tsv", text_a=0, label=1)},
        test={"": Split("test.tsv", text_a=1, index=0)},
    ),
    "xnli": Task(
        labels=NLI_LABELS,
        train=Split("multinli/multinli.train.zh.tsv", text_a=0, text_b=1, label=2),
        dev={"": Split("xnli.dev.tsv", text_a=6, text_b=7, label=1, keep=_is_chinese)},
        test={"": Split("xnli.test.tsv", text_a=6, text_b=7, label=1, keep=_is_chinese)},
        synonyms={"contradictory": "contradiction"},
    ),
}


def find(name: str) -> Task:
    """Returns the task of that name, in any casing; if there is none, a UserError lists them."""
    task = TASKS.get(name.lower())
    if task is None:
        close = difflib.get_close_matches(name.lower(), TASKS, 1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise UserError(f"--task_name={name}: unknown task. Known: {', '.join(TASKS)}.{hint}")
    return task


def read_examples(data_dir: str, split: Split, task: Task) -> Iterator[Example]:
    """Yields the rows of a split.

    Raises:
      UserError: the file is missing or empty, or a row has another number of columns than the first
        line or a label that the task does not know; names file and line.
    """
    path = os.path.join(data_dir, split.file)
    if not files.exists(path):
        raise UserError(f"--data_dir={data_dir}: no {split.file} in it")
    columns = [] if split.header else [""] * split.columns
    blank = count = 0
    for number, line in enumerate(files.read_lines(path), 1):
        fields = line.split("\t")
        if number == 1 and split.header:
            columns = fields
            _check_header(path, columns, split)
        elif not line.strip():
            blank += 1
        else:
            _check_row(f"{path} line {number}", fields, columns)
            if split.keep is None or split.keep(fields):
                yield _example(f"{path} line {number}", fields, split, task, count)
                count += 1
    if blank:
        logging.warning("%s: %d blank lines left out", path, blank)
    if not count:
        raise UserError(f"{path}: no row to use in it")


def _check_header(path: str, columns: list[str], split: Split) -> None:
    needed = 1 + max(
        column
        for column in (split.text_a, split.text_b, split.label, split.index)
        if column is not None
    )
    if len(columns) < needed:
        raise UserError(
            f"{path} line 1: {len(columns)} columns ({', '.join(columns)}), expected a header of"
            f" {needed} or more; is this the file of another task, or not separated by tabs?"
        )


def _check_row(where: str, fields: list[str], columns: list[str]) -> None:
    if len(fields) != len(columns):
        names = f" ({', '.join(columns)})" if columns[0] and len(columns) < 8 else ""
        advice = (
            "Remove the extra tab."
            if len(fields) > len(columns)
            else "Are its columns separated by tabs?"
        )
        raise UserError(f"{where}: {len(fields)} columns, expected {len(columns)}{names}. {advice}")


def _example(where: str, fields: list[str], split: Split, task: Task, count: int) -> Example:
    label = None
    if split.label is not None:
        label = task.synonyms.get(fields[split.label], fields[split.label])
        if label not in task.labels:
            raise UserError(f"{where}: label {label!r}, expected one of {', '.join(task.labels)}")
    return Example(
        name=fields[split.index] if split.index is not None else str(count),
        text_a=fields[split.text_a],
        text_b=fields[split.text_b] if split.text_b is not None else None,
        label=label,
    )
