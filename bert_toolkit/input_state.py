"""Where a training run stands in its input, kept with each checkpoint.

A run that goes on from a checkpoint then sees the records that one that was never interrupted would
see: input.ckpt-N has the state of the input pipeline, its shuffle buffer included, when
model.ckpt-N was written.
"""

import glob
import os
import re
import types
from typing import Any

import tensorflow.compat.v1 as tf
from absl import logging

ITERATORS = "iterators"  # TensorFlow's collection of the input pipelines of a graph


def prefix(model_dir: str, step: int) -> str:
    """Returns where the state of a step lies."""
    return os.path.join(model_dir, f"input.ckpt-{step}")


def is_saved(model_dir: str, step: int) -> bool:
    """Whether the state of a step is known."""
    return tf.io.gfile.exists(f"{prefix(model_dir, step)}.index")


def seed(run_seed: int, model_dir: str, step: int) -> int:
    """Returns the seed of the data's order for a run that goes on from `step`.

    Where the place in the input is not known, another order: the run would otherwise begin with
    the records it has seen before.
    """
    if step == 0 or is_saved(model_dir, step):
        return run_seed
    logging.info("the place in the data is not known: going on in a new order")
    return run_seed + step


class InputState(tf.train.CheckpointSaverListener):
    """Saves the state just before a checkpoint, so that no checkpoint is without it."""

    def __init__(self, model_dir: str):
        self.model_dir = model_dir
        self.is_running = False

    def begin(self):
        self.saver = tf.train.Saver(_saveables(), max_to_keep=None)

    def restore(self, session: Any, step: int) -> None:
        """Goes to the place of `step`, if it is known; to be called once the input is ready."""
        if is_saved(self.model_dir, step):
            self.saver.restore(session, prefix(self.model_dir, step))
        self.is_running = True

    def before_save(self, session, global_step_value):
        # The first checkpoint is written before the input is ready: nothing has been read then.
        if self.is_running:
            self.saver.save(
                session,
                prefix(self.model_dir, global_step_value),
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


class RestoreInput(tf.estimator.SessionRunHook):
    """Restores the state when the session is there and the input has been started."""

    def __init__(self, state: InputState):
        self._state = state

    def begin(self):
        self._global_step = tf.train.get_global_step()

    def after_create_session(self, session, coord):
        self._state.restore(session, session.run(self._global_step))
