"""A network that classifies in place of BERT: a BiLSTM over BERT's word embeddings.

It is that of Tang et al., 2019, https://arxiv.org/abs/1903.12136, section 3.1, over WordPieces: the
last states of one LSTM in each direction, and a dense layer with relu. Letters in shape comments
are modeling.py's, and L units of the LSTM in a direction.
"""

from collections.abc import Mapping
from typing import Any

import tensorflow.compat.v1 as tf

import modeling
from bert_toolkit.training.estimator_api import TRAIN

# Of the weights, which are fewer a layer than BERT's, whose 0.02 would let little through.
INITIALIZER_RANGE = 0.1


def config_of(teacher: modeling.BertConfig, lstm_size: int) -> modeling.BertConfig:
    """Returns the config of a BiLSTM that has the embeddings of a teacher.

    Those keys that say nothing of it have values that keep the config a whole one.
    """
    return modeling.BertConfig(
        vocab_size=teacher.vocab_size,
        hidden_size=teacher.hidden_size,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=2 * lstm_size,
        hidden_dropout_prob=teacher.hidden_dropout_prob,
        max_position_embeddings=teacher.max_position_embeddings,
        type_vocab_size=teacher.type_vocab_size,
        initializer_range=INITIALIZER_RANGE,
        model_type=modeling.BILSTM,
        lstm_size=lstm_size,
    )


def pooled_output(config: Any, features: Mapping[str, tf.Tensor], mode: str) -> tf.Tensor:
    """Returns [B, I]: what the network knows of each text.

    Args:
      config: as `config_of` makes it.
      features: input_ids and input_mask, int32 [B, S]; segments and positions are not looked at.
      mode: with dropout if it is TRAIN.
    """
    with tf.variable_scope("bert/embeddings"):
        table = tf.get_variable(
            "word_embeddings",
            [config.vocab_size, config.hidden_size],
            initializer=modeling.create_initializer(config.initializer_range),
        )
        words = tf.gather(tf.convert_to_tensor(table), features["input_ids"])  # [B, S, H]
        words = modeling.dropout(words, config.hidden_dropout_prob if mode == TRAIN else 0.0)
    lengths = tf.reduce_sum(features["input_mask"], 1)  # [B]
    backwards = tf.reverse_sequence(words, lengths, seq_axis=1, batch_axis=0)
    with tf.variable_scope("bilstm"):
        states = [
            _last_state(words, lengths, config, "forward"),
            _last_state(backwards, lengths, config, "backward"),
        ]
        return modeling.dense(
            tf.concat(states, -1), config.intermediate_size, config, activation=tf.nn.relu
        )


def _last_state(words: tf.Tensor, lengths: tf.Tensor, config: Any, name: str) -> tf.Tensor:
    """[B, S, H], int32 [B] -> [B, L]: the state of an LSTM after the last token of each text.

    One fused operation goes over all positions; it has the gates in the order input, new cell,
    forget, output (Hochreiter and Schmidhuber, 1997; Gers et al., 2000). It is not its successor,
    BlockLSTMV2, whose gradient is wrong.
    """
    units = config.lstm_size
    with tf.variable_scope(name):
        kernel = tf.get_variable(
            "kernel",
            [config.hidden_size + units, 4 * units],
            initializer=tf.glorot_uniform_initializer(),
        )
        bias = tf.get_variable("bias", [4 * units], initializer=_remembering)
    batch = tf.shape(words)[0]
    nothing, unused = tf.zeros([batch, units]), tf.zeros([units])
    states = tf.raw_ops.BlockLSTM(
        seq_len_max=tf.shape(words, out_type=tf.int64)[1],
        x=tf.transpose(words, [1, 0, 2]),
        cs_prev=nothing,
        h_prev=nothing,
        w=kernel,
        b=bias,
        wci=unused,  # of peepholes, which it has not
        wcf=unused,
        wco=unused,
        forget_bias=0.0,  # the bias has it
        cell_clip=-1.0,  # none
        use_peephole=False,
    ).h  # [S, B, L]
    # Where a text ends, not where padding does; nothing before it depends on padding.
    places = tf.stack([tf.maximum(lengths - 1, 0), tf.range(batch)], -1)  # [B, 2]
    return tf.gather_nd(states, places)


def _remembering(shape, dtype=tf.float32, partition_info=None) -> tf.Tensor:
    """Returns the bias of an LSTM that forgets little at first: 1 for the forget gate, else 0."""
    zeros = tf.zeros([shape[0] // 4], dtype)
    return tf.concat([zeros, zeros, zeros + 1.0, zeros], 0)
