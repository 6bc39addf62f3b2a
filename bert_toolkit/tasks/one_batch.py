"""Trains on one batch until its loss is near zero, to see whether a model learns at all."""

import dataclasses
import re
import statistics
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

import numpy as np
import tensorflow.compat.v1 as tf

import optimization
from bert_toolkit.checkpoints import checkpoint_files
from bert_toolkit.tasks import encoded, short_training
from bert_toolkit.tasks.base import Task
from bert_toolkit.training import input_pipeline
from modeling import BertConfig
from tokenization import FullTokenizer

# Steps over which the size of updates is measured.
MEASURED_STEPS = 20

EMBEDDINGS, POOLER, HEAD = "embeddings", "pooler", "head"


@dataclasses.dataclass(frozen=True)
class Trial:
    """How a batch was learned.

    Attributes:
      losses: of the batch, before each step.
      updates: part of the model -> median over the first steps of the norm of a step's update as a
        share of the norm of the weights at the start; None where they are frozen. Of embeddings,
        those of the batch's tokens count.
      is_nan: whether the loss ended as no number.
    """

    losses: Sequence[float]
    updates: Mapping[str, Optional[float]]
    is_nan: bool


@dataclasses.dataclass(frozen=True)
class Model:
    """The model that is to learn: its sizes, its tokenizer, the weights it starts from."""

    config: BertConfig
    tokenizer: FullTokenizer
    init_checkpoint: Optional[str]

    def without_dropout(self) -> BertConfig:
        """Returns the sizes with no dropout, so that a batch's loss can become zero."""
        rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        return BertConfig.from_dict({**self.config.to_dict(), **rates})


def learn(
    task: Task, examples: Sequence[Any], model: Model, options: Any, steps: int, enough: float
) -> Trial:
    """Trains on the same batch, without dropout, at the peak learning rate.

    There is no warm-up. AdamW's moments are corrected for starting at zero in its place, so that
    updates have from the first step the size that they have after a warm-up.

    Args:
      task: encodes the examples, and makes the network.
      examples: of the batch; each makes one sequence.
      model: to start from. Nothing is written to its directory.
      options: FinetuneOptions.
      steps: at most.
      enough: the loss at which to stop.

    Raises:
      UserError: the weights do not fit the model.
    """
    with (
        tempfile.TemporaryDirectory() as directory,
        checkpoint_files.as_tensorflow(model.init_checkpoint) as init_checkpoint,
    ):
        split = encoded.write(
            f"{directory}/batch.tf_record",
            "one batch",
            task,
            examples,
            model.tokenizer,
            by_length=False,
            shown=options.show_examples,
        )
        network = task.network(model.without_dropout(), options.compute())
        training = short_training.settings(
            options, steps, len(examples), schedule="constant", bias_correction=True
        )
        training = dataclasses.replace(training, parts=1)
        reading = input_pipeline.Reading(repeat=True, static_shapes=options.static_shapes)
        batch = input_pipeline.RecordInput([split.path], task.schema(), reading)
        watch = _Watch(_rows_of_embeddings(task, examples), training.settings.frozen, enough)
        is_nan = short_training.run(
            network,
            init_checkpoint,
            training,
            options,
            batch,
            len(examples),
            watch,
            f"{directory}/model",
        )
        return Trial(watch.losses, watch.medians(), is_nan)


def _rows_of_embeddings(task: Task, examples: Sequence[Any]) -> dict[str, np.ndarray]:
    """Returns the rows of the embedding tables that examples use: name -> int [rows]."""
    sequences = [sequence for example in examples for sequence, _ in task.encode(example)]
    ids = {number for sequence in sequences for number in sequence.input_ids}
    segments = {number for sequence in sequences for number in sequence.segment_ids}
    longest = max(len(sequence.input_ids) for sequence in sequences)
    return {
        "word_embeddings": np.array(sorted(ids)),
        "position_embeddings": np.arange(longest),
        "token_type_embeddings": np.array(sorted(segments)),
    }


class _Watch(tf.train.SessionRunHook):
    """Keeps losses and the sizes of updates, and stops when the loss is low enough."""

    def __init__(self, rows: Mapping[str, np.ndarray], frozen: Sequence[str], enough: float):
        self._rows, self._frozen, self._enough = rows, frozen, enough
        self.losses: list[float] = []
        self._sizes: list[dict[str, float]] = []  # of each step

    def begin(self):
        # Where an Estimator puts the loss of its model function.
        self._loss = tf.get_collection(tf.GraphKeys.LOSSES)[-1]
        variables = tf.trainable_variables()
        self._parts = list(dict.fromkeys(_part(variable.op.name) for variable in variables))
        trained: dict[str, list[tf.Tensor]] = {}
        for variable in optimization.trainable_variables(self._frozen):
            trained.setdefault(_part(variable.op.name), []).append(self._used(variable))
        self._trained = trained

    def _used(self, variable: tf.Variable) -> tf.Tensor:
        """Returns the part of a variable that the batch uses."""
        rows = self._rows.get(variable.op.name.rpartition("/")[2])
        return tf.gather(variable, rows) if rows is not None else tf.identity(variable)

    def after_create_session(self, session, coord):
        self._before = session.run(self._trained)
        self._norms = {part: _norm(arrays) for part, arrays in self._before.items()}

    def before_run(self, run_context):
        return tf.train.SessionRunArgs(self._loss)

    def after_run(self, run_context, run_values):
        self.losses.append(float(run_values.results))
        if len(self._sizes) < MEASURED_STEPS:
            now = run_context.session.run(self._trained)
            self._sizes.append({part: self._moved(part, now[part]) for part in now})
            self._before = now
        if self.losses[-1] <= self._enough:
            run_context.request_stop()

    def _moved(self, part: str, now: Sequence[np.ndarray]) -> float:
        """Returns the norm of a part's last update as a share of its weights at the start."""
        moved = _norm(new - old for old, new in zip(self._before[part], now))
        return moved / max(self._norms[part], 1e-12)

    def medians(self) -> dict[str, Optional[float]]:
        """Returns part -> the median size of its updates; None where it is frozen."""
        return {
            part: statistics.median(sizes[part] for sizes in self._sizes)
            if part in self._trained and self._sizes
            else None
            for part in self._parts
        }


def _part(name: str) -> str:
    """Returns the part of the model that a variable belongs to."""
    layer = re.match(r"bert/encoder/layer_(\d+)/", name)
    if layer:
        return f"layer {layer[1]}"
    part = re.match(r"bert/(embeddings|pooler)/", name)
    return part[1] if part else HEAD


def _norm(arrays: Iterable[np.ndarray]) -> float:
    """Returns the norm of all numbers of some arrays."""
    return float(np.sqrt(sum(float(np.square(array).sum()) for array in arrays)))
