"""The directory that a training writes to: begun, gone on with, or begun anew."""

import glob
import os
from typing import Optional

import tensorflow.compat.v1 as tf
from absl import logging

from bert_toolkit.errors import UserError
from bert_toolkit.io import metrics_files
from bert_toolkit.training import cluster

# What training writes to its directory, beside the model's files.
_TRAINED = (
    "checkpoint",
    "model.ckpt-*",
    "input.ckpt-*",
    "graph.pbtxt",
    "events.out.tfevents.*",
    metrics_files.TRAINING_LOG,
    metrics_files.EVALUATION_LOG,
    "best/*",
    "calibration.json",
)


def begin(directory: str, resume: bool, overwrite: bool) -> None:
    """Makes a directory ready for training: to go on, or to start anew.

    Raises:
      UserError: it holds a checkpoint, and neither going on nor overwriting is wanted.
    """
    if overwrite:
        paths = [
            path
            for pattern in _TRAINED
            for path in tf.io.gfile.glob(os.path.join(glob.escape(directory), pattern))
        ]
        for path in paths:
            tf.io.gfile.remove(path)
        if paths:
            logging.info("%s: %d files of an earlier run removed", directory, len(paths))
        return
    leave_damaged(directory)
    latest = tf.train.latest_checkpoint(directory)
    if latest and not resume:
        raise UserError(
            f"--noresume, but {latest} is there; pass --resume to go on from it, or"
            f" {to_begin_anew()}"
        )


def to_begin_anew() -> str:
    """Returns what to do for a new start, in words."""
    if cluster.size() > 1:  # where --overwrite is refused
        return "use another --output_dir to begin anew"
    return "pass --overwrite to begin anew (another --output_dir keeps both)"


def leave_damaged(directory: str) -> None:
    """Makes the last checkpoint of an output directory that can be read the latest one.

    A machine that goes down may leave the last one incomplete; the one before is as good a place to
    go on from.
    """
    state = tf.train.get_checkpoint_state(directory)
    prefixes = list(state.all_model_checkpoint_paths) if state else []
    for index in reversed(range(len(prefixes))):
        damage = _damage(prefixes[index])
        if damage is None:
            if index < len(prefixes) - 1:
                tf.train.update_checkpoint_state(directory, prefixes[index], prefixes[: index + 1])
            return
        logging.warning("%s cannot be read (%s); taking the one before", prefixes[index], damage)
    if prefixes:
        raise UserError(
            f"{directory}: none of its checkpoints can be read; remove it, or use another"
            " --output_dir"
        )


def _damage(prefix: str) -> Optional[str]:
    """Returns what is wrong with a checkpoint, reading all of it; None if nothing is."""
    try:
        reader = tf.train.load_checkpoint(prefix)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except Exception as error:
        return (str(error) or type(error).__name__).splitlines()[0]
    return None
