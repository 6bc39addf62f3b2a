"""Masks chosen while training: new ones in every epoch, by the law of the masks made beforehand."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class DynamicMasks:
    """Chooses and masks tokens of a batch; a step of an input pipeline.

    Attributes:
      max_predictions_per_seq: most masked tokens in a sequence.
      masked_lm_prob: share of tokens to mask.
      cls: id of [CLS], which is never masked.
      sep: id of [SEP], likewise.
      mask: id of [MASK].
      vocab_size: random tokens are drawn below it.
      whole_words: mask all tokens of a word; features have `word_starts`.
      seed: with the number of a batch decides its masks.
    """

    max_predictions_per_seq: int
    masked_lm_prob: float
    cls: int
    sep: int
    mask: int
    vocab_size: int
    whole_words: bool
    seed: int

    def __call__(self, number: Any, features: Mapping[str, Any]) -> dict[str, Any]:
        """Adds the features named masked_lm_*, [B, P], and masks input_ids.

        Args:
          number: int64, of the batch.
          features: of pretraining data without masks, each [B, S].

        Returns:
          The features; P is at most max_predictions_per_seq, and S.
        """
        import tensorflow.compat.v1 as tf

        features = dict(features)
        ids = features["input_ids"]  # [B, S]
        seeds = tf.unstack(tf.random.experimental.stateless_split([self.seed, number], 3))
        positions, weights = self._choose(features, seeds[0])  # [B, P] each
        originals = tf.gather(ids, positions, batch_dims=1)  # [B, P]
        # Of the chosen tokens 80 % are masked, 10 % kept, 10 % replaced (paper, section 3.1).
        chance = tf.random.stateless_uniform(tf.shape(positions), seeds[1])
        strangers = tf.random.stateless_uniform(
            tf.shape(positions), seeds[2], maxval=self.vocab_size, dtype=tf.int32
        )
        changed = tf.where(chance < 0.8, tf.fill(tf.shape(originals), self.mask), originals)
        changed = tf.where(chance >= 0.9, strangers, changed)
        changed = tf.where(weights > 0, changed, originals)
        features["input_ids"] = _put(ids, positions, changed)
        features["masked_lm_positions"] = positions
        features["masked_lm_ids"] = originals * tf.cast(weights, tf.int32)
        features["masked_lm_weights"] = weights
        return features

    def _choose(self, features: Mapping[str, Any], seed: Any) -> tuple[Any, Any]:
        """Returns the positions to predict, ascending, and weights: 0 where a slot is not used."""
        import tensorflow.compat.v1 as tf

        ids, mask = features["input_ids"], features["input_mask"]  # [B, S]
        length = tf.shape(ids)[1]
        candidates = (mask > 0) & (ids != self.cls) & (ids != self.sep)
        scores = tf.random.stateless_uniform(tf.shape(ids), seed)
        words = tf.zeros_like(ids)
        if self.whole_words:
            words = tf.maximum(tf.cumsum(features["word_starts"], axis=1) - 1, 0)  # [B, S]
            scores = tf.gather(scores, words, batch_dims=1)
        order = tf.argsort(tf.where(candidates, scores, 2.0 + tf.zeros_like(scores)), stable=True)

        share = tf.cast(tf.reduce_sum(mask, axis=1), tf.float32) * self.masked_lm_prob
        wanted = tf.clip_by_value(
            tf.cast(tf.round(share), tf.int32), 1, self.max_predictions_per_seq
        )
        wanted = tf.minimum(wanted, tf.reduce_sum(tf.cast(candidates, tf.int32), axis=1))  # [B]
        if self.whole_words:
            wanted = _without_part_of_a_word(tf.gather(words, order, batch_dims=1), wanted)
        slots = order[:, : self.max_predictions_per_seq]  # [B, P]
        used = tf.range(tf.shape(slots)[1])[None, :] < wanted[:, None]
        positions = tf.sort(tf.where(used, slots, tf.fill(tf.shape(slots), length)))
        used = positions < length
        return tf.where(used, positions, tf.zeros_like(positions)), tf.cast(used, tf.float32)


def _without_part_of_a_word(words: Any, wanted: Any) -> Any:
    """Lowers `wanted` [B] so that the first so many of `words` [B, S] end where a word ends."""
    import tensorflow.compat.v1 as tf

    last = tf.gather(words, tf.maximum(wanted - 1, 0), batch_dims=1)  # [B]
    following = tf.gather(words, tf.minimum(wanted, tf.shape(words)[1] - 1), batch_dims=1)
    of_last = tf.cast(words == last[:, None], tf.int32)
    taken = tf.cast(tf.range(tf.shape(words)[1])[None, :] < wanted[:, None], tf.int32)
    part = tf.reduce_sum(of_last * taken, axis=1)
    return tf.where(following == last, wanted - part, wanted)


def _put(ids: Any, positions: Any, values: Any) -> Any:
    """Returns `ids` [B, S] with `values` [B, P] at `positions` [B, P]."""
    import tensorflow.compat.v1 as tf

    rows = tf.broadcast_to(tf.range(tf.shape(ids)[0])[:, None], tf.shape(positions))
    return tf.tensor_scatter_nd_update(ids, tf.stack([rows, positions], axis=-1), values)
