"""The network of a classifier: BERT with a linear layer over [CLS], and its loss."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Optional, Protocol

import tensorflow.compat.v1 as tf

import modeling
from bert_toolkit.compute import DEFAULT_COMPUTE, ComputeOptions
from bert_toolkit.problems import MULTI, REGRESSION, SINGLE, Problem
from bert_toolkit.tasks.classification import bilstm
from bert_toolkit.training import metrics, model_functions
from bert_toolkit.training.estimator_api import PREDICT, TRAIN
from bert_toolkit.training.outputs import Head, Mean, Network, Outputs

Features = Mapping[str, tf.Tensor]


class Objective(Protocol):
    """What a classifier is trained for."""

    def losses(self, problem: Problem, features: Features, logits: tf.Tensor) -> dict[str, Mean]:
        """Returns the parts of the loss by name, for logits [B, outputs]."""

    def shown(self, problem: Problem, features: Features, logits: tf.Tensor) -> dict[str, Mean]:
        """Returns what is shown beside the loss while training, by name."""


@dataclasses.dataclass(frozen=True)
class Loss:
    """The loss on labels, with what helps on small or uneven data.

    Attributes:
      class_weights: what an example of each label counts in the loss; None for 1.
      label_smoothing: share of a label's probability that is spread over all.
    """

    class_weights: Optional[Sequence[float]] = None
    label_smoothing: float = 0.0

    def losses(self, problem: Problem, features: Features, logits: tf.Tensor) -> dict[str, Mean]:
        return {"loss": _mean_loss(problem, self, logits, features["label_ids"])}

    def shown(self, problem: Problem, features: Features, logits: tf.Tensor) -> dict[str, Mean]:
        return _shown(problem, logits, features["label_ids"])


PLAIN_LOSS = Loss()


def network(
    config: modeling.BertConfig,
    problem: Problem,
    compute: ComputeOptions = DEFAULT_COMPUTE,
    objective: Objective = PLAIN_LOSS,
    rdrop_alpha: float = 0.0,
) -> Network:
    """Returns the function (features, mode) -> Outputs; the config says which network it is.

    `rdrop_alpha` is that of R-Drop in training; 0 for none.
    """
    if config.network_type == modeling.BILSTM:
        plain = _bilstm_network(config, problem, objective)
    else:
        plain = model_functions.with_head(config, head(config, problem, objective), compute)
    return _twice(plain, problem, rdrop_alpha) if rdrop_alpha else plain


def _bilstm_network(config: modeling.BertConfig, problem: Problem, objective: Objective) -> Network:
    over = _over_pooled(config, problem, objective)
    return lambda features, mode: over(bilstm.pooled_output(config, features, mode), features, mode)


def _twice(network: Network, problem: Problem, alpha: float) -> Network:
    """Returns a network that has each example of a training batch twice, with different dropout.

    `alpha` times the divergence of the two answers is a part of the loss (R-Drop: Liang et al.,
    2021, https://arxiv.org/abs/2106.14448, equation 4, with the mean of the two losses on labels).
    """

    def build(features: Features, mode: str) -> Outputs:
        if mode != TRAIN:
            return network(features, mode)
        twice = {name: tf.concat([value, value], 0) for name, value in features.items()}
        outputs = network(twice, mode)
        divergence = _divergence(problem, outputs.predictions["logits"])
        weighted = divergence._replace(total=alpha * divergence.total)
        losses = {"label_loss": outputs.losses["loss"], "rdrop_loss": weighted}
        return dataclasses.replace(outputs, losses=losses)

    return build


def head(config: modeling.BertConfig, problem: Problem, objective: Objective = PLAIN_LOSS) -> Head:
    """Returns what a classifier computes of BERT's pooled output."""
    over = _over_pooled(config, problem, objective)
    return Head(
        lambda model, features, mode: over(model.get_pooled_output(), features, mode),
        with_pooler=True,
    )


def _over_pooled(
    config: modeling.BertConfig, problem: Problem, objective: Objective
) -> Callable[[tf.Tensor, Features, str], Outputs]:
    """Returns the function from what is known of each text, [B, H], to outputs."""

    def build(pooled: tf.Tensor, features: Features, mode: str) -> Outputs:
        logits = _logits(pooled, config, problem, mode)  # [B, outputs]
        predictions = {"logits": logits}
        if "is_real_example" in features:
            predictions["is_real_example"] = features["is_real_example"]
        if mode == PREDICT:
            return Outputs(predictions)
        return Outputs(
            predictions=predictions,
            losses=objective.losses(problem, features, logits),
            shown=objective.shown(problem, features, logits),
        )

    return build


def gradient_network(config: modeling.BertConfig, problem: Problem) -> Network:
    """Returns the function (features, mode) -> Outputs: logits, and where they come from.

    Predictions are, T being the number of tokens of a batch without padding:
      logits: [B, outputs].
      word_embeddings: [T, H], of the tokens, one sequence after the other. To be fed in order to
        compute the others of vectors that are of no word.
      output: int32 scalar, to be fed.
      gradients: [T, H], of that output of each sequence by its word embeddings.
    """

    def build(features: Features, mode: str) -> Outputs:
        model = model_functions.encoder(config, features, mode, DEFAULT_COMPUTE)
        logits = _logits(model.get_pooled_output(), config, problem, mode)
        words = model.get_word_embeddings()
        output = tf.placeholder(tf.int32, [], "output")
        [gradients] = tf.gradients(tf.gather(logits, output, axis=1), words)
        return Outputs(
            {
                "logits": logits,
                "word_embeddings": words,
                "output": output,
                "gradients": gradients,
            }
        )

    return build


def _logits(
    pooled: tf.Tensor, config: modeling.BertConfig, problem: Problem, mode: str
) -> tf.Tensor:
    """[B, H] -> [B, outputs]: a linear layer over what is known of each text."""
    pooled = modeling.dropout(pooled, config.hidden_dropout_prob if mode == TRAIN else 0.0)
    return modeling.output_layer(pooled, problem.outputs, modeling.create_initializer())


def _mean_loss(problem: Problem, loss: Loss, logits: tf.Tensor, targets: tf.Tensor) -> Mean:
    """Returns the loss for targets [B], or [B, labels] of zeros and ones."""
    count = tf.cast(tf.shape(targets)[0], tf.float32)
    if problem.kind == REGRESSION:
        return Mean(tf.reduce_sum(tf.square(logits[:, 0] - targets)), count)
    weights = tf.constant(loss.class_weights or [1.0] * len(problem.labels), tf.float32)
    smooth = loss.label_smoothing
    if problem.kind == MULTI:
        wanted = tf.cast(targets, tf.float32)  # [B, labels]
        smoothed = wanted * (1.0 - smooth) + 0.5 * smooth
        losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=smoothed, logits=logits)
        losses *= wanted * weights + (1.0 - wanted)  # what is rare counts where it is there
        return Mean(tf.reduce_sum(losses) / len(problem.labels), count)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=logits)  # [B]
    if smooth:
        even = -tf.reduce_mean(tf.nn.log_softmax(logits), -1)
        losses = (1.0 - smooth) * losses + smooth * even
    if loss.class_weights is None:
        return Mean(tf.reduce_sum(losses), count)
    weights = tf.gather(weights, targets)  # [B]
    return Mean(tf.reduce_sum(losses * weights), tf.reduce_sum(weights))


def _divergence(problem: Problem, logits: tf.Tensor) -> Mean:
    """Returns the symmetric divergence of the answers for examples, from logits [2 B, labels].

    (KL(p || q) + KL(q || p)) / 2, for p and q of the two halves of the batch: the logarithm of
    p / q is the difference of logits but for a constant, times which p - q sums to zero. Of
    several labels a text, the mean over the labels.
    """
    activation = tf.nn.sigmoid if problem.kind == MULTI else tf.nn.softmax
    (first, second), (p, q) = (tf.split(each, 2) for each in (logits, activation(logits)))
    total = 0.5 * tf.reduce_sum((p - q) * (first - second))
    share = 1 / len(problem.labels) if problem.kind == MULTI else 1.0
    return Mean(share * total, tf.cast(tf.shape(first)[0], tf.float32))


def _shown(problem: Problem, logits: tf.Tensor, targets: tf.Tensor) -> dict[str, Mean]:
    if problem.kind == SINGLE:
        return {"accuracy": metrics.share_equal(tf.argmax(logits, -1), targets)}
    if problem.kind == MULTI:
        return {"label_accuracy": metrics.share_equal(tf.cast(logits > 0, tf.int32), targets)}
    return {}
