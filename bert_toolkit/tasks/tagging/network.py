"""The network of a tagger: BERT, a linear layer over its states, and a CRF if one is asked for."""

from collections.abc import Mapping, Sequence
from typing import Any, Optional, Protocol

import tensorflow.compat.v1 as tf

import modeling
from bert_toolkit.compute import DEFAULT_COMPUTE, ComputeOptions
from bert_toolkit.tasks.tagging import crf
from bert_toolkit.training import model_functions
from bert_toolkit.training.estimator_api import PREDICT, TRAIN
from bert_toolkit.training.outputs import Head, Mean, Network, Outputs

# Features of records beside those of every sequence: 1 where the first piece of a word is, whose
# tag is wanted; which word of its sentence is the first of these; and whether its last is here.
MASK, FIRST_WORD, HAS_LAST = "label_mask", "first_word", "has_last_word"


class Objective(Protocol):
    """What a tagger is trained for, if not for tags."""

    def losses(self, features: Mapping[str, tf.Tensor], logits: tf.Tensor) -> dict[str, Mean]:
        """Returns the parts of the loss by name, for logits [B, S, L]."""

    def shown(self, features: Mapping[str, tf.Tensor], logits: tf.Tensor) -> dict[str, Mean]:
        """Returns what is shown beside the loss while training, by name."""


def network(
    config: modeling.BertConfig,
    labels: Sequence[str],
    crf_scheme: Optional[str] = None,
    compute: ComputeOptions = DEFAULT_COMPUTE,
) -> Network:
    """Returns the function (features, mode) -> Outputs.

    With `crf_scheme`, tags are scored together, by a CRF with the rules of that scheme.
    """
    return model_functions.with_head(config, head(config, labels, crf_scheme), compute)


def head(
    config: modeling.BertConfig,
    labels: Sequence[str],
    crf_scheme: Optional[str] = None,
    objective: Optional[Objective] = None,
) -> Head:
    """Returns what a tagger computes of BERT's states; see `network`."""

    def build(model: Any, features: Mapping[str, tf.Tensor], mode: str) -> Outputs:
        states = modeling.dropout(
            model.get_sequence_output(), config.hidden_dropout_prob if mode == TRAIN else 0.0
        )  # [B, S, H]
        rows = tf.reshape(states, [-1, config.hidden_size])
        logits = modeling.output_layer(rows, len(labels), modeling.create_initializer())
        logits = tf.reshape(
            logits, tf.concat([tf.shape(features["input_ids"]), [len(labels)]], 0)
        )  # [B, S, L]
        between = crf.transitions(len(labels)) if crf_scheme else None
        predictions = {"logits": logits}
        for name in (MASK, FIRST_WORD, "is_real_example"):
            if name in features:
                predictions[name] = features[name]
        if between is not None:  # predictions are batch first
            count = tf.shape(logits)[0]
            predictions["transitions"] = tf.tile(tf.expand_dims(between, 0), [count, 1, 1])
        if mode == PREDICT:
            return Outputs(predictions)
        if objective is not None:
            losses_by_name = objective.losses(features, logits)
            return Outputs(predictions, losses_by_name, shown=objective.shown(features, logits))
        label_ids, mask = features["label_ids"], features[MASK]  # [B, S]
        if crf_scheme:
            rules = crf.Rules.of(labels, crf_scheme)
            found = crf.first_pieces(logits, label_ids, mask)
            has_first = tf.cast(tf.equal(features[FIRST_WORD], 0), tf.int32)
            losses = crf.loss(*found, between, rules, has_first, features[HAS_LAST])
            total = tf.reduce_sum(losses)
        else:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels=label_ids, logits=logits
            )  # [B, S]
            total = tf.reduce_sum(losses * tf.cast(mask, tf.float32))
        words = tf.cast(tf.reduce_sum(mask), tf.float32)
        right = tf.cast(
            tf.equal(tf.argmax(logits, -1, output_type=tf.int32), label_ids), tf.float32
        )
        shown = tf.reduce_sum(right * tf.cast(mask, tf.float32))
        return Outputs(
            predictions=predictions,
            losses={"loss": Mean(total, tf.maximum(words, 1.0))},
            shown={"accuracy": Mean(shown, words)},
        )

    return Head(build, with_pooler=False)
