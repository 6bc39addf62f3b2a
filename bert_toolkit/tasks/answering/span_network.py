"""The network that finds answers: BERT with a linear layer that scores starts and ends."""

from collections.abc import Mapping
from typing import Any

import tensorflow.compat.v1 as tf

import modeling
from bert_toolkit.compute import DEFAULT_COMPUTE, ComputeOptions
from bert_toolkit.io.tfrecord import Field, Schema, sequence_fields
from bert_toolkit.training import metrics, model_functions
from bert_toolkit.training.estimator_api import PREDICT
from bert_toolkit.training.outputs import Head, Mean, Network, Outputs

# The score of a position that holds padding.
LEAST = -1e4


def schema(max_seq_length: int) -> Schema:
    """Returns the features of a window: as published, but that `window` counts a question's."""
    return Schema(
        (
            *sequence_fields(max_seq_length),
            Field("start_positions", 1, scalar=True),
            Field("end_positions", 1, scalar=True),
            Field("window", 1, scalar=True),
            Field("is_real_example", 1, scalar=True, default=1),
        )
    )


def network(config: modeling.BertConfig, compute: ComputeOptions = DEFAULT_COMPUTE) -> Network:
    """Returns the function (features, mode) -> Outputs.

    Predictions are "logits" [B, S, 2] of starts and ends, and "loss" [B] where the positions of
    answers are among the features. Devlin et al., 2019 (https://arxiv.org/abs/1810.04805), section
    4.2; as published there is no dropout over the last layer.
    """
    return model_functions.with_head(config, head(), compute)


def head() -> Head:
    """Returns what is computed of BERT's states; see `network`."""

    def build(model: Any, features: Mapping[str, tf.Tensor], mode: str) -> Outputs:
        logits = span_logits(model.get_sequence_output(), features["input_mask"])
        predictions = {"logits": logits}
        for name in ("is_real_example", "window"):
            if name in features:
                predictions[name] = features[name]
        if "start_positions" not in features:
            return Outputs(predictions)
        positions = [features["start_positions"], features["end_positions"]]  # [B] each
        losses = tf.add_n(
            [
                tf.nn.sparse_softmax_cross_entropy_with_logits(
                    labels=true, logits=logits[:, :, number]
                )
                for number, true in enumerate(positions)
            ]
        )  # [B]
        if mode == PREDICT:
            return Outputs({**predictions, "loss": losses / 2.0})
        count = tf.cast(tf.shape(losses)[0], tf.float32)
        found = tf.argmax(logits, 1, output_type=tf.int32)  # [B, 2]
        return Outputs(
            predictions,
            losses={"loss": Mean(tf.reduce_sum(losses) / 2.0, count)},
            shown={"span_accuracy": metrics.share_equal(found, tf.stack(positions, 1))},
        )

    return Head(build, with_pooler=False)


def span_logits(states: tf.Tensor, input_mask: tf.Tensor) -> tf.Tensor:
    """[B, S, H] -> [B, S, 2]: scores of starts and ends; padding gets LEAST."""
    hidden = modeling.get_shape_list(states)[-1]
    with tf.variable_scope("cls/squad"):
        weights = tf.get_variable(
            "output_weights", [2, hidden], initializer=modeling.create_initializer()
        )
        bias = tf.get_variable("output_bias", [2], initializer=tf.zeros_initializer())
    shape = tf.shape(states)
    flat = tf.matmul(tf.reshape(states, [-1, hidden]), weights, transpose_b=True)  # [B * S, 2]
    logits = tf.reshape(tf.nn.bias_add(flat, bias), [shape[0], shape[1], 2])
    is_token = tf.expand_dims(tf.cast(input_mask, tf.bool), -1)  # [B, S, 1]
    return tf.where_v2(is_token, logits, LEAST)
