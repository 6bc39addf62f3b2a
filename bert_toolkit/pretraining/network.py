"""BERT with heads for masked tokens and next sentences: to pretrain, and to ask."""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow.compat.v1 as tf

import modeling
from bert_toolkit.compute import DEFAULT_COMPUTE, ComputeOptions
from bert_toolkit.training import metrics, model_functions
from bert_toolkit.training.estimator_api import TRAIN
from bert_toolkit.training.outputs import Mean, Network, Outputs


def pretraining_network(
    config, use_next_sentence: bool = True, compute: ComputeOptions = DEFAULT_COMPUTE
) -> Network:
    """Returns the function (features, mode) -> Outputs: BERT with both pretraining heads.

    Args:
      config: sizes of the model.
      use_next_sentence: whether the loss has that part. The head is there either way, so that
        checkpoints have the same variables.
      compute: how it is computed. With static shapes, predictions are made at all of
        max_predictions_per_seq positions, otherwise only at real ones.
    """

    def build(features: Mapping[str, tf.Tensor], mode: str) -> Outputs:
        # Without that part of the loss its head is there to be saved, not to be evaluated.
        with_head = use_next_sentence or mode == TRAIN
        model = model_functions.encoder(config, features, mode, compute, with_pooler=with_head)
        positions, masked_ids, weights = masked_tokens(features, compute.static_shapes)
        masked_logits = modeling.masked_lm_logits(model, config, positions)  # [M, V]
        masked_losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=masked_ids, logits=masked_logits
        )
        losses = {
            "masked_lm_loss": Mean(
                tf.reduce_sum(weights * masked_losses),
                tf.reduce_sum(features["masked_lm_weights"]) + 1e-5,
            )
        }

        masked_best = tf.argmax(masked_logits, -1)
        shown = {"masked_lm_accuracy": metrics.share_equal(masked_best, masked_ids)}
        judged: tuple[Callable[..., Any], list[Any]] = (
            metrics.masked_tokens,
            [masked_losses, masked_best, masked_ids, weights],
        )
        if with_head:
            next_labels = features["next_sentence_labels"][:, 0]  # [B]
            next_logits = modeling.next_sentence_logits(model, config)  # [B, 2]
        if use_next_sentence:
            next_losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels=next_labels, logits=next_logits
            )
            next_best = tf.argmax(next_logits, -1)
            losses["next_sentence_loss"] = Mean(tf.reduce_sum(next_losses), tf.size(next_labels))
            shown["next_sentence_accuracy"] = metrics.share_equal(next_best, next_labels)
            # [B]; filling has no token at all
            is_real = tf.cast(features["input_mask"][:, 0], tf.float32)
            judged = (
                metrics.pretraining,
                [*judged[1], next_losses, next_best, next_labels, is_real],
            )
        return Outputs(predictions={}, losses=losses, metrics=judged, shown=shown)

    return build


def masked_tokens(features: Mapping[str, Any], static_shapes: bool) -> tuple[Any, Any, Any]:
    """Returns where tokens are to be predicted in a batch, and which.

    Args:
      features: of pretraining, [B, P] those named masked_lm_*.
      static_shapes: return all M = B * P slots, with weight 0 where they are filling, rather than
        the M that are real.

    Returns:
      int32 [M, 2], row in the batch and position in the sequence; int32 [M], the tokens that stood
      there; float32 [M], their weights.
    """
    weights = features["masked_lm_weights"]
    batch_size, slots = modeling.get_shape_list(weights)
    rows = tf.broadcast_to(tf.range(batch_size)[:, None], [batch_size, slots])
    columns = [rows, features["masked_lm_positions"], features["masked_lm_ids"], weights]
    if static_shapes:
        columns = [tf.reshape(column, [-1]) for column in columns]
    else:
        columns = [tf.boolean_mask(column, weights > 0) for column in columns]
    rows, positions, ids, weights = columns
    return tf.stack([rows, positions], axis=1), ids, weights


def masked_lm_network(
    config: modeling.BertConfig, compute: ComputeOptions = DEFAULT_COMPUTE
) -> Network:
    """Returns the function (features, mode) -> Outputs: what BERT expects at masked positions.

    Predictions are "log_probabilities" [B, P, V] at "masked_lm_positions" [B, P] and, with a
    feature "masked_lm_ids" [B, P], "token_log_probabilities" [B, P] of these.
    """

    def build(features: Mapping[str, tf.Tensor], mode: str) -> Outputs:
        model = model_functions.encoder(config, features, mode, compute, with_pooler=False)
        positions = features["masked_lm_positions"]
        batch_size, slots = modeling.get_shape_list(positions)
        rows = tf.broadcast_to(tf.range(batch_size)[:, None], [batch_size, slots])
        places = tf.reshape(tf.stack([rows, positions], -1), [-1, 2])  # [B * P, 2]
        logits = modeling.masked_lm_logits(model, config, places)  # [B * P, V]
        logits = tf.reshape(logits, [batch_size, slots, config.vocab_size])
        predictions = {"log_probabilities": tf.nn.log_softmax(logits)}
        if "masked_lm_ids" in features:
            predictions["token_log_probabilities"] = -(
                tf.nn.sparse_softmax_cross_entropy_with_logits(
                    labels=features["masked_lm_ids"], logits=logits
                )
            )
        return Outputs(predictions)

    return build


def next_sentence_network(
    config: modeling.BertConfig, compute: ComputeOptions = DEFAULT_COMPUTE
) -> Network:
    """Returns the function (features, mode) -> Outputs: whether a second segment follows a first.

    The prediction is "probabilities" [B, 2], of "follows" and of "random".
    """

    def build(features: Mapping[str, tf.Tensor], mode: str) -> Outputs:
        model = model_functions.encoder(config, features, mode, compute)
        logits = modeling.next_sentence_logits(model, config)
        return Outputs({"probabilities": tf.nn.softmax(logits)})

    return build
