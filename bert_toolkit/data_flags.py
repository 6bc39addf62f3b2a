"""The flags that say what texts and labels there are: of run_classifier.py and run_baselines.py."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Optional

from absl import flags

from bert_toolkit import problems, tables, tasks
from bert_toolkit.tasks import Column, Split, Task

# The columns that are taken where none are given: without a header, and with one.
FIRST, SECOND = 0, 1
USUAL_TEXT, USUAL_LABEL = "text|sentence", "label|labels"


def define_data_flags() -> None:
    """Defines the flags."""
    flags.DEFINE_string(
        "task_name",
        None,
        "A task with published files in --data_dir: cola, sst-2, mrpc, qqp, sts-b, mnli, qnli, rte,"
        " wnli, xnli (Chinese) or xnli-LANGUAGE. Without it, the files below.",
    )
    flags.DEFINE_string("data_dir", None, "Directory with the files of the task.")
    flags.DEFINE_string(
        "train_file",
        None,
        "Your own training data: .tsv, .csv or .jsonl, .gz or not.",
    )
    flags.DEFINE_string("eval_file", None, "Your own data to evaluate on, in the same columns.")
    flags.DEFINE_string(
        "predict_file",
        None,
        "Your own texts to predict: as above, or .txt with a text a line; - for lines on standard"
        " input, with predictions on standard output.",
    )
    flags.DEFINE_string(
        "text_column",
        None,
        "The column of the text: its name, or its number from 1. Without it, text or sentence, or"
        " the first where there is no header.",
    )
    flags.DEFINE_string("text_b_column", None, "The column of the second text of a pair.")
    flags.DEFINE_string(
        "label_column",
        None,
        "The column of the label. Without it, label, or the second where there is no header.",
    )
    flags.DEFINE_string("id_column", None, "The column of the id that predictions are listed by.")
    flags.DEFINE_boolean("header", True, "Whether the first row names the columns.")
    flags.DEFINE_boolean(
        "quoting",
        None,
        "Whether fields may stand in double quotes; without it, in .csv they may, in .tsv not.",
    )
    flags.DEFINE_enum(
        "problem_type",
        None,
        list(problems.KINDS),
        "One label a text, any number of labels, or a number; without it, what the training data"
        " looks like (lists in .jsonl are several labels, fractions are numbers).",
    )
    flags.DEFINE_string("label_separator", ",", "Between the labels of a text that has several.")
    flags.DEFINE_list(
        "labels", None, "The labels, in order; without it, those of the training data, sorted."
    )
    flags.DEFINE_float(
        "eval_split",
        0.0,
        "Share of the training data to evaluate on instead of training, with the labels in the same"
        " proportions; for data without an --eval_file.",
        lower_bound=0.0,
        upper_bound=0.9,
    )
    flags.DEFINE_enum(
        "on_bad_row",
        "error",
        ["error", "skip"],
        "Stop at rows that cannot be used, or leave them out, listed in bad_rows.tsv.",
    )


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """The flags of the data; a stage's options build on it."""

    task_name: Optional[str] = None
    data_dir: Optional[str] = None
    output_dir: str = ""
    train_file: Optional[str] = None
    eval_file: Optional[str] = None
    predict_file: Optional[str] = None
    text_column: Optional[str] = None
    text_b_column: Optional[str] = None
    label_column: Optional[str] = None
    id_column: Optional[str] = None
    header: bool = True
    quoting: Optional[bool] = None
    problem_type: Optional[str] = None
    label_separator: str = ","
    labels: Optional[Sequence[str]] = None
    eval_split: float = 0.0
    on_bad_row: str = "error"

    @property
    def is_custom(self) -> bool:
        """Whether the data is the user's own, rather than a task's."""
        return self.task_name in (None, tasks.CUSTOM)

    def data_problems(self) -> list[str]:
        """Returns a sentence for everything that does not go together."""
        own = [name for name in ("train_file", "eval_file", "predict_file") if getattr(self, name)]
        if self.is_custom and not own:
            return ["--task_name is required, or --train_file, --eval_file or --predict_file"]
        if self.is_custom:
            return []
        problems = [] if self.data_dir else ["--data_dir is required with --task_name"]
        if own:
            problems.append(f"--{own[0]} goes without --task_name, or with --task_name=custom")
        return problems

    def task(self) -> Task:
        """Returns the task of that name, or the one that the files make."""
        if not self.is_custom:
            assert self.task_name
            return tasks.find(self.task_name)
        train = self._split(self.train_file) if self.train_file else None
        return Task(
            labels=tuple(self.labels) if self.labels else None,
            train=train,
            dev={"": self._split(self.eval_file)} if self.eval_file else {},
            test={"": self._to_predict(self.predict_file)} if self.predict_file else {},
            kind=self.problem_type,
            separator=self.label_separator,
        )

    def _split(self, path: str) -> Split:
        return Split(
            file=os.path.abspath(path),
            text_a=self._column(self.text_column, FIRST, USUAL_TEXT),
            text_b=_column(self.text_b_column) if self.text_b_column else None,
            label=self._column(self.label_column, SECOND, USUAL_LABEL),
            header=self.header,
            index=_column(self.id_column) if self.id_column else None,
            quoting=self.quoting,
        )

    def _to_predict(self, path: str) -> Split:
        """Texts alone: a text a line where the file is no table."""
        lines = path == tables.STANDARD_INPUT or path.removesuffix(".gz").endswith(".txt")
        split = dataclasses.replace(self._split(path), label=None)
        if not lines:
            return split
        file = path if path == tables.STANDARD_INPUT else split.file
        text_b = split.text_b if isinstance(split.text_b, int) else None
        columns = 1 if text_b is None else 0
        return dataclasses.replace(
            split, file=file, text_a=0, text_b=text_b, index=None, header=False, columns=columns
        )

    def _column(self, column: Optional[str], position: int, name: str) -> Column:
        if column is not None:
            return _column(column)
        return name if self.header else position


def _column(column: str) -> Column:
    """A number from 1 as a position from 0; a name as it is."""
    return int(column) - 1 if column.isdigit() else column
