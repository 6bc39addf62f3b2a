"""Classification tasks: which files, which columns, which labels. Adding one is adding to TASKS."""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Any, Optional, Union

from bert_toolkit.errors import UserError
from bert_toolkit.problems import REGRESSION, SINGLE

Column = Union[int, str]


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
      keep: decides by its fields whether a row belongs to the task.
      index: column with the name of a row, if there is one.
      quoting: as in tables.Layout; GLUE's files have quotes as text.
    """

    file: str
    text_a: Column
    text_b: Optional[Column] = None
    label: Optional[Column] = None
    header: bool = True
    columns: int = 0
    keep: Optional[Callable[[Any], bool]] = None
    index: Optional[Column] = None
    quoting: Optional[bool] = False


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


def _pairs(labels: tuple[str, ...], a: int, b: int, label: int, **more: Any) -> Task:
    """A task of GLUE's usual layout, of two texts."""
    return Task(
        labels=labels,
        train=Split("train.tsv", text_a=a, text_b=b, label=label),
        dev={"": Split("dev.tsv", text_a=a, text_b=b, label=label)},
        test={
            "": Split(
                "test.tsv", text_a=more.pop("test_a", a), text_b=more.pop("test_b", b), index=0
            )
        },
        **more,
    )


def _xnli(language: str) -> Task:
    """Training data machine-translated to a language, and the rows of dev and test in it."""

    def is_in_language(fields: list[str]) -> bool:
        return fields[0] == language

    rows = Split("xnli.dev.tsv", text_a=6, text_b=7, label=1, keep=is_in_language)
    return Task(
        labels=NLI_LABELS,
        train=Split(f"multinli/multinli.train.{language}.tsv", text_a=0, text_b=1, label=2),
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

# GLUE's in the layout of gluebenchmark.com: https://arxiv.org/abs/1804.07461
TASKS = {
    "cola": Task(
        labels=BINARY,
        train=Split("train.tsv", text_a=3, label=1, header=False, columns=4),
        dev={"": Split("dev.tsv", text_a=3, label=1, header=False, columns=4)},
        test={"": Split("test.tsv", text_a=1, index=0)},
        metric="matthews",
        submissions={"": "CoLA.tsv"},
    ),
    "sst-2": Task(
        labels=BINARY,
        train=Split("train.tsv", text_a=0, label=1),
        dev={"": Split("dev.tsv", text_a=0, label=1)},
        test={"": Split("test.tsv", text_a=1, index=0)},
        submissions={"": "SST-2.tsv"},
    ),
    "mrpc": _pairs(BINARY, 3, 4, 0, metric="f1", submissions={"": "MRPC.tsv"}),
    "qqp": _pairs(BINARY, 3, 4, 5, test_a=1, test_b=2, metric="f1", submissions={"": "QQP.tsv"}),
    "sts-b": dataclasses.replace(
        _pairs((), 7, 8, 9, metric="pearson", submissions={"": "STS-B.tsv"}), kind=REGRESSION
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
            "_diagnostic": Split("diagnostic.tsv", text_a=1, text_b=2, index=0),
        },
        submissions={"": "MNLI-m.tsv", "_mismatched": "MNLI-mm.tsv", "_diagnostic": "AX.tsv"},
    ),
    "qnli": _pairs(QNLI_LABELS, 1, 2, 3, submissions={"": "QNLI.tsv"}),
    "rte": _pairs(QNLI_LABELS, 1, 2, 3, submissions={"": "RTE.tsv"}),
    "wnli": _pairs(BINARY, 1, 2, 3, submissions={"": "WNLI.tsv"}),
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
