"""Where a training run stands in its input, kept with each checkpoint.

A run that goes on from a checkpoint then sees the records that one that was never interrupted would
see: input.ckpt-N-FINGERPRINT has the state of the input pipeline, its shuffle buffer included, when
model.ckpt-N was written.
"""

import glob
import os
import re
import types
from typing import Any, Optional

import tensorflow.compat.v1 as tf
from absl import logging

from bert_toolkit.training.mixed_input import TrainingInput

ITERATORS = "iterators"  # TensorFlow's collection of the input pipelines of a graph


def prefix(model_dir: str, step: int, fingerprint: str) -> str:
    """Returns where the state of a step lies, for the input of that fingerprint."""
    return os.path.join(model_dir, f"input.ckpt-{step}-{fingerprint}")


def saved(model_dir: str, step: int, record_input: TrainingInput, batch_size: int) -> Optional[str]:
    """Returns where the state of a step lies, for this input; None if it is not known."""
    names = (record_input.fingerprint(batch_size), record_input.earlier_fingerprint(batch_size))
    prefixes = [prefix(model_dir, step, name) for name in names]
    return next((path for path in prefixes if tf.io.gfile.exists(f"{path}.index")), None)


def going_on(
    record_input: TrainingInput,
    model_dir: str,
    batch_size: int,
    is_kept: bool,
    is_lost: bool = False,
) -> TrainingInput:
    """Returns the input for a run that goes on in `model_dir`.

    Where the place in it is kept, the input as it is: RestoreInput goes to the place. On several
    devices, the input from that place on, which is found by reading up to it. Where the data is
    another than before, another order: the run would else begin with records it may have seen.

    Args:
      record_input: as for a new run.
      model_dir: holds the checkpoints.
      batch_size: of the training.
      is_kept: whether the place is kept on these devices.
      is_lost: whether the place that was kept cannot be restored.
    """
    latest = tf.train.latest_checkpoint(model_dir)
    step = int(tf.train.load_variable(latest, "global_step")) if latest else 0
    is_known = is_kept and not is_lost and saved(model_dir, step, record_input, batch_size)
    if step == 0 or is_known:
        return record_input
    if not is_kept:
        logging.info("finding the place in the data, after %s records", f"{step * batch_size:,}")
        return record_input.skipping(step * batch_size)
    logging.info("the place in the data is not known: going on in a new order")
    return record_input.reseeded(step)


class PlaceLost(Exception):
    """The state of an input cannot be restored: its files are not where they were."""


class InputState(tf.train.CheckpointSaverListener):
    """Saves the state just before a checkpoint, so that no checkpoint is without it."""

    def __init__(self, model_dir: str, record_input: TrainingInput, batch_size: int):
        self.model_dir, self.record_input, self.batch_size = model_dir, record_input, batch_size
        self.is_running = False

    def begin(self):
        self.saver = tf.train.Saver(_saveables(), max_to_keep=None)

    def restore(self, session: Any, step: int) -> None:
        """Goes to the place of `step`, if it is known; to be called once the input is ready."""
        path = saved(self.model_dir, step, self.record_input, self.batch_size)
        if path:
            try:
                self.saver.restore(session, path)
            except (tf.errors.OpError, ValueError) as error:
                raise PlaceLost(str(error).splitlines()[0]) from error
        self.is_running = True

    def before_save(self, session, global_step_value):
        # The first checkpoint is written before the input is ready: nothing has been read then.
        if self.is_running:
            self.saver.save(
                session,
                prefix(
                    self.model_dir,
                    global_step_value,
                    self.record_input.fingerprint(self.batch_size),
                ),
                write_meta_graph=False,
                write_state=False,
            )

    def after_save(self, session, global_step_value):
        """Removes the states of checkpoints that are kept no longer."""
        for path in tf.io.gfile.glob(os.path.join(glob.escape(self.model_dir), "input.ckpt-*")):
            step = re.search(r"input\.ckpt-(\d+)", path)
            model = f"{self.model_dir}/model.ckpt-{step[1]}.index" if step else ""
            if step and not tf.io.gfile.exists(model):
                tf.io.gfile.remove(path)


def _saveables() -> list[Any]:
    iterators = tf.get_collection(ITERATORS)
    return [
        tf.data.experimental.make_saveable_from_iterator(
            types.SimpleNamespace(_iterator_resource=resource)
        )
        for resource in iterators
    ]


class RestoreInput(tf.train.SessionRunHook):
    """Restores the state when the session is there and the input has been started."""

    def __init__(self, state: InputState):
        self._state = state

    def begin(self):
        self._global_step = tf.train.get_global_step()

    def after_create_session(self, session, coord):
        self._state.restore(session, session.run(self._global_step))
