"""How probable texts are, from Python; see encoder.py.

from bert_toolkit import NextSentence, Scorer

with Scorer("out/pretrained") as model:
    print([score.pseudo_perplexity for score in model.score(["It rained.", "Rained it."])])
with NextSentence("out/pretrained") as model:
    print(model.predict([("It rained.", "We stayed at home.")]))
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bert_toolkit.errors import UserError
from bert_toolkit.inference.encoder import Text, features
from bert_toolkit.inference.pretrained import NEXT_SENTENCE, PretrainedModel, masked_lm
from bert_toolkit.text import batches
from bert_toolkit.text.encoding import Encoded
from tokenization import MASK


class Score(NamedTuple):
    """How probable a text is to a model.

    Attributes:
      tokens: of the text, without [CLS] and [SEP].
      log_probabilities: natural logarithms, float32 [T], of each token at [MASK] in its place,
        given all others.
      cut: how many tokens were cut off, which do not count.
    """

    tokens: tuple[str, ...]
    log_probabilities: np.ndarray
    cut: int

    @property
    def pseudo_log_likelihood(self) -> float:
        """The sum of `log_probabilities`: Salazar et al., 2020, equation 1."""
        return float(np.sum(self.log_probabilities, dtype=np.float64))

    @property
    def pseudo_perplexity(self) -> float:
        """exp(-pseudo_log_likelihood / T); nan of a text without tokens."""
        return pseudo_perplexity(self.pseudo_log_likelihood, len(self.tokens))


def pseudo_perplexity(pseudo_log_likelihood: float, tokens: int) -> float:
    """Returns that of a text or, with sums over texts, of a corpus (Salazar et al., 2020, 2.3)."""
    return math.exp(-pseudo_log_likelihood / tokens) if tokens else math.nan


class Scorer(PretrainedModel):
    """Scores texts by their pseudo-log-likelihood, by a model with the masked-LM head.

    After Salazar et al., 2020, https://arxiv.org/abs/1910.14659: each token is masked in turn, so
    that a text of T tokens is T sequences to the model.
    """

    HEAD = masked_lm("token_log_probabilities", "masked_lm_ids")

    def score(
        self, texts: Sequence[Text], batch_size: int = 32, mask_rest_of_word: bool = False
    ) -> list[Score]:
        """Returns the score of each text; of a pair, that of the tokens of both.

        Args:
          texts: strings or pairs of them.
          batch_size: sequences in a batch, one for each token.
          mask_rest_of_word: mask the later pieces of the token's word, too, so that they do not
            give it away: Kauf and Ivanova, 2023, https://arxiv.org/abs/2305.10588 (PLL-word-l2r).
        """
        encoded = self._model.encode(texts)
        places = [_places(one) for one in encoded]
        found = [np.zeros(len(of_one), np.float32) for of_one in places]
        todo = [(number, n) for number, of_one in enumerate(places) for n in range(len(of_one))]
        lengths = [len(encoded[number].input_ids) for number, _ in todo]
        for numbers in batches.by_length(lengths, batch_size, 0):  # V numbers for each sequence
            batch = [todo[number] for number in numbers]
            rows = [
                self._masked(encoded[number], places[number][n], mask_rest_of_word)
                for number, n in batch
            ]
            for (number, n), value in zip(batch, self._model.run_batch(rows)[:, 0]):
                found[number][n] = value
        to_tokens = self._model.tokenizer.convert_ids_to_tokens
        return [
            Score(tuple(to_tokens(one.input_ids[place] for place in of_one)), values, one.cut)
            for one, of_one, values in zip(encoded, places, found)
        ]

    def _masked(self, encoded: Encoded, place: int, rest_of_word: bool) -> dict[str, list[int]]:
        """Returns the inputs for a sequence with the token at a place masked."""
        tokenizer = self._model.tokenizer
        ids, end = list(encoded.input_ids), place + 1
        while rest_of_word and tokenizer.inv_vocab[ids[end]].startswith("##"):
            end += 1  # [SEP] ends it at the latest
        ids[place:end] = [tokenizer.vocab[MASK]] * (end - place)
        return {
            **features(encoded._replace(input_ids=ids)),
            "masked_lm_positions": [place],
            "masked_lm_ids": [encoded.input_ids[place]],
        }


def _places(encoded: Encoded) -> list[int]:
    """Returns the positions of a sequence but those of its [CLS] and [SEP]."""
    length = len(encoded.input_ids)
    first = encoded.segment_ids.count(0)
    return [*range(1, first - 1), *range(first, length - 1)]


class NextSentence(PretrainedModel):
    """Tells whether texts follow one another, by a model with the next-sentence head."""

    HEAD = NEXT_SENTENCE

    def _check(self, checkpoint: str) -> None:
        # Pretraining without next sentences saves the head as it was made.
        if not np.any(self._model.weight("cls/seq_relationship/output_bias")):
            raise UserError(
                f"{checkpoint}: its next-sentence head was not trained (its bias is zero, as at the"
                " start); use a model that was trained on pairs (--use_next_sentence)"
            )

    def predict(self, pairs: Sequence[tuple[str, str]], batch_size: int = 32) -> np.ndarray:
        """Returns the probability that the second text of each pair follows the first, float32 [N].

        Of a model of --sentence_order, that they are not swapped.
        """
        return self._model.run(pairs, batch_size)[:, 0]
