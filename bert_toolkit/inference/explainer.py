"""Why a classifier says what it says: the share of each word in its answer; see encoder.py.

from bert_toolkit import Explainer

[explanation] = Explainer("out/reviews").explain(["a text"])
for word in explanation.words:
    print(word.text, word.integrated_gradients, word.occlusion)
"""

from collections.abc import Sequence
from typing import NamedTuple, Optional

import numpy as np

from bert_toolkit.errors import UserError
from bert_toolkit.inference.encoder import Text, arguments_named, features
from bert_toolkit.inference.explanation import (
    BOTH,
    INTEGRATED_GRADIENTS,
    OCCLUSION,
    STEPS,
    Explanation,
    WordShare,
)
from bert_toolkit.inference.text_classifier import TextClassifier
from bert_toolkit.problems import REGRESSION
from bert_toolkit.tasks.classification import classifier_network
from bert_toolkit.text.encoding import Encoded, SequenceEncoder
from bert_toolkit.text.words import WORDS, find_words
from tokenization import CLASSIFY, MASK, SEPARATE


class _Word(NamedTuple):
    """A word, and where its pieces [begin, end) are in the sequence."""

    text: str
    part: int
    start: int
    end: int
    pieces: slice


class Explainer(TextClassifier):
    """A classifier that tells the share of each word in its answers, too."""

    _network = staticmethod(classifier_network.gradient_network)

    def explain(
        self,
        texts: Sequence[Text],
        label: Optional[str] = None,
        method: str = BOTH,
        steps: int = STEPS,
        align: str = WORDS,
        batch_size: int = 32,
    ) -> list[Explanation]:
        """Returns an explanation for each text; a text is a string or a pair of them.

        Args:
          texts: the texts.
          label: whose logit is explained; without it, the one that is largest.
          method: INTEGRATED_GRADIENTS, OCCLUSION or BOTH.
          steps: points of the integral.
          align: "words" as tokenization finds them, or "spaces" for what stands between spaces.
          batch_size: sequences in a batch.

        Raises:
          UserError: the model has no such label.
        """
        if isinstance(texts, str):
            raise TypeError("expected a list of texts, not one text")
        with arguments_named():
            return [
                self.explain_one(text, label, method, steps, align, batch_size) for text in texts
            ]

    def explain_one(
        self, text: Text, label: Optional[str], method: str, steps: int, align: str, batch_size: int
    ) -> Explanation:
        """Returns the explanation of one text; see `explain`. Errors name flags."""
        encoded, words = self._words(text, align)
        [logits] = self._model.run_encoded([encoded], 1)
        output = self._output(label, logits)
        gradients = without = baseline = None
        if method != OCCLUSION:
            gradients, baseline = self._integrated(encoded, output, steps, batch_size)  # [T]
        if method != INTEGRATED_GRADIENTS:
            without = self._left_out(encoded, words, output, batch_size)
        shares = [
            WordShare(
                *word[:4],
                None if gradients is None else float(gradients[word.pieces].sum()),
                None if without is None else float(logits[output] - without[number]),
            )
            for number, word in enumerate(words)
        ]
        name = "" if self.problem.kind == REGRESSION else self.problem.labels[output]
        [prediction] = self._predictions(logits[None])
        return Explanation(
            text,
            prediction.label,
            prediction.probabilities,
            name,
            float(logits[output]),
            baseline,
            shares,
            encoded.cut,
        )

    def _output(self, label: Optional[str], logits: np.ndarray) -> int:
        """Returns the number of the output to explain."""
        if label is None:
            return int(logits.argmax())
        labels = self.problem.labels
        if self.problem.spelled(label) not in labels:
            known = f"expected one of {', '.join(labels)}" if labels else "the model has no labels"
            raise UserError(f"--label={label}: {known}; leave it out for what is predicted")
        return labels.index(self.problem.spelled(label))

    def _words(self, text: Text, align: str) -> tuple[Encoded, list[_Word]]:
        """Returns the sequence of a text or a pair, and the words of it that are not cut off."""
        tokenizer = self._model.tokenizer
        texts = (text,) if isinstance(text, str) else text
        placed = [tokenizer.tokenize_with_offsets(one) for one in texts]
        ids = [tokenizer.convert_tokens_to_ids(pieces) for pieces, _ in placed]
        encoder = SequenceEncoder(tokenizer, self._model.max_seq_length)
        [window] = encoder.windows(ids[0], ids[1] if len(ids) > 1 else [])
        encoded = window.encoded
        second = encoded.segment_ids.count(1)
        kept = [len(encoded.input_ids) - second - 2, second - 1]  # without [CLS] and [SEP]
        found = []
        before = 0
        for part, (one, (pieces, offsets), length) in enumerate(zip(texts, placed, kept)):
            length = max(0, length)
            words = find_words(one, [pieces[:length]], [offsets[:length]], align)
            for name, (first, last), place in zip(words.texts, words.pieces, words.offsets):
                its_pieces = slice(before + int(first), before + int(last))
                found.append(_Word(name, part, int(place[0]), int(place[1]), its_pieces))
            before += length + 1  # [SEP]
        return encoded, found

    def _integrated(
        self, encoded: Encoded, output: int, steps: int, batch_size: int
    ) -> tuple[np.ndarray, float]:
        """Returns the share of each token [T], and the logit of the baseline.

        Integrated gradients (Sundararajan et al., 2017, https://arxiv.org/abs/1703.01365,
        equation 1): the gradient along the straight way from the baseline to the text, times the
        way. The baseline has [MASK] for every token but [CLS] and [SEP], which have no share so:
        the model was trained to read it as a word that is not known. [PAD] it never reads. The
        integral is a sum over the middles of equal steps.
        """
        length = len(encoded.input_ids)
        special = {self._model.tokenizer.vocab[name] for name in (CLASSIFY, SEPARATE)}
        mask = self._model.tokenizer.vocab[MASK]
        masked = [number if number in special else mask for number in encoded.input_ids]
        embeddings, logits = self._model.fetch(
            ["word_embeddings", "logits"],
            [features(encoded), features(encoded._replace(input_ids=masked))],
        )
        end, start = embeddings.reshape(2, length, -1)  # [T, H] each
        places = ((np.arange(steps) + 0.5) / steps).astype(np.float32)
        total = np.zeros_like(end, np.float64)
        for first in range(0, steps, batch_size):
            there = places[first : first + batch_size, None, None]
            between = start + there * (end - start)  # [B, T, H]
            [gradients] = self._model.fetch(
                ["gradients"],
                [features(encoded)] * len(between),
                word_embeddings=between.reshape(-1, between.shape[-1]),
                output=output,
            )
            total += gradients.reshape(between.shape).sum(0)
        return ((end - start) * total / steps).sum(-1), float(logits[1, output])

    def _left_out(
        self, encoded: Encoded, words: Sequence[_Word], output: int, batch_size: int
    ) -> list[float]:
        """Returns the logit without each of the words (Li et al., 2016, arXiv 1612.08220)."""
        sequences = []
        for word in words:
            ids, segments = list(encoded.input_ids), list(encoded.segment_ids)
            del ids[word.pieces], segments[word.pieces]
            sequences.append(Encoded(ids, segments, encoded.cut))
        return [float(logits[output]) for logits in self._model.run_encoded(sequences, batch_size)]
