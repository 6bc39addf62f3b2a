"""One step of training: a batch at once or in parts, on one device or several; the same numbers.

A loss is a sum over the batch divided by a weight. The weight is that of the whole batch, over all
parts and devices, so that their gradients add up to what one device finds for all of it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf

import modeling
import optimization
from bert_toolkit.options import FinetuneOptions, TrainingOptions
from bert_toolkit.training.estimator_api import TRAIN
from bert_toolkit.training.outputs import Mean, Network, Outputs

Features = Mapping[str, tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Training:
    """How the weights are optimized.

    Attributes:
      learning_rate: the peak.
      num_train_steps: the step at which training ends.
      num_warmup_steps: steps over which the learning rate rises from zero.
      settings: what else there is to choose of the optimizer.
      parts: how many a batch is computed in, one after the other.
      steps_between_lines: how often progress is shown.
    """

    learning_rate: float
    num_train_steps: int
    num_warmup_steps: int
    settings: optimization.OptimizerSettings = optimization.PUBLISHED
    parts: int = 1
    steps_between_lines: int = 100

    @classmethod
    def of(cls, options: TrainingOptions, num_train_steps: int, num_warmup_steps: int):
        """Returns what the flags ask for."""
        settings = optimization.OptimizerSettings(
            optimizer=options.optimizer,
            schedule=options.learning_rate_schedule,
            bias_correction=options.adam_bias_correction,
            layer_decay=options.layer_decay,
            frozen=options.freeze or (),
            loss_scaling=options.precision == "float16",
        )
        return cls(
            options.learning_rate,
            num_train_steps,
            num_warmup_steps,
            settings,
            parts=options.gradient_accumulation_steps,
            steps_between_lines=options.log_every_steps,
        )

    @classmethod
    def of_finetuning(cls, options: FinetuneOptions, num_train_steps: int, num_examples: int):
        """Returns what the flags ask for that only fine-tuning has, too."""
        warmup = int(num_train_steps * options.warmup_proportion)
        training = cls.of(options, num_train_steps, warmup)
        settings = dataclasses.replace(
            training.settings,
            head_factor=options.head_factor(),
            unfreeze_steps=options.steps_between_layers(num_examples),
            ema_decay=options.ema_decay,
        )
        return dataclasses.replace(training, settings=settings)

    def rate(self) -> tf.Tensor:
        """Returns the learning rate of the step to come, a scalar."""
        return optimization.learning_rate_schedule(
            tf.train.get_or_create_global_step(),
            self.learning_rate,
            self.num_train_steps,
            self.num_warmup_steps,
            self.settings.schedule,
        )


class Step(NamedTuple):
    """The operation that makes a step, and scalars of the whole batch to show: the loss first."""

    operation: tf.Operation
    values: dict[str, tf.Tensor]
    tokens: tf.Tensor


def make(network: Network, features: Features, training: Training) -> Step:
    """Builds a training step for a replica's share of the batch."""
    _seed_dropout()
    outputs = network(features, TRAIN)
    weights = _weights_of_batch(outputs)
    variables = optimization.trainable_variables(training.settings.frozen)
    rate = training.rate()
    optimizer = optimization.make_optimizer(rate, training.settings)

    def gradients_and_sums(outputs: Outputs, features: Features):
        objective = tf.add_n([mean.total / weights[name] for name, mean in outputs.losses.items()])
        return optimizer.gradients(objective, variables), _sums(outputs, features)

    gradients, sums = gradients_and_sums(outputs, features)
    if training.parts > 1:
        # What was built for the whole batch is not run, but for the weights.
        like = (gradients, sums)
        gradients, sums = _in_parts(network, features, training.parts, gradients_and_sums, like)
    names = [*outputs.losses, *outputs.shown, "padding"]
    values, tokens = _values(names, list(outputs.losses), sums)
    operation, norm = optimizer.apply(
        gradients, tf.train.get_or_create_global_step(), trained=outputs.trained
    )
    return Step(operation, {**values, "learning_rate": rate, "gradient_norm": norm}, tokens)


def _weights_of_batch(outputs: Outputs) -> dict[str, tf.Tensor]:
    """Returns the weight of each loss over all replicas."""
    weights = [tf.cast(mean.weight, tf.float32) for mean in outputs.losses.values()]
    return dict(zip(outputs.losses, optimization.sum_over_replicas(weights)))


def _sums(outputs: Outputs, features: Features) -> tf.Tensor:
    """Returns what adds up over parts and replicas: [2 * means], totals and weights in turn."""
    means = [*outputs.losses.values(), *outputs.shown.values(), _padding(features)]
    numbers = [tf.cast(number, tf.float32) for mean in means for number in mean]
    return tf.stack(numbers)


def _padding(features: Features) -> Mean:
    """The share of padding in a batch."""
    mask = features["input_mask"]
    return Mean(tf.reduce_sum(1 - mask), tf.size(mask))


def _values(
    names: list[str], losses: list[str], sums: tf.Tensor
) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Returns the means of the whole batch by name, the loss first, and its tokens."""
    [sums] = optimization.sum_over_replicas([sums])
    totals, weights = sums[0::2], sums[1::2]
    means = totals / tf.maximum(weights, 1e-9)
    values = dict(zip(names, tf.unstack(means, len(names))))
    loss = tf.add_n([values[name] for name in losses])
    if len(losses) == 1:
        del values[losses[0]]
    return {"loss": loss, **values}, weights[-1] - totals[-1]


def _in_parts(
    network: Network,
    features: Features,
    parts: int,
    gradients_and_sums: Callable,
    like: tuple[optimization.Gradients, tf.Tensor],
) -> tuple[optimization.Gradients, tf.Tensor]:
    """Returns gradients and sums of the batch, computed part by part in a loop.

    `like` are those of another way to compute them, from which the loop takes names and shapes.
    """
    gradients, sums = like
    size = tf.shape(features["input_ids"])[0] // parts

    def add_part(index, values, squares, sums):
        _seed_dropout(index)
        part = {name: value[index * size : (index + 1) * size] for name, value in features.items()}
        with tf.variable_scope(tf.get_variable_scope(), reuse=True):
            outputs = network(part, TRAIN)
        found, more = gradients_and_sums(outputs, part)
        found = found.map(lambda tensors: tensors)
        values = [value + of_part for value, of_part in zip(values, found.values)]
        return index + 1, values, squares + found.squares, sums + more

    zeros = [tf.zeros(variable.shape) for variable in gradients.variables]
    _, values, squares, sums = tf.while_loop(
        lambda index, *_: index < parts,
        add_part,
        (0, zeros, tf.zeros([]), tf.zeros_like(sums)),
        parallel_iterations=1,
    )
    return gradients._replace(values=values, squares=squares), sums


def _seed_dropout(part: Any = 0) -> None:
    """Lets dropout depend on the run's seed, the replica, the part and the step, nothing else."""
    replica = tf.distribute.get_replica_context()
    number = replica.replica_id_in_sync_group if replica is not None else 0
    seed = (tf.get_default_graph().seed or 0) + 100_003 * tf.cast(number, tf.int32)
    seed += 15_485_863 * tf.cast(part, tf.int32)
    step = tf.cast(tf.train.get_or_create_global_step(), tf.int32)
    tf.add_to_collection(modeling.DROPOUT_SEED, tf.stack([seed, step]))
