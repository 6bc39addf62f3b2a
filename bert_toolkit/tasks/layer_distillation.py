"""Learning a teacher's layers: its hidden states and attention scores, as TinyBERT does.

Jiao et al., 2020, https://arxiv.org/abs/1909.10351, section 3. A teacher's hidden states are too
large to keep in files, so the teacher is a part of the graph that its student is trained in.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional

import tensorflow.compat.v1 as tf
from absl import logging

from bert_toolkit.checkpoints import checkpoint_files, restore, training_notes
from bert_toolkit.checkpoints.checkpoint_files import DISTILLATION, Weights
from bert_toolkit.checkpoints.model_directory import ModelFiles
from bert_toolkit.compute import ComputeOptions
from bert_toolkit.errors import UserError
from bert_toolkit.training import model_functions
from bert_toolkit.training.estimator_api import PREDICT, TRAIN
from bert_toolkit.training.outputs import Head, Mean, Outputs
from modeling import BERT, BertConfig, BertModel, create_initializer

# The scope of the teacher in the graph of its student.
TEACHER = "teacher"


@dataclasses.dataclass(frozen=True)
class LayerLoss:
    """The distance of a student's layers to those of a teacher.

    Attributes:
      weights: the teacher's.
      config: the teacher's.
      layers: for each layer of the student, the teacher's layer that it learns from, from 0.
      hidden_state_weight: what the distances of hidden states are multiplied by; 0 for none.
      attention_weight: what those of attention scores are multiplied by; 0 for none.
    """

    weights: Weights
    config: BertConfig
    layers: Sequence[int]
    hidden_state_weight: float
    attention_weight: float

    def added_to(self, head: Head, compute: ComputeOptions) -> Head:
        """Returns a head with these parts of the loss in training, beside its own."""

        def build(model: BertModel, features: Mapping[str, Any], mode: str) -> Outputs:
            outputs = head.build(model, features, mode)
            if mode != TRAIN:
                return outputs
            losses = self.losses(model, features, compute)
            return dataclasses.replace(outputs, losses={**outputs.losses, **losses})

        return head._replace(build=build)

    def losses(
        self, student: BertModel, features: Mapping[str, Any], compute: ComputeOptions
    ) -> dict[str, Mean]:
        """Builds the teacher over the same token ids, without dropout; returns the losses by name.

        Args:
          student: the encoder that is trained.
          features: input_ids, input_mask and segment_ids, int32 [B, S].
          compute: how the teacher is computed.
        """
        with restore.frozen(self.weights, TEACHER):
            teacher = model_functions.encoder(
                self.config, features, PREDICT, compute, with_pooler=False
            )
        mask = tf.cast(features["input_mask"], tf.float32)  # [B, S]
        found = {}
        if self.hidden_state_weight:
            found["hidden_state_loss"] = self._hidden_state_loss(student, teacher, mask)
        if self.attention_weight:
            found["attention_loss"] = self._attention_loss(student, teacher, mask)
        return found

    def _hidden_state_loss(self, student: BertModel, teacher: BertModel, mask: tf.Tensor) -> Mean:
        """Returns equation 9 plus equation 8 of each layer: means over tokens and units.

        One matrix projects the layers of the student, another its embeddings; none does where it is
        as wide as the teacher.
        """
        theirs = teacher.get_all_encoder_layers()
        ours = student.get_all_encoder_layers()
        embeddings = _projected([student.get_embedding_output()], self.config, "embeddings")
        pairs = [
            *zip(embeddings, [teacher.get_embedding_output()]),
            *zip(_projected(ours, self.config, "hidden_states"), [theirs[i] for i in self.layers]),
        ]
        distances = tf.add_n([_mean_square(one, other, -1) for one, other in pairs])  # [B, S]
        total = self.hidden_state_weight * tf.reduce_sum(distances * mask)
        return Mean(total, tf.reduce_sum(mask))

    def _attention_loss(self, student: BertModel, teacher: BertModel, mask: tf.Tensor) -> Mean:
        """Returns equation 7 of each layer: means over heads and pairs of tokens of a sequence."""
        theirs = teacher.get_attention_scores()
        pairs = zip(student.get_attention_scores(), [theirs[layer] for layer in self.layers])
        distances = tf.add_n([_mean_square(one, other, 1) for one, other in pairs])  # [B, S, S]
        both = mask[:, :, None] * mask[:, None, :]
        total = self.attention_weight * tf.reduce_sum(distances * both)
        return Mean(total, tf.reduce_sum(tf.square(tf.reduce_sum(mask, -1))))


def _mean_square(one: tf.Tensor, other: tf.Tensor, axis: int) -> tf.Tensor:
    return tf.reduce_mean(tf.math.squared_difference(one, other), axis)


def _projected(states: Sequence[tf.Tensor], teacher: BertConfig, name: str) -> Sequence[tf.Tensor]:
    """[B, S, student's H] each -> [B, S, teacher's H], by one learned matrix if these differ."""
    width = states[0].shape[-1]
    if width == teacher.hidden_size:
        return states
    with tf.variable_scope(f"{DISTILLATION}/{name}"):
        initializer = create_initializer(teacher.initializer_range)
        kernel = tf.get_variable("kernel", [width, teacher.hidden_size], initializer=initializer)
    return [tf.tensordot(each, kernel, 1) for each in states]


@contextlib.contextmanager
def loss_of(options: Any, student: ModelFiles, trained: Any) -> Iterator[Optional[LayerLoss]]:
    """Yields what a student learns from the teacher's layers; None if nothing."""
    if not options.learns_layers():
        yield None
        return
    config = trained.files.config
    layers = layers_to_learn(
        options.teacher_layers, student.config.num_hidden_layers, config.num_hidden_layers
    )
    logging.info("layers of the teacher to learn from: %s", ", ".join(map(str, layers)))
    with checkpoint_files.as_tensorflow(trained.checkpoint) as weights:
        assert weights
        yield LayerLoss(
            weights, config, layers, options.hidden_state_weight, options.attention_weight
        )


# --- Which layers ---


def layers_to_learn(chosen: Optional[Sequence[str]], student: int, teacher: int) -> list[int]:
    """Returns for each layer of a student the teacher's layer that it learns from, from 0.

    Args:
      chosen: --teacher_layers; None for the uniform choice of the paper, whose last layer is the
        teacher's last (section 4.1).
      student: the number of its layers.
      teacher: the number of its layers.
    """
    if chosen:
        return [int(layer) for layer in chosen]
    return [(layer + 1) * teacher // student - 1 for layer in range(student)]


def check(student: ModelFiles, teacher: ModelFiles, options: Any) -> None:
    """Raises a UserError unless the layers of two models can be compared, as options ask for.

    Args:
      student: to be trained.
      teacher: to learn from.
      options: those of bert distill, of whose weights one at least is above 0.
    """
    flag = "--hidden_state_weight" if options.hidden_state_weight else "--attention_weight"
    ours, theirs = student.config, teacher.config
    if theirs.network_type != BERT:
        raise UserError(
            f"{flag}: the teacher is a {theirs.network_type}, which has no such layers; expected a"
            " BERT; use another teacher, or leave the flag out"
        )
    if ours.network_type != BERT:
        raise UserError(
            f"{flag}: the student is a {ours.network_type}, which has no such layers; expected a"
            " BERT; use another student, or leave the flag out"
        )
    vocabularies = [
        training_notes.Vocabulary.of(each.vocab_file or "") for each in (student, teacher)
    ]
    if vocabularies[0].digest != vocabularies[1].digest or student.rules != teacher.rules:
        raise UserError(
            f"{flag}: the student cuts text by {student.vocab_file} and the rules beside it, the"
            f" teacher by {teacher.vocab_file}, which gives other tokens; expected the same"
            " vocabulary and rules; use another student, or leave the flag out"
        )
    if not options.teacher_layers and ours.num_hidden_layers > theirs.num_hidden_layers:
        raise UserError(
            f"{flag}: the student has {ours.num_hidden_layers} layers, the teacher"
            f" {theirs.num_hidden_layers}; expected no more than the teacher has; use a smaller"
            " student, or leave the flag out"
        )
    if options.attention_weight and ours.num_attention_heads != theirs.num_attention_heads:
        raise UserError(
            f"--attention_weight: the student has {ours.num_attention_heads} attention heads, the"
            f" teacher {theirs.num_attention_heads}; expected the same number; use another student,"
            " or leave the flag out"
        )
