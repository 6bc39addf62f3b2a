"""Distillation of a tagger: each word's tag is learned from the logits of a teacher."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Optional

import numpy as np
import tensorflow.compat.v1 as tf

from bert_toolkit.compute import ComputeOptions
from bert_toolkit.io.tfrecord import Field, Schema
from bert_toolkit.problems import Problem
from bert_toolkit.tasks.base import Examples
from bert_toolkit.tasks.classification.distillation import DistillationLoss
from bert_toolkit.tasks.layer_distillation import LayerLoss
from bert_toolkit.tasks.tagging import network
from bert_toolkit.tasks.tagging.data import Data
from bert_toolkit.tasks.tagging.formats import Sentence
from bert_toolkit.tasks.tagging.tagging import Tagging
from bert_toolkit.text.encoding import Encoded
from bert_toolkit.training import model_functions
from bert_toolkit.training.outputs import Head, Mean, Network
from modeling import BertConfig
from tokenization import FullTokenizer

Features = Mapping[str, tf.Tensor]


class Lesson(NamedTuple):
    """A sentence to learn from.

    Attributes:
      sentence: with its tags, or None.
      logits: the teacher's for each word, float32 [T, L].
    """

    sentence: Sentence
    logits: np.ndarray


@dataclasses.dataclass(frozen=True)
class WordLoss:
    """The loss of a classifier's distillation for each word, at its first piece.

    Attributes:
      problem: with the tags.
      loss: says what the distance is, and what a word's tag counts beside it.
    """

    problem: Problem
    loss: DistillationLoss

    def losses(self, features: Features, logits: tf.Tensor) -> dict[str, Mean]:
        """Returns the parts of the loss by name, means over words, for logits [B, S, L]."""
        mask = tf.cast(features[network.MASK], tf.float32)  # [B, S]
        words = tf.maximum(tf.reduce_sum(mask), 1.0)
        weight = self.loss.hard_label_weight
        share = weight * tf.cast(features["has_label"], tf.float32)[:, None]  # [B, 1]
        distances = self.loss.distances(self.problem, self._teacher(features, logits), logits)
        found = {"distillation_loss": Mean(tf.reduce_sum((1 - share) * mask * distances), words)}
        if weight:
            of_labels = tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels=features["label_ids"], logits=logits
            )  # [B, S]
            found["label_loss"] = Mean(tf.reduce_sum(share * mask * of_labels), words)
        return found

    def shown(self, features: Features, logits: tf.Tensor) -> dict[str, Mean]:
        """Returns how often a word's tag is the teacher's."""
        mask = tf.cast(features[network.MASK], tf.float32)
        answers = tf.argmax(self._teacher(features, logits), -1)
        same = tf.cast(tf.equal(tf.argmax(logits, -1), answers), tf.float32)
        words = tf.maximum(tf.reduce_sum(mask), 1.0)
        return {"agreement": Mean(tf.reduce_sum(same * mask), words)}

    def _teacher(self, features: Features, logits: tf.Tensor) -> tf.Tensor:
        """Returns the teacher's logits [B, S, L]; a record has those of the longest sequence."""
        labels = len(self.problem.labels)
        given = features["teacher_logits"]
        grid = tf.reshape(given, [-1, given.shape[-1] // labels, labels])
        return grid[:, : tf.shape(logits)[1]]


class TaggingDistillation(Tagging):
    """Tagging, in the sense of tasks/base.py, that is learned from a teacher."""

    def __init__(
        self,
        data: Data,
        options: Any,
        tokenizer: FullTokenizer,
        lessons: Sequence[Lesson],
        fingerprint: str,
        layer_loss: Optional[LayerLoss] = None,
    ):
        """Takes what is needed.

        Args:
          data: with the teacher's tags.
          options: those of bert distill-tagger.
          tokenizer: the student's.
          lessons: to train on, in place of the training data.
          fingerprint: of the teacher's answers.
          layer_loss: what is learned of the teacher's layers; None for nothing.
        """
        super().__init__(data, options, tokenizer)
        self.examples = Examples(lessons, self.examples.dev, self.examples.test)
        self.train_source = self.train_source or options.unlabeled_file
        self._fingerprint, self._layer_loss = fingerprint, layer_loss

    def schema(self) -> Schema:
        outputs = self.max_seq_length * len(self.labels)
        more = (Field("teacher_logits", outputs, "float32"), Field("has_label", 1, scalar=True))
        return Schema((*super().schema().fields, *more))

    def encode(self, example: Any) -> list[tuple[Encoded, dict[str, Any]]]:
        if not isinstance(example, Lesson):
            nothing = {"teacher_logits": [0.0], "has_label": [0]}
            return [(one, {**own, **nothing}) for one, own in super().encode(example)]
        sentence, logits = example
        encoded = []
        for one, own in super().encode(sentence):
            mask = np.array(own[network.MASK], bool)
            [first] = own[network.FIRST_WORD]
            grid = np.zeros((len(mask), len(self.labels)), np.float32)  # [S, L]
            grid[mask] = logits[first : first + mask.sum()]
            given = {"teacher_logits": grid.ravel(), "has_label": [int(sentence.tags is not None)]}
            encoded.append((one, {**own, **given}))
        return encoded

    def facts(self) -> Iterator[Any]:
        yield self._fingerprint
        for lesson in self.examples.train or ():
            yield lesson.sentence.words, lesson.sentence.tags

    def head(self, config: BertConfig) -> Head:
        options = self.options
        loss = DistillationLoss(
            options.distillation_loss, options.temperature, options.hard_label_weight
        )
        return network.head(config, self.labels, None, WordLoss(self.model.problem, loss))

    def network(self, config: BertConfig, compute: ComputeOptions) -> Network:
        head = self.head(config)
        if self._layer_loss is not None:
            head = self._layer_loss.added_to(head, compute)
        return model_functions.with_head(config, head, compute)
