"""The record of a search: its trials, kept in search.json, and the table made of them."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from bert_toolkit.errors import UserError
from bert_toolkit.io import files
from bert_toolkit.options import spelled
from bert_toolkit.tasks.search.space import Values

FILE, TABLE = "search.json", "trials.tsv"

# States of a trial.
RUNNING, COMPLETE, PRUNED, FAILED = "running", "complete", "pruned", "failed"


@dataclasses.dataclass
class Trial:
    """A training with one setting.

    Attributes:
      number: from 1, in the order in which they were begun.
      values: the setting.
      state: one of the above; running also where it was cut off.
      score: on the dev data, of what decides; None where there is none.
      seconds: that it took, all attempts together.
      evaluations: the scores while it trained, as [step, score].
      problem: why it failed.
    """

    number: int
    values: Values
    state: str = RUNNING
    score: Optional[float] = None
    seconds: float = 0.0
    evaluations: list[list[float]] = dataclasses.field(default_factory=list)
    problem: Optional[str] = None

    @property
    def name(self) -> str:
        """Of its directory, below the output directory."""
        return f"trial_{self.number}"


class Record:
    """The trials of a search, in a file that is written anew at every change."""

    def __init__(
        self, directory: str, searched: Sequence[str], fixed: Mapping[str, Any], metric: str = ""
    ):
        """Makes an empty record.

        Args:
          directory: the output directory.
          searched: the names of the options that trials differ in.
          fixed: all other options that decide what a trial gives.
          metric: what decides, without "eval_"; empty as long as it is not known.
        """
        self.directory, self.searched, self.metric = directory, list(searched), metric
        self.fixed = json.loads(json.dumps(fixed))
        self.trials: list[Trial] = []

    @property
    def path(self) -> str:
        """Of the file."""
        return os.path.join(self.directory, FILE)

    def read(self) -> bool:
        """Takes over the trials that the file has; returns whether there is a file.

        Raises:
          UserError: they differ in other options, or cannot be compared with those to come.
        """
        if not files.exists(self.path):
            return False
        try:
            stored = json.loads(files.read_text(self.path))
            trials = [Trial(**trial) for trial in stored["trials"]]
            fixed, searched, metric = stored["fixed"], stored["searched"], stored["metric"]
        except (ValueError, TypeError, KeyError):
            raise UserError(f"{self.path}: no record of a search; remove it") from None
        advice = "pass the same, or another --output_dir, or --overwrite to begin anew"
        if sorted(searched) != sorted(self.searched):
            before, now = ", ".join(searched), ", ".join(self.searched)
            raise UserError(f"{self.path}: the trials there tried {before}, now {now}; {advice}")
        for name, value in self.fixed.items():
            if fixed.get(name) != value:
                raise UserError(
                    f"{self.path}: the trials there had --{name}={spelled(fixed.get(name))},"
                    f" now {spelled(value)}; {advice}"
                )
        self.trials, self.metric = trials, metric
        return True

    def write(self) -> None:
        """Writes the file and the table."""
        content = {
            "metric": self.metric,
            "searched": self.searched,
            "fixed": self.fixed,
            "trials": [dataclasses.asdict(trial) for trial in self.trials],
        }
        files.write_text(self.path, json.dumps(content, indent=2) + "\n")
        lines = ["\t".join(row) + "\n" for row in self.rows(self.trials)]
        files.write_text(os.path.join(self.directory, TABLE), "".join(lines))

    def rows(self, trials: Sequence[Trial]) -> list[list[str]]:
        """Returns a table of trials with its header."""
        header = ["trial", "state", f"eval_{self.metric or 'score'}", "seconds", *self.searched]
        return [header] + [
            [
                trial.name,
                trial.state,
                "" if trial.score is None else f"{trial.score:.6f}",
                f"{trial.seconds:.1f}",
                *(spelled(trial.values[name]) for name in self.searched),
            ]
            for trial in trials
        ]

    def unfinished(self) -> Optional[Trial]:
        """Returns the trial that was cut off, if one was."""
        return next((trial for trial in self.trials if trial.state == RUNNING), None)

    def same(self, values: Values) -> Optional[Trial]:
        """Returns the trial with a setting, if there is one."""
        return next((trial for trial in self.trials if trial.values == values), None)

    def ranked(self, lower_is_better: bool) -> list[Trial]:
        """Returns the complete trials, the best first, of equal ones the earlier."""
        scored = [trial for trial in self.trials if trial.state == COMPLETE]
        sign = 1 if lower_is_better else -1
        return sorted(scored, key=lambda trial: sign * (trial.score or 0.0))
