"""A linear-chain conditional random field (Lafferty et al., 2001) over the tags of words.

The score of tags is the sum of what the network gives each (emissions) and of the transitions
between neighbors. Transitions that the tagging scheme forbids cost so much that none is taken.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow.compat.v1 as tf
from scipy.special import logsumexp

from bert_toolkit.tasks.tagging import schemes

VARIABLE = "crf/transitions"
FORBIDDEN = -1e4


@dataclasses.dataclass(frozen=True)
class Rules:
    """What a scheme forbids, as scores to add: 0, or FORBIDDEN.

    Attributes:
      transitions: float32 [L, L], from a tag (row) to the next.
      begin: float32 [L], of the first tag.
      end: float32 [L], of the last.
    """

    transitions: np.ndarray
    begin: np.ndarray
    end: np.ndarray

    @classmethod
    def of(cls, labels: Sequence[str], scheme: str) -> "Rules":
        """Returns those of a scheme for labels in this order."""

        def scores(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
            costs = [0.0 if schemes.may_follow(*pair, scheme) else FORBIDDEN for pair in pairs]
            return np.array(costs, np.float32)

        square = scores([(before, tag) for before in labels for tag in labels])
        return cls(
            square.reshape(len(labels), len(labels)),
            scores([(schemes.OUTSIDE, tag) for tag in labels]),
            scores([(tag, schemes.OUTSIDE) for tag in labels]),
        )


# --- In the graph ---


def transitions(count: int) -> tf.Tensor:
    """Returns the variable of the transitions between `count` labels, [L, L]."""
    return tf.get_variable(VARIABLE, [count, count], initializer=tf.zeros_initializer())


def first_pieces(
    emissions: tf.Tensor, label_ids: tf.Tensor, mask: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Moves the positions that the mask has, [B, S], to the front; the rest is filling."""
    places = tf.range(tf.shape(mask)[1])
    order = tf.argsort(tf.where_v2(mask > 0, places, places + tf.shape(mask)[1]))  # [B, S]
    length = tf.maximum(1, tf.reduce_max(tf.reduce_sum(mask, 1)))
    return tuple(
        tf.gather(values, order[:, :length], batch_dims=1)
        for values in (emissions, label_ids, mask)
    )  # type: ignore[return-value]


def loss(
    emissions: tf.Tensor,
    label_ids: tf.Tensor,
    mask: tf.Tensor,
    between: tf.Tensor,
    rules: Rules,
    has_first: tf.Tensor,
    has_last: tf.Tensor,
) -> tf.Tensor:
    """Returns the negative log-likelihood of the labels of each sequence, [B].

    Args:
      emissions: float32 [B, T, L].
      label_ids: int32 [B, T].
      mask: int32 [B, T], ones and then zeros.
      between: float32 [L, L], the transitions.
      rules: of the scheme.
      has_first: int32 [B], 1 where a sequence has the first word of its sentence. The rules of the
        beginning hold there only; a window may begin inside of an entity.
      has_last: int32 [B], likewise the last word.
    """
    between = between + rules.transitions
    begin = rules.begin * tf.cast(has_first, tf.float32)[:, None]  # [B, L]
    end = rules.end * tf.cast(has_last, tf.float32)[:, None]
    there = tf.cast(mask, tf.float32)
    normalizer = _log_sum_of_paths(emissions, mask, between, begin, end)
    own = tf.gather(emissions, label_ids, batch_dims=2)  # [B, T]
    steps = tf.gather_nd(between, tf.stack([label_ids[:, :-1], label_ids[:, 1:]], -1))
    last = tf.maximum(tf.reduce_sum(mask, 1) - 1, 0)
    ends = tf.gather(begin, label_ids[:, 0], batch_dims=1)
    ends += tf.gather(end, tf.gather(label_ids, last, batch_dims=1), batch_dims=1)
    score = tf.reduce_sum(own * there, 1) + tf.reduce_sum(steps * there[:, 1:], 1) + ends
    return (normalizer - score) * there[:, 0]


def _log_sum_of_paths(
    emissions: tf.Tensor, mask: tf.Tensor, between: tf.Tensor, begin: tf.Tensor, end: tf.Tensor
) -> tf.Tensor:
    """The forward algorithm: the logarithm of the sum over all tag sequences, [B]."""

    def step(scores: tf.Tensor, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        emission, there = inputs  # [B, L], [B]
        following = tf.reduce_logsumexp(tf.expand_dims(scores, 2) + between, 1) + emission
        return tf.where_v2(tf.expand_dims(there > 0, 1), following, scores)

    words = (tf.transpose(emissions[:, 1:], [1, 0, 2]), tf.transpose(mask[:, 1:]))
    scores = tf.foldl(step, words, emissions[:, 0] + begin)  # [B, L]
    return tf.reduce_logsumexp(scores + end, 1)


# --- On the host, a sentence at a time: windows have been joined by then ---


@dataclasses.dataclass(frozen=True)
class Chain:
    """Trained transitions with the rules of their scheme."""

    between: np.ndarray  # [L, L]
    rules: Rules

    @property
    def _steps(self) -> np.ndarray:
        return self.between + self.rules.transitions

    def best(self, emissions: np.ndarray) -> np.ndarray:
        """Returns the likeliest tags by the Viterbi algorithm: [T, L] -> int [T]."""
        if not len(emissions):
            return np.zeros(0, np.int64)
        scores, steps, choices = emissions[0] + self.rules.begin, self._steps, []
        for emission in emissions[1:]:
            paths = scores[:, None] + steps
            choices.append(paths.argmax(0))
            scores = paths.max(0) + emission
        path = [int((scores + self.rules.end).argmax())]
        for choice in reversed(choices):
            path.append(int(choice[path[-1]]))
        return np.array(path[::-1])

    def probabilities(self, emissions: np.ndarray) -> np.ndarray:
        """Returns the probability of each tag of each word over all sequences, [T, L]."""
        if not len(emissions):
            return emissions
        before, after = self._forward(emissions), [self.rules.end.astype(np.float64)]
        for emission in emissions[:0:-1]:
            after.append(logsumexp(self._steps + emission + after[-1], axis=1))
        joint = before + np.array(after[::-1])
        return np.exp(joint - logsumexp(joint, axis=1, keepdims=True))

    def loss(self, emissions: np.ndarray, label_ids: np.ndarray) -> float:
        """Returns the negative log-likelihood of a sentence's tags."""
        if not len(emissions):
            return 0.0
        score = emissions[np.arange(len(label_ids)), label_ids].sum()
        score += self._steps[label_ids[:-1], label_ids[1:]].sum()
        score += self.rules.begin[label_ids[0]] + self.rules.end[label_ids[-1]]
        return float(logsumexp(self._forward(emissions)[-1] + self.rules.end) - score)

    def _forward(self, emissions: np.ndarray) -> np.ndarray:
        """[T, L]: logarithms of the sums over the tags before each word."""
        scores = [emissions[0].astype(np.float64) + self.rules.begin]
        for emission in emissions[1:]:
            scores.append(logsumexp(scores[-1][:, None] + self._steps, axis=0) + emission)
        return np.array(scores)
