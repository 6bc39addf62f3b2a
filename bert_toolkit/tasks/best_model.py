"""The best model, not the last: evaluation while training, what is kept of it, and when to stop."""

import json
import os
from collections.abc import Callable, Mapping
from typing import Any, Optional

import tensorflow.compat.v1 as tf
from absl import logging

from bert_toolkit.checkpoints import checkpoint_files, model_directory
from bert_toolkit.checkpoints.task_file import NAME as TASK_FILE
from bert_toolkit.errors import UserError
from bert_toolkit.io import files, metrics_files
from bert_toolkit.tasks.start import BEST

SCORE = "score.json"
# Called with step and score; returns whether to stop training.
OnEvaluation = Callable[[int, float], bool]
# Metrics of which less is better.
LOWER_IS_BETTER = ("loss", "calibration_error", "mean_squared_error", "mean_absolute_error")


class BestModelKeeper(tf.train.CheckpointSaverListener):
    """Evaluates each checkpoint, keeps the best model, and stops when it is not bettered.

    What it knows is kept with the best model, so that a run that is interrupted goes on with it.
    """

    def __init__(
        self,
        directory: str,
        metric: str,
        every: int,
        patience: int,
        evaluate: Callable[[], Mapping[str, Any]],
        on_evaluation: Optional[OnEvaluation] = None,
    ):
        """Makes the listener.

        Args:
          directory: the output directory, with the checkpoints.
          metric: what decides, a metric that the task's `score` returns, without "eval_".
          every: steps between evaluations; the last step is not evaluated if it is much closer
            to the last but one.
          patience: evaluations without a better one after which to stop; 0 for never.
          evaluate: returns the metrics of the latest checkpoint; `directory` has it afterwards.
          on_evaluation: called with step and score after each one; training ends where it returns
            True.
        """
        self._on_evaluation = on_evaluation
        self._directory, self._metric, self._patience = directory, metric, patience
        self._every, self._evaluate = every, evaluate
        self._best: dict[str, Any] = read_score(directory) or {}
        if self._best and self._best["metric"] != metric:
            self._best = {}

    def is_over(self) -> bool:
        """Whether the model has not become better for too long."""
        return bool(self._patience) and self._best.get("evaluations_since", 0) >= self._patience

    def after_save(self, session, global_step_value) -> bool:
        step = int(global_step_value)
        if step - self._best.get("last_step", 0) < max(1, self._every // 2):
            return False
        scores = self._evaluate()
        name = f"eval_{self._metric}"
        if name not in scores:
            known = ", ".join(key.removeprefix("eval_") for key in scores)
            raise UserError(f"--best_metric={self._metric}: expected one of {known}")
        self._take_note(tf.train.latest_checkpoint(self._directory), step, scores[name])
        self._log(scores, step)
        if self.is_over():
            logging.info(
                "%s not better for %d evaluations: stopping; the best was %.4f at step %d",
                self._metric,
                self._patience,
                self._best["score"],
                self._best["step"],
            )
        stops = self._on_evaluation is not None and self._on_evaluation(step, scores[name])
        return stops or self.is_over()

    def _take_note(self, checkpoint: str, step: int, score: float) -> None:
        better = not self._best or is_better(self._metric, score, self._best["score"])
        logging.info(
            "step %d: %s %.4f%s", step, self._metric, score, ", the best so far" if better else ""
        )
        if better:
            keep(checkpoint, self._directory)
            self._best = {"metric": self._metric, "score": score, "step": step}
            self._best["evaluations_since"] = 0
        else:
            self._best["evaluations_since"] += 1
        self._best["last_step"], self._best["last_score"] = step, score
        path = os.path.join(self._directory, BEST, SCORE)
        files.write_text(path, json.dumps(self._best, indent=2) + "\n")

    def _log(self, scores: Mapping[str, Any], step: int) -> None:
        """Writes the metrics of a step to TensorBoard and to the log for machines."""
        numbers = {name: float(value) for name, value in scores.items()}
        path = os.path.join(self._directory, metrics_files.EVALUATION_LOG)
        with tf.io.gfile.GFile(path, "a") as log:
            log.write(json.dumps({"step": step, **numbers}) + "\n")
        values = [tf.Summary.Value(tag=name, simple_value=value) for name, value in scores.items()]
        writer = tf.summary.FileWriterCache.get(os.path.join(self._directory, "eval"))
        writer.add_summary(tf.Summary(value=values), step)
        writer.flush()


def keep(checkpoint: str, directory: str) -> None:
    """Makes `directory`/best the model of a checkpoint: weights without optimizer, and all files.

    The model that was there is removed when the new one is whole.
    """
    best = os.path.join(directory, BEST)
    files.make_directory(best, "output_dir")
    source = os.path.dirname(checkpoint)
    for name in (*model_directory.FILES, TASK_FILE):
        if files.exists(os.path.join(source, name)):
            files.copy(os.path.join(source, name), os.path.join(best, name))
    before = tf.train.latest_checkpoint(best)
    prefix = os.path.join(best, os.path.basename(checkpoint))
    checkpoint_files.save(prefix, checkpoint_files.read(checkpoint))
    tf.train.update_checkpoint_state(best, prefix)
    if before and before != prefix:
        tf.train.remove_checkpoint(before)


def read_score(directory: str) -> Optional[dict[str, Any]]:
    """Returns what is known of the best model below an output directory; None if there is none."""
    path = os.path.join(directory, BEST, SCORE)
    return json.loads(files.read_text(path)) if files.exists(path) else None


def find(directory: str, wanted: Optional[str], otherwise: Optional[str]) -> str:
    """Returns the checkpoint to evaluate and to predict with.

    Args:
      directory: the output directory.
      wanted: "best", "last", a path, or None: the best if there is one, else the last.
      otherwise: a checkpoint where the directory has none.

    Raises:
      UserError: there is no such checkpoint.
    """
    best = tf.train.latest_checkpoint(os.path.join(directory, BEST))
    last = tf.train.latest_checkpoint(directory)
    if wanted not in (None, "best", "last"):
        return checkpoint_files.find(wanted, "checkpoint")
    found = {"best": best, "last": last, None: best or last or otherwise}[wanted]
    if found is None:
        if wanted is None:
            raise UserError(f"{directory}: no checkpoint in it; expected a trained model")
        other = "last" if wanted == "best" and last else "best" if best else None
        advice = f"pass --checkpoint={other}" if other else "leave the flag out, or train first"
        raise UserError(f"--checkpoint={wanted}: {directory} has none; {advice}")
    return found


def is_better(metric: str, score: float, than: float) -> bool:
    """Whether a score of a metric, named without "eval_", is better than another."""
    return score < than if metric in LOWER_IS_BETTER else score > than
