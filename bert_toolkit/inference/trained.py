"""Finds fine-tuned models: of an output directory the best, or the last."""

import dataclasses
import os
from collections.abc import Sequence
from typing import NamedTuple, Optional

import tensorflow.compat.v1 as tf

from bert_toolkit.checkpoints import model_directory, task_file
from bert_toolkit.options import ModelOptions
from bert_toolkit.problems import Problem
from bert_toolkit.tasks import best_model


class Found(NamedTuple):
    """The files of a fine-tuned model, its weights, and what it predicts."""

    files: model_directory.ModelFiles
    checkpoint: str
    problem: Problem


def find(options: ModelOptions, kinds: Sequence[str]) -> Optional[Found]:
    """Returns the best model of --bert_dir, or its last; None if it is of none of `kinds`.

    Flags of files and of tokenization are followed, as by `model_directory.find`.
    """
    model_dir = options.bert_dir
    if model_dir is None:
        return None
    best = os.path.join(model_dir, best_model.BEST)
    problem = task_file.read([model_dir, best])
    if problem is None or problem.kind not in kinds:
        return None
    only_best = tf.train.latest_checkpoint(best) and not tf.train.latest_checkpoint(model_dir)
    files = model_directory.find(
        dataclasses.replace(options, bert_dir=best if only_best else model_dir)
    )
    checkpoint = best_model.find(model_dir, None, files.init_checkpoint)
    if options.init_checkpoint:
        checkpoint = files.init_checkpoint or checkpoint
    return Found(files, checkpoint, problem)
