"""The file beside a model that says what it predicts: kind, labels, metric."""

import json
import os
from collections.abc import Sequence
from typing import Optional

from bert_toolkit.checkpoints import hugging_face
from bert_toolkit.io import files
from bert_toolkit.problems import MULTI, REGRESSION, SINGLE, Problem

NAME = "task.json"
USUAL_METRIC = {SINGLE: "accuracy", MULTI: "f1_micro", REGRESSION: "spearman"}


def read(directories: Sequence[str]) -> Optional[Problem]:
    """Returns what the model in the first directory that has one predicts; None if none has.

    The directory is one that `write` wrote to, or one of Hugging Face's.
    """
    for directory in directories:
        path = os.path.join(directory, NAME)
        if files.exists(path):
            task = json.loads(files.read_text(path))
            return Problem(task["problem_type"], tuple(task["labels"]))
        path = os.path.join(directory, hugging_face.CONFIG)
        if files.exists(path):
            return hugging_face.problem_of(path)
    return None


def write(directory: str, problem: Problem, metric: Optional[str] = None) -> None:
    """Writes what a model predicts, and a metric that it is judged by, else the usual one."""
    task = {
        "problem_type": problem.kind,
        "labels": problem.labels,
        "metric": metric or USUAL_METRIC[problem.kind],
    }
    files.write_text(os.path.join(directory, NAME), json.dumps(task, indent=2) + "\n")
