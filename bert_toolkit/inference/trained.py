"""Finds the model of a directory that was fine-tuned for a task."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import tensorflow.compat.v1 as tf

from bert_toolkit.checkpoints import model_directory, task_file
from bert_toolkit.errors import UserError
from bert_toolkit.options import ModelOptions
from bert_toolkit.problems import Problem
from bert_toolkit.tasks import best_model


class Trained(NamedTuple):
    """A fine-tuned model: of an output directory, or of Hugging Face's layout.

    Attributes:
      files: config, vocabulary and tokenizer rules.
      checkpoint: its weights: the best, or the last.
      problem: what it predicts.
      settings: what else is kept of its task.
    """

    files: model_directory.ModelFiles
    checkpoint: str
    problem: Problem
    settings: dict[str, Any]


def find(options: ModelOptions, kinds: Sequence[str]) -> Optional[Trained]:
    """Returns the best model of --bert_dir, or its last; None if it is of none of these kinds.

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
    return Trained(files, checkpoint, problem, task_file.settings([model_dir, best]))


def find_for(options: ModelOptions, kinds: Sequence[str], expected: str) -> Trained:
    """Returns the model of --bert_dir as `find` does.

    Raises:
      UserError: it is of none of these kinds; `expected` is what it should be.
    """
    trained = find(options, kinds)
    if trained is None:
        task_file.read([options.bert_dir or ""], kinds)  # says so if it is for another task
        raise UserError(f"{options.bert_dir}: no {task_file.NAME}; expected {expected}")
    return trained
