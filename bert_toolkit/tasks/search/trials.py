"""Runs the trials of a search one after the other, and keeps the best model."""

import glob
import json
import math
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Optional

import tensorflow.compat.v1 as tf
from absl import logging

from bert_toolkit.checkpoints.task_file import NAME as TASK_FILE
from bert_toolkit.errors import UserError
from bert_toolkit.io import files
from bert_toolkit.io.progress import duration
from bert_toolkit.tasks import best_model
from bert_toolkit.tasks.best_model import OnEvaluation
from bert_toolkit.tasks.search.proposals import JOURNAL, Proposals
from bert_toolkit.tasks.search.record import (
    COMPLETE,
    FAILED,
    FILE,
    PRUNED,
    RUNNING,
    TABLE,
    Record,
    Trial,
)
from bert_toolkit.tasks.search.space import SettingError, settings
from bert_toolkit.tasks.start import BEST
from bert_toolkit.training import output_dir

# What is removed from the directory of a finished trial; metrics, reports and logs stay.
_BULKY = ("checkpoint", "model.ckpt-*", "input.ckpt-*", "graph.pbtxt", "*.tf_record", f"{BEST}/*")


class Limits(NamedTuple):
    """When a search ends though there is more to try: None for never.

    Attributes:
      trials: how many are begun at most, those of earlier attempts included.
      seconds: of all trials together, after which none is begun.
    """

    trials: Optional[int]
    seconds: Optional[float]

    def are_reached(self, record: Record) -> bool:
        """Whether no trial is to be begun any more."""
        if self.trials is not None and len(record.trials) >= self.trials:
            return True
        used = sum(trial.seconds for trial in record.trials)
        return self.seconds is not None and used >= self.seconds


def open_record(record: Record, resume: bool, overwrite: bool) -> None:
    """Makes the output directory ready for a search: to go on, or to begin.

    Raises:
      UserError: there is something else in it, or a search that does not fit or is not to go on.
    """
    directory = record.directory
    if overwrite:
        _remove_all(directory)
    if record.read():
        if not resume:
            raise UserError(
                f"--noresume, but {record.path} is there; pass --resume to go on with it, or"
                f" {output_dir.to_begin_anew()}"
            )
        done = sum(trial is not record.unfinished() for trial in record.trials)
        logging.info("going on with the search in %s: %d trials are done", directory, done)
    elif not overwrite:
        _check_empty(directory)


def _check_empty(directory: str) -> None:
    """Refuses a directory of no search in which a model would be lost, also one in trial_1/."""
    trials = tf.io.gfile.glob(os.path.join(glob.escape(directory), "trial_*"))
    places = [directory, *sorted(trials)]
    for place in (os.path.join(place, name) for place in places for name in ("", BEST)):
        if tf.train.latest_checkpoint(place):
            raise UserError(
                f"{place.rstrip('/')}: a trained model is in it, which is of no search; expected"
                f" an empty directory, or that of a search; {output_dir.to_begin_anew()}"
            )


def _remove_all(directory: str) -> None:
    """Removes an earlier search with its trials, or another training, from a directory."""
    path = os.path.join(directory, FILE)
    if files.exists(path):
        try:
            numbers = [int(one["number"]) for one in json.loads(files.read_text(path))["trials"]]
        except (ValueError, TypeError, KeyError):
            logging.warning("%s: no record of a search; directories of trials are left", path)
            numbers = []
        for number in numbers:
            trial_directory = os.path.join(directory, f"trial_{number}")
            if files.exists(trial_directory):
                tf.io.gfile.rmtree(trial_directory)
    for name in (FILE, TABLE, JOURNAL):
        files.remove(os.path.join(directory, name))
    output_dir.begin(directory, resume=True, overwrite=True)


class Trials:
    """Runs trials."""

    def __init__(
        self,
        record: Record,
        proposals: Proposals,
        run_trial: Callable[[Trial, bool, OnEvaluation], dict[str, Any]],
        checkpoint: Optional[str] = None,
    ):
        """Takes what is needed.

        Args:
          record: of the trials before, and those to come.
          proposals: what to try.
          run_trial: trains and evaluates in the directory of the trial, going on from what is
            there or beginning anew, as the second argument says; returns the metrics.
          checkpoint: which model of a trial counts, best or last; None for the best if there is
            one.
        """
        self._record, self._proposals, self._run_trial = record, proposals, run_trial
        self._checkpoint = checkpoint

    def run(self, limits: Limits, total: Optional[int]) -> None:
        """Runs trials until there is nothing more to try, or a limit is reached.

        A trial that was cut off goes on first. `total` is how many there may be, for the log.

        Raises:
          UserError: a trial cannot be run; those before it are kept.
        """
        for trial in self._record.trials:
            if trial.state != RUNNING:
                self._remove_weights(trial)  # it may have been cut off before that
        unfinished = self._record.unfinished()
        if unfinished:
            self._run(unfinished, total, goes_on=True)
        while not limits.are_reached(self._record):
            values = self._proposals.propose()
            if values is None:
                return
            trial = Trial(len(self._record.trials) + 1, values)
            self._record.trials.append(trial)
            self._run(trial, total, goes_on=False)

    def _run(self, trial: Trial, total: Optional[int], goes_on: bool) -> None:
        """Runs a trial to its end, and takes note of it."""
        of_all = f" of {total}" if total else ""
        logging.info("trial %d%s: %s", trial.number, of_all, settings(trial.values))
        self._proposals.begin(trial)
        before = trial.seconds
        start = time.monotonic()

        def take_note() -> None:
            trial.seconds = round(before + time.monotonic() - start, 3)
            self._record.write()

        def on_evaluation(step: int, score: float) -> bool:
            trial.evaluations.append([step, score])
            if self._proposals.is_hopeless(trial):
                trial.state, trial.score = PRUNED, score
                logging.info("trial %d: worse than the median of those before", trial.number)
            take_note()
            return trial.state == PRUNED

        take_note()
        try:
            metrics = self._run_trial(trial, goes_on, on_evaluation)
            self._finish(trial, metrics)
        except UserError as error:
            if not _is_of_its_setting(error):
                self._record.trials.remove(trial)  # when that is mended, it begins anew
                raise
            trial.state, trial.problem = FAILED, str(error)
            logging.warning("trial %d: %s", trial.number, error)
        finally:
            take_note()  # of the time too where it is cut off
        self._proposals.finish(trial)
        self._remove_weights(trial)
        logging.info("trial %d: %s", trial.number, self._result(trial))

    def _finish(self, trial: Trial, metrics: dict[str, Any]) -> None:
        """Takes note of the score; keeps the model if it is the best."""
        record, directory = self._record, os.path.join(self._record.directory, trial.name)
        stored = json.loads(files.read_text(os.path.join(directory, TASK_FILE)))
        record.metric = record.metric or stored["metric"]
        name = f"eval_{record.metric}"
        if name not in metrics:
            known = ", ".join(key[5:] for key in metrics if key.startswith("eval_"))
            raise UserError(f"--best_metric={record.metric}: expected one of {known}")
        score = float(metrics[name])
        if math.isnan(score):
            trial.state, trial.problem = FAILED, f"{name} is not a number"
            return
        trial.score = score
        if trial.state == PRUNED:
            return
        before = self.best()
        if before is None or best_model.is_better(record.metric, score, before.score or 0.0):
            checkpoint = best_model.find(directory, self._checkpoint, None)
            best_model.keep(checkpoint, record.directory)
        trial.state = COMPLETE  # not before its model is kept, should this be cut off

    def best(self) -> Optional[Trial]:
        """Returns the best trial so far; None if none is complete."""
        lower = self._record.metric in best_model.LOWER_IS_BETTER
        return next(iter(self._record.ranked(lower)), None)

    def _remove_weights(self, trial: Trial) -> None:
        """Removes what takes space and is needed no more from a trial's directory."""
        directory = os.path.join(self._record.directory, trial.name)
        for pattern in _BULKY:
            for path in tf.io.gfile.glob(os.path.join(glob.escape(directory), pattern)):
                files.remove(path)

    def _result(self, trial: Trial) -> str:
        spent = duration(trial.seconds)
        if trial.score is None:
            return f"{trial.state} in {spent}"
        best = ", the best so far" if self.best() is trial else ""
        return f"{trial.state} in {spent}, {self._record.metric} {trial.score:.4f}{best}"


def _is_of_its_setting(error: UserError) -> bool:
    """Whether an error comes of a trial's setting, so that others may do."""
    is_nan = isinstance(error.__cause__, tf.train.NanLossDuringTrainingError)
    return is_nan or isinstance(error, SettingError) or str(error).startswith("out of memory")
