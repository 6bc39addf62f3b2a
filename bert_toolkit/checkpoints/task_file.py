"""The file beside a model that says what it predicts: kind, labels, metric, settings."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from bert_toolkit.checkpoints import hugging_face
from bert_toolkit.errors import UserError
from bert_toolkit.io import files
from bert_toolkit.problems import (
    ANSWERING,
    COMMANDS,
    MULTI,
    REGRESSION,
    SINGLE,
    TAGGING,
    Problem,
)

NAME = "task.json"
USUAL_METRIC = {
    SINGLE: "accuracy",
    MULTI: "f1_micro",
    REGRESSION: "spearman",
    TAGGING: "f1",
    ANSWERING: "f1",
}


def read(directories: Sequence[str], kinds: Sequence[str] = ()) -> Optional[Problem]:
    """Returns what the model in the first directory that has one predicts; None if none has.

    The directory is one that `write` wrote to, or one of Hugging Face's.

    Raises:
      UserError: `kinds` are given, and the model is of another one.
    """
    for directory in directories:
        path = os.path.join(directory, NAME)
        found: Optional[Problem] = None
        if files.exists(path):
            task = json.loads(files.read_text(path))
            found = Problem(task["problem_type"], tuple(task["labels"]))
        elif files.exists(os.path.join(directory, hugging_face.CONFIG)):
            path = os.path.join(directory, hugging_face.CONFIG)
            found = hugging_face.problem_of(path)
        else:
            continue
        if found and kinds and found.kind not in kinds:
            raise UserError(
                f"{path}: a model for {found.kind}; expected one for {' or '.join(kinds)}; use"
                f" {COMMANDS[found.kind]}, or another model"
            )
        return found
    return None


def settings(directories: Sequence[str]) -> dict[str, Any]:
    """Returns the settings of the task in the first directory that has any."""
    for directory in directories:
        path = os.path.join(directory, NAME)
        if files.exists(path):
            return json.loads(files.read_text(path)).get("settings", {})
        path = os.path.join(directory, hugging_face.CONFIG)
        if files.exists(path):
            return hugging_face.settings_of(path)
    return {}


def write(
    directory: str,
    problem: Problem,
    metric: Optional[str] = None,
    settings: Optional[Mapping[str, Any]] = None,
) -> None:
    """Writes what a model predicts.

    Args:
      directory: of the model.
      problem: what it predicts.
      metric: what it is judged by, if that is not the usual one.
      settings: what else its task has to know in predicting.
    """
    task: dict[str, Any] = {
        "problem_type": problem.kind,
        "labels": problem.labels,
        "metric": metric or USUAL_METRIC[problem.kind],
    }
    if settings:
        task["settings"] = dict(settings)
    files.write_text(os.path.join(directory, NAME), json.dumps(task, indent=2) + "\n")
