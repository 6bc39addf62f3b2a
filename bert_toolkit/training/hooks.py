"""What an Estimator shows while it runs: losses, rates and the time left."""

import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Optional

import tensorflow.compat.v1 as tf
from absl import logging
from tensorflow import profiler
from tqdm import tqdm

from bert_toolkit.io.metrics_files import TRAINING_LOG
from bert_toolkit.io.progress import Progress, duration


class TrainingProgress(tf.train.SessionRunHook):
    """Shows a line of values, rates and the time left every so many steps; on a terminal, a bar."""

    def __init__(
        self,
        last_step: int,
        every: int,
        values: Mapping[str, Any],
        tokens: Any,
        model_dir: Optional[str],
    ):
        """Makes the hook.

        Args:
          last_step: the step at which training ends.
          every: steps between lines; the first and the last step get one too.
          values: name -> scalar tensor to show.
          tokens: scalar, real tokens in a batch.
          model_dir: where the rates are written for TensorBoard, and the log for machines; None
            for nowhere.
        """
        self._last_step, self._every, self._model_dir = last_step, every, model_dir
        self._values, self._tokens_per_batch = dict(values), tokens
        self._bar: Optional[tqdm] = None

    def begin(self):
        self._global_step = tf.train.get_or_create_global_step()
        if self._model_dir:
            self._writer = tf.summary.FileWriterCache.get(self._model_dir)

    def after_create_session(self, session, coord):
        self._step = session.run(self._global_step)
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=self._last_step,
                initial=self._step,
                unit=" steps",
                leave=False,
                desc="training",
            )
        self._line_step = self._step
        self._line_time = time.monotonic()
        self._tokens = 0

    def before_run(self, run_context):
        step = self._step + 1
        fetches = {"tokens": self._tokens_per_batch}
        if step % self._every == 0 or step in (1, self._last_step):
            fetches["values"] = self._values
        return tf.train.SessionRunArgs(fetches)

    def after_run(self, run_context, run_values):
        results = run_values.results
        self._step += 1
        self._tokens += int(results["tokens"])
        if self._bar is not None:
            self._bar.update()
        if "values" in results:
            self._show(results["values"])

    def _show(self, values: Mapping[str, float]) -> None:
        now = time.monotonic()
        steps, seconds = self._step - self._line_step, now - self._line_time
        rates = {"steps/s": steps / seconds, "tokens/s": self._tokens / seconds}
        shown = [
            f"{name} {value:.3g}" if "rate" in name else f"{name} {value:.4f}"
            for name, value in values.items()
        ]
        shown += [f"{rates['steps/s']:.2f} steps/s", f"{rates['tokens/s']:,.0f} tokens/s"]
        shown += [f"{_peak_memory():,} MB"]
        left = (self._last_step - self._step) / rates["steps/s"]
        line = f"step {self._step}/{self._last_step}: {', '.join(shown)}, {duration(left)} left"
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            logging.info("%s", line)
        if self._model_dir:
            self._write(values, rates)
        self._line_step, self._line_time, self._tokens = self._step, now, 0

    def _write(self, values: Mapping[str, float], rates: Mapping[str, float]) -> None:
        """Writes a line's numbers to TensorBoard and to the log for machines."""
        summary = tf.Summary(
            value=[tf.Summary.Value(tag=name, simple_value=rate) for name, rate in rates.items()]
        )
        self._writer.add_summary(summary, self._step)
        self._log(
            {"step": int(self._step), **{name: float(v) for name, v in values.items()}, **rates}
        )

    def _log(self, line: Mapping[str, Any]) -> None:
        """Appends a line to the log for machines."""
        assert self._model_dir
        with tf.io.gfile.GFile(os.path.join(self._model_dir, TRAINING_LOG), "a") as writer:
            line = {**line, "peak_memory_mb": _peak_memory(), "time": round(time.time(), 3)}
            writer.write(f"{json.dumps(line)}\n")

    def end(self, session):
        if self._bar is not None:
            self._bar.close()


def _peak_memory() -> int:
    """Returns the most memory this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


class AtLastStep(tf.train.SessionRunHook):
    """Calls a function when the last step is done, before it is saved."""

    def __init__(self, last_step: int, function: Callable[[], None]):
        self._last_step, self._function = last_step, function

    def begin(self):
        self._global_step = tf.train.get_or_create_global_step()

    def after_create_session(self, session, coord):
        self._step = session.run(self._global_step)

    def after_run(self, run_context, run_values):
        self._step += 1
        if self._step >= self._last_step:
            self._function()


class StopOnSignal(tf.train.SessionRunHook):
    """Ends training after the step at hand when SIGTERM or Ctrl-C comes; a checkpoint is written.

    The second signal of a kind acts at once. Use as a context manager around the training.

    Attributes:
      received: the signal that came, if one did.
    """

    def __init__(self) -> None:
        self.received: Optional[signal.Signals] = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopOnSignal":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exc_info) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number, frame):
        self.received = signal.Signals(number)
        signal.signal(number, self._before[number])
        logging.info("%s: stopping after this step", self.received.name)

    def after_run(self, run_context, run_values):
        if self.received is not None:
            run_context.request_stop()


class Profile(tf.train.SessionRunHook):
    """Writes a profile of some steps for TensorBoard's profile page."""

    def __init__(self, directory: str, first: str, last: str):
        """Makes the hook; steps are counted as in the log, from 1."""
        self._directory, self._first, self._last = directory, int(first), int(last)
        self._is_running = False

    def begin(self):
        self._global_step = tf.train.get_or_create_global_step()

    def after_create_session(self, session, coord):
        self._step = session.run(self._global_step)

    def before_run(self, run_context):
        self._step += 1
        if self._first <= self._step <= self._last and not self._is_running:
            profiler.experimental.start(self._directory)
            self._is_running = True

    def after_run(self, run_context, run_values):
        if self._step >= self._last:
            self.end(None)

    def end(self, session):
        if self._is_running:
            profiler.experimental.stop()
            self._is_running = False
            logging.info("profile written: tensorboard --logdir=%s", self._directory)


class EvaluationProgress(tf.train.SessionRunHook):
    """Counts the batches of an evaluation."""

    def __init__(self, what: str, total: Optional[int]):
        self._what, self._total = what, total
        self.batches = 0

    def begin(self):
        self._progress = Progress(self._what, "batches", self._total)

    def after_run(self, run_context, run_values):
        self.batches += 1
        self._progress.update()

    def end(self, session):
        self._progress.__exit__()
