"""The learning-rate range test: trains at a rate that rises step by step, and watches the loss.

Smith, 2017, Cyclical Learning Rates for Training Neural Networks, https://arxiv.org/abs/1506.01186,
section 3.3; with the exponential rise that Howard and Gugger made usual
(https://arxiv.org/abs/2002.04688).
"""

import dataclasses
import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from bert_toolkit.checkpoints import checkpoint_files, model_directory
from bert_toolkit.tasks import encoded, short_training
from bert_toolkit.tasks.base import Task
from bert_toolkit.training import input_pipeline
from bert_toolkit.training.training_step import Training

# Losses are smoothed over so many of all steps on both sides.
SMOOTHING = 0.04
# Times the least running mean at which the loss has diverged, and the share of the mean so far in
# it; both as usual.
DIVERGED, MOMENTUM = 4.0, 0.9
# Steps before which nothing is concluded: a mean over less is none.
FEWEST_STEPS = 10


@dataclasses.dataclass(frozen=True)
class RisingRate(Training):
    """A training whose rate rises from `lowest_rate` to `learning_rate`, by a factor a step."""

    lowest_rate: float = 1e-7

    def rate(self) -> tf.Tensor:
        """Returns the learning rate of the step to come, a scalar."""
        step = tf.cast(tf.train.get_or_create_global_step(), tf.float32)
        share = step / max(1, self.num_train_steps - 1)
        return self.lowest_rate * tf.pow(self.learning_rate / self.lowest_rate, share)

    def rates(self) -> np.ndarray:
        """Returns the rates of all steps, float64 [steps]."""
        return np.geomspace(self.lowest_rate, self.learning_rate, self.num_train_steps)


class Curve(NamedTuple):
    """What a range test found, for each step that was made.

    Attributes:
      rates: float64 [steps].
      losses: of the batch, before the step; float64 [steps].
      smoothed: see `smooth`; float64 [steps].
      has_diverged: whether it stopped because of that.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    has_diverged: bool

    def steepest(self) -> float:
        """Returns the rate at which the smoothed loss falls fastest; not a number if nowhere.

        The slope is that over the logarithm of the rate, up to the least smoothed loss.
        """
        end = int(self.smoothed.argmin()) + 1
        if end < FEWEST_STEPS:
            return float("nan")
        slopes = np.gradient(self.smoothed[:end], np.log(self.rates[:end]))
        place = int(slopes.argmin())
        return float(self.rates[place]) if slopes[place] < 0 else float("nan")

    def least(self) -> float:
        """Returns the rate at which the smoothed loss is least."""
        return float(self.rates[self.smoothed.argmin()])


def smooth(losses: Sequence[float], width: float) -> np.ndarray:
    """Returns means of the losses around each step, float64 [steps].

    Weights fall as a normal distribution with a standard deviation of `width` steps on both sides:
    a running mean of the steps before is late, and puts the fall of the loss at too high a rate.
    """
    steps = np.arange(len(losses))
    weights = np.exp(-0.5 * np.square((steps[:, None] - steps) / width))  # [steps, steps]
    return (weights @ np.asarray(losses, np.float64)) / weights.sum(axis=1)


def run(
    task: Task,
    model: model_directory.ModelFiles,
    options: Any,
    lowest_rate: float,
    highest_rate: float,
    steps: int,
) -> Curve:
    """Trains on the training examples of a task, in the same steps as fine-tuning.

    Nothing is kept of the weights. It ends early where the loss diverges.

    Args:
      task: with its training examples.
      model: to start from.
      options: FinetuneOptions; their rate, schedule and warm-up do not count.
      lowest_rate: of the first step.
      highest_rate: of the last step.
      steps: at most.

    Raises:
      UserError: the weights do not fit the model.
    """
    tokenizer = model.tokenizer()
    with (
        tempfile.TemporaryDirectory() as directory,
        checkpoint_files.as_tensorflow(model.init_checkpoint) as init_checkpoint,
    ):
        split = encoded.write(
            f"{directory}/train.tf_record",
            "train",
            task,
            task.examples.train or (),
            tokenizer,
            by_length=False,
            copies=task.copies(),
            shown=options.show_examples,
        )
        usual = short_training.settings(options, steps, len(split.owners))
        fields = {field.name: getattr(usual, field.name) for field in dataclasses.fields(usual)}
        fields["learning_rate"] = highest_rate
        training = RisingRate(**fields, lowest_rate=lowest_rate)
        network = task.network(model.config_with(options.dropout()), options.compute())
        reading = input_pipeline.Reading(
            repeat=True,
            shuffle_buffer=len(split.owners),
            seed=options.seed,
            static_shapes=options.static_shapes,
        )
        data = input_pipeline.RecordInput([split.path], task.schema(), reading)
        watch = _Watch()
        is_nan = short_training.run(
            network,
            init_checkpoint,
            training,
            options,
            data,
            options.train_batch_size,
            watch,
            f"{directory}/model",
        )
    losses = np.array(watch.losses)
    rates = training.rates()[: len(losses)]
    smoothed = smooth(watch.losses, SMOOTHING * steps)
    return Curve(rates, losses, smoothed, watch.has_diverged or is_nan)


class _Watch(tf.train.SessionRunHook):
    """Keeps the losses, and stops where they diverge."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.has_diverged = False

    def begin(self):
        # Where an Estimator puts the loss of its model function.
        self._loss = tf.get_collection(tf.GraphKeys.LOSSES)[-1]

    def before_run(self, run_context):
        return tf.train.SessionRunArgs(self._loss)

    def after_run(self, run_context, run_values):
        loss = float(run_values.results)
        is_finite = bool(np.isfinite(loss))
        if is_finite:
            self.losses.append(loss)
        if not is_finite or diverges(self.losses):
            self.has_diverged = True
            run_context.request_stop()


def diverges(losses: Sequence[float]) -> bool:
    """Whether the running mean of the losses is several times the least that it was."""
    mean, least = 0.0, float("inf")
    for number, loss in enumerate(losses, 1):
        mean = MOMENTUM * mean + (1 - MOMENTUM) * loss
        corrected = mean / (1 - MOMENTUM**number)  # for starting at zero
        least = min(least, corrected)
    return len(losses) >= FEWEST_STEPS and corrected > DIVERGED * least


def draw(path: str, curve: Curve) -> None:
    """Writes the curve as a picture in PNG.

    Raises:
      ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(curve.rates, curve.losses, color="0.8", linewidth=1, label="of each batch")
    axes.plot(curve.rates, curve.smoothed, color="tab:blue", label="smoothed")
    steepest = curve.steepest()
    if np.isfinite(steepest):
        label = f"steepest: {steepest:.1e}"
        axes.axvline(steepest, color="tab:green", linestyle="--", label=label)
    axes.axvline(
        curve.least(), color="tab:orange", linestyle=":", label=f"least: {curve.least():.1e}"
    )
    top = 1.1 * max(float(curve.smoothed[0]), float(np.median(curve.losses)))
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss")
    axes.set_ylim(0, max(top, float(np.percentile(curve.losses, 90))))
    axes.legend()
    figure.savefig(path, format="png", dpi=120)
