"""A training that is watched and leaves nothing: no checkpoint, no log."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Optional

import tensorflow.compat.v1 as tf

from bert_toolkit.checkpoints.checkpoint_files import Weights
from bert_toolkit.options import CheckpointOptions
from bert_toolkit.training import input_pipeline, model_functions, trainer
from bert_toolkit.training.outputs import Network
from bert_toolkit.training.training_step import Training


def settings(options: Any, steps: int, num_examples: int, **other: Any) -> Training:
    """Returns the training that the flags ask for, of all layers from the first step.

    There is no warm-up and no average of weights, which so few steps have no use for. `other` are
    further settings of the optimizer.
    """
    training = Training.of_finetuning(options, steps, num_examples)
    changed = dataclasses.replace(training.settings, unfreeze_steps=0, ema_decay=0.0, **other)
    return dataclasses.replace(training, num_warmup_steps=0, settings=changed)


def run(
    network: Network,
    init_checkpoint: Optional[Weights],
    training: Training,
    options: Any,
    records: input_pipeline.RecordInput,
    batch_size: int,
    watch: tf.train.SessionRunHook,
    directory: str,
) -> bool:
    """Trains until `watch` stops it; returns whether the loss ended as no number.

    Args:
      network: to train.
      init_checkpoint: weights to start from.
      training: the steps, at most num_train_steps of them.
      options: FinetuneOptions.
      records: to train on.
      batch_size: sequences in a step.
      watch: sees each step.
      directory: an empty one, for the Estimator.
    """
    estimator = trainer.make_estimator(
        model_functions.make(network, directory, init_checkpoint, False, training),
        trainer.run_config(directory, options, _NoCheckpoints()),
        trainer.BatchSizes(),
        use_tpu=False,
    )
    size: Mapping[str, int] = {"batch_size": batch_size}
    try:
        estimator.train(lambda: records(size), [watch], max_steps=training.num_train_steps)
    except tf.train.NanLossDuringTrainingError:
        return True
    return False


class _NoCheckpoints(CheckpointOptions):
    """Lets an Estimator write none, not even at the end."""

    def run_config(self) -> dict[str, Any]:
        return {"save_checkpoints_steps": None}
