"""Distillation as a task: a classifier learns the answers of another one, its teacher.

It is classification whose training examples have the teacher's logits, and whose loss is the
distance to these; labels count beside them where they are known.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Optional

import tensorflow.compat.v1 as tf

from bert_toolkit.checkpoints.model_directory import ModelFiles
from bert_toolkit.compute import ComputeOptions
from bert_toolkit.io.tfrecord import Field, Schema
from bert_toolkit.problems import MULTI, REGRESSION, SINGLE, Problem
from bert_toolkit.tasks.base import Examples
from bert_toolkit.tasks.classification.classification import Classification
from bert_toolkit.tasks.classification.classifier_network import Features
from bert_toolkit.tasks.classification.lessons import MASK, Lesson
from bert_toolkit.tasks.classification.task_data import Data
from bert_toolkit.tasks.distillation_options import CROSS_ENTROPY, MSE
from bert_toolkit.tasks.layer_distillation import LayerLoss
from bert_toolkit.text.encoding import Encoded, SequenceEncoder
from bert_toolkit.training import metrics, model_functions
from bert_toolkit.training.outputs import Mean, Network
from modeling import BertConfig

# --- The loss ---


@dataclasses.dataclass(frozen=True)
class DistillationLoss:
    """The distance to a teacher's logits, and the loss on labels that are known.

    Of an example with a label it is (1 - w) times the one plus w times the other, w being
    `hard_label_weight`; without one it is the first alone.

    Attributes:
      kind: MSE, the mean square of differences of logits (Tang et al., 2019,
        https://arxiv.org/abs/1903.12136, equation 2); or CROSS_ENTROPY of the teacher's
        probabilities and the student's at a temperature T, times T squared (Hinton et al., 2015,
        https://arxiv.org/abs/1503.02531, section 2).
      temperature: T.
      hard_label_weight: w.
    """

    kind: str = MSE
    temperature: float = 1.0
    hard_label_weight: float = 0.0

    def losses(self, problem: Problem, features: Features, logits: tf.Tensor) -> dict[str, Mean]:
        """Returns the parts of the loss by name, for logits [B, outputs]."""
        count = tf.cast(tf.shape(logits)[0], tf.float32)
        share = self._label_share(features) * tf.cast(features["has_label"], tf.float32)  # [B]
        distances = self.distances(problem, features["teacher_logits"], logits)
        found = {"distillation_loss": Mean(tf.reduce_sum((1.0 - share) * distances), count)}
        if self.hard_label_weight:
            of_labels = _label_losses(problem, features["label_ids"], logits)
            found["label_loss"] = Mean(tf.reduce_sum(share * of_labels), count)
        return found

    def shown(self, problem: Problem, features: Features, logits: tf.Tensor) -> dict[str, Mean]:
        """Returns how often the answer is the teacher's."""
        teacher = features["teacher_logits"]
        if problem.kind == REGRESSION:
            return {}
        if problem.kind == MULTI:
            return {"agreement": metrics.share_equal(logits > 0, tf.cast(teacher > 0, tf.int32))}
        answer = tf.argmax(teacher, -1, output_type=tf.int32)
        return {"agreement": metrics.share_equal(tf.argmax(logits, -1), answer)}

    def _label_share(self, features: Features) -> Any:
        """Returns the share of the loss that is on labels, a scalar."""
        return self.hard_label_weight

    def distances(self, problem: Problem, teacher: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Returns the distances of logits to the teacher's: [..., outputs] twice -> [...]."""
        if self.kind == MSE:
            return tf.reduce_mean(tf.math.squared_difference(logits, teacher), -1)
        wanted, scaled = teacher / self.temperature, logits / self.temperature
        if problem.kind == MULTI:
            each = tf.nn.sigmoid_cross_entropy_with_logits(labels=tf.sigmoid(wanted), logits=scaled)
            distances = tf.reduce_mean(each, -1)
        else:
            distances = tf.nn.softmax_cross_entropy_with_logits(
                labels=tf.nn.softmax(wanted), logits=scaled
            )
        return distances * self.temperature**2


@dataclasses.dataclass(frozen=True)
class AnnealedLoss(DistillationLoss):
    """Teacher annealing (Clark et al., 2019, https://arxiv.org/abs/1907.04829, section 3.1).

    The target goes linearly from the teacher's answer to the label: lambda * label +
    (1 - lambda) * teacher, lambda being the share of training that is done, features["progress"].
    The cross-entropy is linear in its target, and of squares the gradient is, so that the two
    losses weighted by lambda are the loss of that target.
    """

    def _label_share(self, features: Features) -> tf.Tensor:
        return self.hard_label_weight * features["progress"]


def _label_losses(problem: Problem, targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns the loss of each example on its label, [B]."""
    if problem.kind == SINGLE:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=logits)
    if problem.kind == REGRESSION:
        return tf.math.squared_difference(logits[:, 0], targets)
    wanted = tf.cast(targets, tf.float32)  # [B, labels]
    each = tf.nn.sigmoid_cross_entropy_with_logits(labels=wanted, logits=logits)
    return tf.reduce_mean(each, -1)


# --- The task ---


def reader(model: ModelFiles, options: Any) -> SequenceEncoder:
    """Returns what encodes examples for a model; [MASK] in text is that token if copies have it."""
    rules = model.rules
    if options.augment and MASK not in rules.never_split:
        rules = dataclasses.replace(rules, never_split=(*rules.never_split, MASK))
    return SequenceEncoder(
        rules.tokenizer(model.vocab_file or ""),
        options.max_seq_length,
        options.truncate,
        options.doc_stride,
    )


class Distillation(Classification):
    """Classification, in the sense of tasks/base.py, that is learned from a teacher."""

    def __init__(
        self,
        data: Data,
        options: Any,
        model: ModelFiles,
        lessons: Sequence[Lesson],
        fingerprint: str,
        layer_loss: Optional[LayerLoss] = None,
    ):
        """Takes what is needed.

        Args:
          data: as the teacher's problem has it.
          options: those of bert distill.
          model: the student's files.
          lessons: to train on, in place of the training data.
          fingerprint: of the teacher's answers.
          layer_loss: what is learned of the teacher's layers; None for nothing.
        """
        super().__init__(data, options, model.tokenizer())
        self.examples = Examples(lessons, data.dev, data.test)
        self.train_source = self.train_source or options.unlabeled_file
        self._fingerprint, self._layer_loss = fingerprint, layer_loss
        self._reader = reader(model, options)

    def schema(self) -> Schema:
        more = (
            Field("teacher_logits", self.problem.outputs, "float32"),
            Field("has_label", 1, scalar=True),
        )
        return Schema((*super().schema().fields, *more))

    def encode(self, example: Any) -> list[tuple[Encoded, dict[str, Any]]]:
        if not isinstance(example, Lesson):
            nothing = {"teacher_logits": [0.0] * self.problem.outputs, "has_label": [0]}
            return [(one, {**label, **nothing}) for one, label in super().encode(example)]
        text, logits = example
        features = {
            "label_ids": self.problem.values(text.label),
            "teacher_logits": logits,
            "has_label": [int(text.label is not None)],
        }
        return [(one, features) for one in self._reader.encode(text.text_a, text.text_b)]

    def copies(self) -> None:
        return None

    def facts(self) -> Iterator[Any]:
        yield self._fingerprint
        yield from (lesson.example[1:4] for lesson in self.examples.train or ())

    def objective(self) -> DistillationLoss:
        options = self.options
        return DistillationLoss(
            options.distillation_loss, options.temperature, options.hard_label_weight
        )

    def network(self, config: BertConfig, compute: ComputeOptions) -> Network:
        if self._layer_loss is None:
            return super().network(config, compute)
        head = self._layer_loss.added_to(self.head(config), compute)
        return model_functions.with_head(config, head, compute)


class Annealed(Distillation):
    """Distillation from the teacher's probabilities at first, from the labels at the end."""

    def objective(self) -> AnnealedLoss:
        is_number = self.problem.kind == REGRESSION
        return AnnealedLoss(MSE if is_number else CROSS_ENTROPY, hard_label_weight=1.0)
