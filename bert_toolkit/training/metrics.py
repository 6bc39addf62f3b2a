"""What each task is judged by, as metrics of a v1 Estimator: name -> (value, update)."""

from typing import Any

import tensorflow.compat.v1 as tf

from bert_toolkit.training.outputs import Mean

Metrics = dict[str, tuple[Any, Any]]


def masked_tokens(
    masked_loss: tf.Tensor,
    masked_logits_argmax: tf.Tensor,
    masked_ids: tf.Tensor,
    masked_weights: tf.Tensor,
) -> Metrics:
    """Loss and accuracy of masked tokens.

    Args:
      masked_loss: float32 [M], of each predicted position.
      masked_logits_argmax: int [M], the predicted ids.
      masked_ids: int32 [M], the true ids.
      masked_weights: float32 [M], 0 where a position is filling.
    """
    return {
        "masked_lm_accuracy": tf.metrics.accuracy(masked_ids, masked_logits_argmax, masked_weights),
        "masked_lm_loss": tf.metrics.mean(masked_loss, masked_weights),
    }


def pretraining(
    masked_loss: tf.Tensor,
    masked_logits_argmax: tf.Tensor,
    masked_ids: tf.Tensor,
    masked_weights: tf.Tensor,
    next_loss: tf.Tensor,
    next_argmax: tf.Tensor,
    next_labels: tf.Tensor,
    is_real: tf.Tensor,
) -> Metrics:
    """Loss and accuracy of both pretraining tasks.

    Args:
      masked_loss: as `masked_tokens` has it.
      masked_logits_argmax: the same.
      masked_ids: the same.
      masked_weights: the same.
      next_loss: float32 [B], of each sequence.
      next_argmax: int [B], the predicted labels.
      next_labels: int32 [B], the true labels.
      is_real: float32 [B], 0 where a sequence is filling.
    """
    found = masked_tokens(masked_loss, masked_logits_argmax, masked_ids, masked_weights)
    found["next_sentence_accuracy"] = tf.metrics.accuracy(next_labels, next_argmax, is_real)
    found["next_sentence_loss"] = tf.metrics.mean(next_loss, is_real)
    return found


def share_equal(predicted: tf.Tensor, true: tf.Tensor) -> Mean:
    """Returns the share of equal elements of two integer tensors."""
    equal = tf.cast(tf.equal(tf.cast(predicted, tf.int32), true), tf.float32)
    return Mean(tf.reduce_sum(equal), tf.size(true))
