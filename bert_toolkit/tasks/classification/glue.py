"""Classification tasks: which files, which columns, which labels. Adding one is adding to TASKS."""

import dataclasses
import difflib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional, Union

from bert_toolkit.errors import UserError
from bert_toolkit.io import files, tables
from bert_toolkit.problems import REGRESSION, SINGLE, is_number, whole

Column = Union[int, str]


@dataclasses.dataclass(frozen=True)
class Template:
    """A text made of several columns.

    Attributes:
      columns: in the order in which they are filled in.
      between: what stands before, between and behind them; one more than columns.
    """

    columns: tuple[Column, ...]
    between: tuple[str, ...]

    def fill(self, values: Sequence[str]) -> str:
        """Returns the text with the values of the columns."""
        return "".join(itertools.chain(*zip(self.between, (*values, ""))))


@dataclasses.dataclass(frozen=True)
class Split:
    """A file of a data set; columns are names or positions, from 0, -1 for the last.

    Attributes:
      file: path below --data_dir.
      text_a: column of the text.
      text_b: column of the second text, if there are two.
      label: column of the label; None if there is none.
      header: whether the first line names the columns.
      columns: how many there are, where no header tells; 0 if the first row does.
      names: of a task's file, the columns in the order in which they are published.
      only: a column and what it says in the rows that belong to the task, if not all do.
      index: column with the name of a row, if there is one.
      quoting: as in tables.TableFormat; GLUE's files have quotes as text.
      delimiter: as in tables.TableFormat.
      keep_blank: whether blank lines are rows, with empty texts, rather than left out.
      template: what makes the first text of several columns, in place of text_a.
      part_by: column that says which rows stay in one part when the data is divided.
      slices: columns by which metrics are listed.
    """

    file: str
    text_a: Column
    text_b: Optional[Column] = None
    label: Optional[Column] = None
    header: bool = True
    columns: int = 0
    names: tuple[str, ...] = ()
    only: Optional[tuple[Column, str]] = None
    index: Optional[Column] = None
    quoting: Optional[bool] = False
    delimiter: Optional[str] = None
    keep_blank: bool = False
    template: Optional[Template] = None
    part_by: Optional[Column] = None
    slices: tuple[Column, ...] = ()


@dataclasses.dataclass(frozen=True)
class Task:
    """A classification task.

    Attributes:
      labels: in the order of their ids; None if the training data tells.
      train: the split to train on.
      dev: ending of the result files' names -> split to evaluate on; "" for the main one.
      test: likewise, the splits to predict.
      kind: the kind of problem; None if the training data tells.
      metric: what it is judged by, a name of scores.py without "eval_"; None for the kind's usual.
      submissions: likewise, ending -> name of the file to send in, as GLUE wants it.
      synonyms: other spellings of labels in the files.
      separator: between the labels of a row that has several.
    """

    labels: Optional[tuple[str, ...]]
    train: Optional[Split]
    dev: Mapping[str, Split]
    test: Mapping[str, Split]
    kind: Optional[str] = SINGLE
    metric: Optional[str] = None
    submissions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    synonyms: Mapping[str, str] = dataclasses.field(default_factory=dict)
    separator: Optional[str] = None

    def splits(self) -> list[Split]:
        """Returns all splits: to train on, to evaluate on, to predict."""
        train = [self.train] if self.train else []
        return [*train, *self.dev.values(), *self.test.values()]

    def has_label(self, value: str) -> bool:
        """Whether a file may have `value` in the column of labels."""
        if self.kind == REGRESSION:
            return is_number(value)
        value = whole(value)
        return self.synonyms.get(value, value) in (self.labels or ())


def _task(labels: tuple[str, ...], train: Split, test: Split, **more: Any) -> Task:
    """A task with a dev.tsv laid out as its train.tsv."""
    dev = dataclasses.replace(train, file="dev.tsv")
    return Task(labels=labels, train=train, dev={"": dev}, test={"": test}, **more)


def _pairs(
    labels: tuple[str, ...], names: tuple[str, ...], label: str, test_names: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The labels and files of a task of two texts, which are the last two columns of its test.tsv.

    Args:
      labels: of the task.
      names: the columns of train.tsv and dev.tsv.
      label: which of them has the label.
      test_names: the columns of test.tsv; without them, those of train.tsv but for the label.
    """
    test_names = test_names or tuple(name for name in names if name != label)
    a, b = test_names[-2:]
    train = Split("train.tsv", text_a=a, text_b=b, label=label, names=names)
    test = Split("test.tsv", text_a=a, text_b=b, index=test_names[0], names=test_names)
    return {"labels": labels, "train": train, "test": test}


def _mnli(file: str, annotators: int = 0) -> Split:
    """A file of MNLI, with as many labels a row as there were annotators; none for a test."""
    labels = tuple(f"label{number}" for number in range(1, annotators + 1))
    names = ("index", "promptID", "pairID", "genre", *_PARSES, "sentence1", "sentence2")
    if not annotators:
        return Split(file, text_a="sentence1", text_b="sentence2", index="index", names=names)
    names = (*names, *labels, "gold_label")
    return Split(file, text_a="sentence1", text_b="sentence2", label="gold_label", names=names)


def _xnli(language: str) -> Task:
    """Training data machine-translated to a language, and the rows of dev and test in it."""
    rows = Split(
        "xnli.dev.tsv",
        text_a="sentence1",
        text_b="sentence2",
        label="gold_label",
        names=_XNLI,
        only=("language", language),
    )
    train = Split(
        f"multinli/multinli.train.{language}.tsv",
        text_a="premise",
        text_b="hypo",
        label="label",
        names=("premise", "hypo", "label"),
    )
    return Task(
        labels=NLI_LABELS,
        train=train,
        dev={"": rows},
        test={"": dataclasses.replace(rows, file="xnli.test.tsv")},
        synonyms={"contradictory": "contradiction"},
    )


NLI_LABELS = ("contradiction", "entailment", "neutral")
QNLI_LABELS = ("entailment", "not_entailment")
BINARY = ("0", "1")
CUSTOM = "custom"
XNLI_LANGUAGES = (
    "ar",
    "bg",
    "de",
    "el",
    "en",
    "es",
    "fr",
    "hi",
    "ru",
    "sw",
    "th",
    "tr",
    "ur",
    "vi",
    "zh",
)
_PARSES = tuple(
    f"{sentence}_{parse}"
    for parse in ("binary_parse", "parse")
    for sentence in ("sentence1", "sentence2")
)
_XNLI = (
    *("language", "gold_label", *_PARSES, "sentence1", "sentence2", "promptID", "pairID", "genre"),
    *(f"label{number}" for number in range(1, 6)),
    *("sentence1_tokenized", "sentence2_tokenized", "match"),
)
_STRINGS = ("#1 ID", "#2 ID", "#1 String", "#2 String")
_SENTENCES = ("sentence1", "sentence2")

# GLUE's in the layout of gluebenchmark.com: https://arxiv.org/abs/1804.07461
TASKS = {
    "cola": _task(
        labels=BINARY,
        train=Split(
            "train.tsv",
            text_a="sentence",
            label="label",
            header=False,
            names=("source", "label", "mark", "sentence"),
        ),
        test=Split("test.tsv", text_a="sentence", index="index|id", names=("index", "sentence")),
        metric="matthews",
        submissions={"": "CoLA.tsv"},
    ),
    "sst-2": _task(
        labels=BINARY,
        train=Split("train.tsv", text_a="sentence", label="label", names=("sentence", "label")),
        test=Split("test.tsv", text_a="sentence", index="index|id", names=("index", "sentence")),
        submissions={"": "SST-2.tsv"},
    ),
    "mrpc": _task(
        **_pairs(BINARY, ("Quality", *_STRINGS), "Quality", ("index", *_STRINGS)),
        metric="f1",
        submissions={"": "MRPC.tsv"},
    ),
    "qqp": _task(
        **_pairs(
            BINARY,
            ("id", "qid1", "qid2", "question1", "question2", "is_duplicate"),
            "is_duplicate",
            ("id", "question1", "question2"),
        ),
        metric="f1",
        submissions={"": "QQP.tsv"},
    ),
    "sts-b": _task(
        **_pairs(
            (),
            (
                *("index", "genre", "filename", "year", "old_index", "source1", "source2"),
                *(*_SENTENCES, "score"),
            ),
            "score",
        ),
        kind=REGRESSION,
        metric="pearson",
        submissions={"": "STS-B.tsv"},
    ),
    "mnli": Task(
        labels=NLI_LABELS,
        train=_mnli("train.tsv", annotators=1),
        dev={
            "": _mnli("dev_matched.tsv", annotators=5),
            "_mismatched": _mnli("dev_mismatched.tsv", annotators=5),
        },
        test={
            "": _mnli("test_matched.tsv"),
            "_mismatched": _mnli("test_mismatched.tsv"),
            "_diagnostic": Split(
                "diagnostic.tsv",
                text_a="sentence1",
                text_b="sentence2",
                index="index",
                names=("index", *_SENTENCES),
            ),
        },
        submissions={"": "MNLI-m.tsv", "_mismatched": "MNLI-mm.tsv", "_diagnostic": "AX.tsv"},
    ),
    "qnli": _task(
        **_pairs(QNLI_LABELS, ("index", "question", "sentence", "label"), "label"),
        submissions={"": "QNLI.tsv"},
    ),
    "rte": _task(
        **_pairs(QNLI_LABELS, ("index", *_SENTENCES, "label"), "label"),
        submissions={"": "RTE.tsv"},
    ),
    "wnli": _task(
        **_pairs(BINARY, ("index", *_SENTENCES, "label"), "label"),
        submissions={"": "WNLI.tsv"},
    ),
    "xnli": _xnli("zh"),
    **{f"xnli-{language}": _xnli(language) for language in XNLI_LANGUAGES},
}


def find(name: str) -> Task:
    """Returns the task of that name, in any casing; if there is none, a UserError lists them."""
    task = TASKS.get(name.lower())
    if task is None:
        close = difflib.get_close_matches(name.lower(), [*TASKS, CUSTOM], 1)
        hint = f" Did you mean {close[0]}?" if close else ""
        known = [task for task in TASKS if not task.startswith("xnli-")]
        raise UserError(
            f"--task_name={name}: unknown task. Known: {', '.join(known)} (xnli-LANGUAGE),"
            f" {CUSTOM}.{hint}"
        )
    return task


# --- Which layout a file is in ---


def place_columns(task_name: str, path: str, split: Split) -> tuple[Split, str]:
    """Finds out how a task's file is laid out, by its first two lines.

    It may have the layout of any of the task's files, as test files with labels do, or a header
    that names the columns which are needed among others.

    Returns:
      The split with positions for columns, and a warning if these were not known by name, or "".

    Raises:
      UserError: it is another task's file, or has no header, or other columns.
    """
    task = find(task_name)
    lines = itertools.islice((line for line in files.read_lines(path) if line.strip()), 2)
    rows = [[field.strip().lstrip("\ufeff") for field in line.split("\t")] for line in lines]
    if not rows:
        return _placed(split, split, split.names), ""
    first = rows[0]
    # Those of other files of the task, if they have the labels that are needed.
    others = [other for other in task.splits() if other.label or not split.label]
    layouts = [split, *(other for other in others if other.names != split.names)]
    for layout in layouts:
        if _fits(layout, task, rows):
            return _placed(layout, split, first if layout.header else layout.names), ""
    known = {
        name: found.file
        for name, other in TASKS.items()
        for found in reversed(other.splits())  # the first counts
        if not name.startswith("xnli-") and _fits(found, other, rows)
    }
    if known:
        raise UserError(f"{path}: {_of_another(task_name, split, first, known)}")
    for layout in layouts:
        if layout.header and _needed(layout, split) <= set(_folded(first)):
            return _placed(layout, split, first), ""
    alike = [layout for layout in layouts if _is_alike(layout, task, first)]
    if alike:
        layout = max(alike, key=lambda layout: len({*_folded(first)} & {*_folded(layout.names)}))
        warning = (
            f"{path}: its header is {tables.listing(first)}, not {', '.join(layout.names)};"
            f" columns are taken by position: {', '.join(_needed_names(layout, split))}"
        )
        return _placed(layout, split, layout.names), warning
    raise UserError(f"{path}: {_misfit(task_name, task, split, path, first, layouts)}")


def _fits(layout: Split, task: Task, rows: list[list[str]]) -> bool:
    """Whether a file begins as a layout does: its header, or as many columns; and a label."""

    def has_label(row: list[str]) -> bool:
        if len(row) != len(layout.names):
            return False
        return layout.label is None or task.has_label(row[layout.names.index(str(layout.label))])

    if not layout.header:
        return any(has_label(row) for row in rows)
    return _folded(rows[0]) == _folded(layout.names) and (len(rows) < 2 or has_label(rows[1]))


def _is_alike(layout: Split, task: Task, header: list[str]) -> bool:
    """Whether an unknown header may be a layout's by other names, none of which is elsewhere."""
    if not layout.header or len(header) != len(layout.names):
        return False
    if _lacks_header(layout, task, header) or not all(header) or any(map(is_number, header)):
        return False
    names = _folded(layout.names)
    return all(name == there for name, there in zip(_folded(header), names) if name in names)


def _lacks_header(layout: Split, task: Task, first: list[str]) -> bool:
    """Whether the first line of a file is a row of a layout that has a header above it."""
    if not layout.header or len(first) != len(layout.names):
        return False
    if layout.label is not None:
        return task.has_label(first[layout.names.index(str(layout.label))])
    return first[0].isdigit()


def _placed(layout: Split, split: Split, names: Sequence[str]) -> Split:
    """Returns a split with positions for columns: those of a layout, in a file of these columns."""
    positions = {name: number for number, name in enumerate(_folded(names))}

    def place(column: Optional[Column]) -> Optional[Column]:
        found = [positions[name] for name in _folded(str(column).split("|")) if name in positions]
        return found[0] if found else None

    text_a, only = place(layout.text_a), layout.only
    language = place(only[0]) if only else None
    assert text_a is not None
    return dataclasses.replace(
        layout,
        file=split.file,
        text_a=text_a,
        text_b=place(layout.text_b),
        label=place(layout.label) if split.label is not None else None,
        index=place(split.index),
        only=(language, only[1]) if only and language is not None else None,
        columns=0 if layout.header else len(layout.names),
    )


def _folded(names: Iterable[str]) -> list[str]:
    return [name.casefold() for name in names]


def _needed_names(layout: Split, split: Split) -> list[str]:
    """Returns the names of the columns without which a file cannot be read."""
    label = layout.label if split.label is not None else None
    only = layout.only[0] if layout.only else None
    return [str(name) for name in (only, layout.text_a, layout.text_b, label) if name is not None]


def _needed(layout: Split, split: Split) -> set[str]:
    return set(_folded(_needed_names(layout, split)))


def _of_another(task_name: str, split: Split, first: list[str], known: Mapping[str, str]) -> str:
    """Says that a file is another one, of the tasks and files in `known`."""
    if task_name.lower() in known:
        where = f"{known[task_name.lower()]} of {task_name}"
        advice = f"put the task's own {split.file} there"
    else:
        where = " and ".join(f"{file} of {name}" for name, file in known.items())
        advice = f"pass --task_name={' or '.join(known)}, or the --data_dir of {task_name}"
    return f"columns {tables.listing(first)}, as in {where}; expected {_expected(split)}; {advice}"


def _misfit(
    task_name: str, task: Task, split: Split, path: str, first: list[str], layouts: list[Split]
) -> str:
    """Says what a file has instead of the columns of a task, and how else it can be read."""
    flag = "--train_file" if split is task.train else "--predict_file"
    flag = "--eval_file" if split in task.dev.values() else flag
    headless = [layout for layout in layouts if _lacks_header(layout, task, first)]
    if not headless:
        return (
            f"{len(first)} columns, {tables.listing(first)}; expected {_expected(split)}, for"
            f" {task_name}; other columns are read with {flag}, --text_column and --label_column in"
            " place of --task_name and --data_dir"
        )
    names = headless[0].names
    columns = {
        "text_column": headless[0].text_a,
        "text_b_column": headless[0].text_b,
        "label_column": split.label and headless[0].label,
    }
    numbers = " ".join(
        f"--{name}={names.index(str(column)) + 1}" for name, column in columns.items() if column
    )
    return (
        f"no header, line 1 is a row: {tables.listing(first)}; expected {_expected(split)}; put"
        f" that line before it, or read it with {flag}={path} --noheader {numbers} in place of"
        " --task_name and --data_dir"
    )


def _expected(split: Split) -> str:
    if not split.header:
        return f"{len(split.names)} columns without a header ({', '.join(split.names)})"
    if len(split.names) <= 6:
        return f"the header {', '.join(split.names)}"
    needed = ", ".join(_needed_names(split, split))
    return f"a header of {len(split.names)} columns, with {needed} among them"
