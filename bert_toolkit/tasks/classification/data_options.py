"""Options that say what texts and labels there are: of all commands that classify."""

import dataclasses
import os
import re
import string
from collections.abc import Sequence
from typing import Optional

from bert_toolkit import problems
from bert_toolkit.io import files, tables
from bert_toolkit.options import option
from bert_toolkit.problems import MULTI, REGRESSION
from bert_toolkit.tasks.classification import glue
from bert_toolkit.tasks.classification.glue import Column, Split, Task, Template

# The columns that are taken where none are given: without a header, and with one.
FIRST, SECOND = 0, 1
USUAL_TEXT, USUAL_LABEL = "text|sentence", "label|labels"

# What --split_column says of rows: which belong together, or which come later.
GROUP, TIME = "group", "time"

# Flags that say of files of one's own what a task's declaration says of its files.
OF_OWN_FILES = (
    "text_column",
    "text_template",
    "text_b_column",
    "label_column",
    "id_column",
    "delimiter",
    "quoting",
    "problem_type",
    "labels",
    "split_column",
    "slice_column",
)


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """The texts and labels."""

    task_name: Optional[str] = option(
        None,
        "A task with published files in --data_dir: cola, sst-2, mrpc, qqp, sts-b, mnli, qnli, rte,"
        " wnli, xnli (Chinese) or xnli-LANGUAGE. Without it, the files below.",
    )
    data_dir: Optional[str] = option(None, "Directory with the files of the task.")
    output_dir: str = ""
    slice_column: Optional[Sequence[str]] = None
    train_file: Optional[str] = option(
        None,
        "Your own training data: .tsv, .csv, .jsonl or .json (one array of objects), .gz or not.",
    )
    eval_file: Optional[str] = option(None, "Your own data to evaluate on, in the same columns.")
    predict_file: Optional[str] = option(
        None,
        "Your own texts to predict: as above, or .txt with a text a line; - for lines on standard"
        " input, with predictions on standard output.",
    )
    text_column: Optional[str] = option(
        None,
        "The column of the text: its name, or its number from 1. Without it, text or sentence, or"
        " the first where there is no header.",
    )
    text_template: Optional[str] = option(
        None,
        "A text of several columns, in place of --text_column: '{title}: {body}', with the names of"
        " columns, or their numbers from 1, in braces; {{ and }} are braces themselves.",
    )
    text_b_column: Optional[str] = option(None, "The column of the second text of a pair.")
    label_column: Optional[str] = option(
        None, "The column of the label. Without it, label, or the second where there is no header."
    )
    id_column: Optional[str] = option(None, "The column of the id that predictions are listed by.")
    header: bool = option(True, "Whether the first row names the columns.")
    delimiter: Optional[str] = option(
        None,
        "The character between columns, ';' say, or tab; without it, in .csv a comma, else a tab.",
    )
    quoting: Optional[bool] = option(
        None,
        "Whether fields may stand in double quotes; without it, in .csv they may, in .tsv not.",
    )
    problem_type: Optional[str] = option(
        None,
        "One label a text, any number of labels, or a number; without it, what the training data"
        " looks like, which the log says: lists in JSON are several labels, fractions are numbers.",
        choices=list(problems.KINDS),
    )
    label_separator: str = option(",", "Between the labels of a text that has several.")
    labels: Optional[Sequence[str]] = option(
        None, "The labels, in order; without it, those of the training data, sorted."
    )
    eval_split: float = option(
        0.0,
        "Share of the training data to evaluate on instead of training, with the labels in the same"
        " proportions; for data without an --eval_file.",
        lower=0.0,
        upper=0.9,
    )
    test_split: float = option(
        0.0,
        "Share of the training data that is neither trained on nor evaluated on to choose anything,"
        " but evaluated (eval_results_test.txt) and, without a --predict_file, predicted at the"
        " end (bert baselines only holds it out).",
        lower=0.0,
        upper=0.9,
    )
    split_column: Optional[str] = option(
        None,
        "A column by which --eval_split and --test_split divide: an author, say, or a document; see"
        " --split_by.",
    )
    split_by: str = option(
        GROUP,
        "What --split_column is: group, rows with the same value stay in one part, and the shares"
        " are those of values; time, a number or a date (2026-01-31), the last rows are the test"
        " data, those before them are evaluated on.",
        choices=[GROUP, TIME],
    )
    split_seed: Optional[int] = option(
        None,
        "Seed of the division and of --max_train_examples, so that data stays divided alike while"
        " --seed varies; without it, --seed.",
    )
    max_train_examples: Optional[int] = option(
        None,
        "Train on so many rows of the training data, with the labels in the same proportions.",
        lower=1,
    )
    min_label_count: int = option(
        0,
        "Labels that fewer rows of --train_file have become --other_label, in all files.",
        lower=0,
    )
    other_label: str = option("other", "The label that --min_label_count makes of rare ones.")
    on_bad_row: str = option(
        "error",
        "Stop at rows that cannot be used, or leave them out, listed in bad_rows.tsv.",
        choices=["error", "skip"],
    )

    @property
    def is_custom(self) -> bool:
        """Whether the data is the user's own, rather than a task's."""
        return self.task_name in (None, glue.CUSTOM)

    def data_conflicts(self) -> list[str]:
        """Returns a sentence for everything that does not go together."""
        own = [name for name in ("train_file", "eval_file", "predict_file") if getattr(self, name)]
        if self.is_custom and not own:
            return ["--task_name is required, or --train_file, --eval_file or --predict_file"]
        if self.is_custom:
            return self._column_conflicts() + self._division_conflicts() + self._label_conflicts()
        conflicts = [] if self.data_dir else ["--data_dir is required with --task_name"]
        if own:
            conflicts.append(f"--{own[0]} goes without --task_name, or with --task_name=custom")
        of_own = [name for name in OF_OWN_FILES if getattr(self, name) is not None]
        of_own += [] if self.header else ["noheader"]
        conflicts += [f"--{name} is for files of your own; a task has its own" for name in of_own]
        conflicts += [
            f"--{name} is for files of your own, which a task's are not; leave it out"
            for name in ("test_split", "min_label_count")
            if getattr(self, name)
        ]
        return conflicts

    def _column_conflicts(self) -> list[str]:
        conflicts = []
        names = ("text_column", "text_b_column", "label_column", "id_column", "split_column")
        columns = [(name, getattr(self, name)) for name in names]
        columns += [("slice_column", column) for column in self.slice_column or ()]
        for name, column in columns:
            if column is not None and re.fullmatch(r"[+-]?[0-9]+", column) and int(column) < 1:
                conflicts.append(f"--{name}={column}: columns count from 1; pass 1 for the first")
        if self.delimiter is not None and len(self._delimiter() or "") != 1:
            conflicts.append(
                f"--delimiter={self.delimiter}: expected one character, such as ';', or tab"
            )
        for name in ("train_file", "eval_file"):
            if getattr(self, name) == files.STREAM:
                conflicts.append(
                    f"--{name}=-: only --predict_file reads standard input; expected a file"
                )
        if (
            self.predict_file
            and self.text_b_column
            and _is_lines(self.predict_file)
            and not isinstance(_column(self.text_b_column), int)
        ):
            conflicts.append(
                f"--predict_file={self.predict_file}: lines have no column"
                f" {self.text_b_column!r}; pass the two texts with a tab between them and"
                " --text_b_column=2, or a .tsv file"
            )
        return conflicts + self._template_conflicts()

    def _template_conflicts(self) -> list[str]:
        if self.text_template is None:
            return []
        conflicts = []
        if self.text_column:
            conflicts.append("--text_template and --text_column: both make the text; choose one")
        if self.predict_file and _is_lines(self.predict_file):
            conflicts.append(
                f"--predict_file={self.predict_file}: lines have no columns for --text_template;"
                " expected a .tsv, .csv or .jsonl file; or leave the template out and pass lines"
                " that look as it makes them"
            )
        try:
            _template(self.text_template)
        except ValueError as error:
            conflicts.append(
                f"--text_template={self.text_template}: {error}; expected names of columns in"
                " braces, '{title}: {body}' say"
            )
        return conflicts

    def _division_conflicts(self) -> list[str]:
        """Returns what does not go together of the flags that divide the training data."""
        conflicts = []
        divides = [name for name in ("eval_split", "test_split") if getattr(self, name)]
        if divides and not self.train_file:
            conflicts.append(f"--{divides[0]} divides the --train_file; pass that")
        if self.eval_split + self.test_split >= 1:
            conflicts.append(
                f"--eval_split={self.eval_split:g} and --test_split={self.test_split:g} leave"
                " nothing to train on; pass smaller shares"
            )
        if self.split_column and not divides:
            conflicts.append("--split_column goes with --eval_split or --test_split")
        if self.split_by == TIME and not self.split_column:
            conflicts.append("--split_by=time: pass the column of the time, --split_column=...")
        return conflicts

    def _label_conflicts(self) -> list[str]:
        labels = list(self.labels or ())
        found = []
        if labels and self.min_label_count:
            found.append(
                "--labels and --min_label_count: both choose the labels; leave one of them out"
            )
        if not problems.is_one_line(self.other_label) or not self.other_label.strip():
            found.append(f"--other_label={self.other_label}: expected a label, on one line")
        found += [
            f"--labels: {label!r} has a tab or a line end; expected one line"
            for label in labels
            if not problems.is_one_line(label)
        ]
        if labels and self.problem_type == REGRESSION:
            found.append("--labels: --problem_type=regression has none; leave one of them out")
        repeated = next((label for label in labels if labels.count(label) > 1), None)
        if repeated is not None:
            found.append(f"--labels={','.join(labels)}: {repeated!r} is there twice")
        if len(labels) == 1 and self.problem_type != MULTI:
            found.append(f"--labels={labels[0]}: one label; expected two or more")
        return found

    def _delimiter(self) -> Optional[str]:
        return "\t" if self.delimiter in ("tab", "\\t") else self.delimiter

    def task(self) -> Task:
        """Returns the task of that name, or the one that the files make."""
        if not self.is_custom:
            assert self.task_name
            return glue.find(self.task_name)
        train = self._training_split(self.train_file) if self.train_file else None
        evaluated = self._evaluated_split(self.eval_file) if self.eval_file else None
        return Task(
            labels=tuple(self.labels) if self.labels else None,
            train=train,
            dev={"": evaluated} if evaluated else {},
            test={"": self.texts(self.predict_file)} if self.predict_file else {},
            kind=self.problem_type,
            separator=self.label_separator,
        )

    def _split(self, path: str) -> Split:
        named = self.header or tables.is_json(path)
        usual_text: Column = USUAL_TEXT if named else FIRST
        usual_label: Column = USUAL_LABEL if named else SECOND
        template = _template(self.text_template) if self.text_template else None
        if template:
            usual_text = template.columns[0]
        return Split(
            file=os.path.abspath(path),
            text_a=_column(self.text_column) if self.text_column else usual_text,
            text_b=_column(self.text_b_column) if self.text_b_column else None,
            label=_column(self.label_column) if self.label_column else usual_label,
            header=self.header,
            index=_column(self.id_column) if self.id_column else None,
            quoting=self.quoting,
            delimiter=self._delimiter(),
            template=template,
        )

    def _evaluated_split(self, path: str) -> Split:
        """A file whose rows are evaluated on: with the columns of slices."""
        slices = tuple(map(_column, self.slice_column or ()))
        return dataclasses.replace(self._split(path), slices=slices)

    def _training_split(self, path: str) -> Split:
        """A file to train on: with what it is divided by, and what its held-out rows need."""
        if not (self.test_split or (self.eval_split and not self.eval_file)):
            return self._split(path)
        part_by = _column(self.split_column) if self.split_column else None
        return dataclasses.replace(self._evaluated_split(path), part_by=part_by)

    def texts(self, path: str) -> Split:
        """Returns how texts alone are read: a text a line where the file is no table."""
        split = dataclasses.replace(self._split(path), label=None, keep_blank=True)
        if not _is_lines(path):
            return split
        text_b = split.text_b if isinstance(split.text_b, int) else None
        return dataclasses.replace(
            split,
            file=path if path == files.STREAM else split.file,
            text_a=0,
            text_b=text_b,
            index=None,
            header=False,
            columns=1 if text_b is None else 0,
        )


def _is_lines(path: str) -> bool:
    """Whether a file to predict has a text a line, or the texts of a pair, and no header."""
    return path == files.STREAM or path.removesuffix(".gz").endswith(".txt")


def _column(column: str) -> Column:
    """A number from 1 as a position from 0; a name as it is."""
    return int(column) - 1 if re.fullmatch("[0-9]+", column) else column


def _template(text: str) -> Template:
    """Returns the template that a text with names of columns in braces is.

    Raises:
      ValueError: it has braces that do not close, or no column.
    """
    columns: list[Column] = []
    between = [""]
    for literal, name, form, conversion in string.Formatter().parse(text):
        between[-1] += literal
        if name is None:
            continue
        if form or conversion or not name.strip() or name == "0":
            raise ValueError(f"{{{name}}} is no column")
        columns.append(_column(name))
        between.append("")
    if not columns:
        raise ValueError("no column in it")
    return Template(tuple(columns), tuple(between))
