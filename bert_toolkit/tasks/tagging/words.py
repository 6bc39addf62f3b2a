"""From words to what the model reads, and from its outputs back to words: each word once."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from bert_toolkit.text.encoding import Encoded, SequenceEncoder
from tokenization import UNKNOWN, FullTokenizer


class Part(NamedTuple):
    """A window of a sentence.

    Attributes:
      encoded: the sequence.
      places: where the first pieces of its own words are in it; the words at its ends, which have
        more text around them in another window, are not its own.
      first_word: which word of the sentence the first of them is.
    """

    encoded: Encoded
    places: list[int]
    first_word: int


@dataclasses.dataclass(frozen=True)
class WordEncoder:
    """Makes the sequences that a model reads of sentences.

    Attributes:
      tokenizer: of the model.
      max_seq_length: longest sequence in tokens.
      doc_stride: how many tokens apart the windows of a longer sentence begin; 0 for half of it.
    """

    tokenizer: FullTokenizer
    max_seq_length: int
    doc_stride: int = 0

    def encode(self, words: Sequence[str]) -> list[Part]:
        """Returns the windows of a sentence; every word is in one of them, and in one only."""
        unknown = [self.tokenizer.vocab[UNKNOWN]]
        # A word of control characters has no piece; it still has a tag.
        pieces = [self.tokenizer.encode(word) or unknown for word in words]
        firsts = np.cumsum([0, *map(len, pieces)])[:-1]
        stride = self.doc_stride or self.max_seq_length // 2
        encoder = SequenceEncoder(self.tokenizer, self.max_seq_length, doc_stride=stride)
        parts = []
        for window in encoder.windows([number for piece in pieces for number in piece], []):
            places = firsts - window.start + window.before
            own = np.flatnonzero((window.begin <= places) & (places < window.end))
            first_word = int(own[0]) if len(own) else 0
            parts.append(Part(window.encoded, places[own].tolist(), first_word))
        return parts


def join(parts: Iterable[tuple[int, np.ndarray]], length: int, labels: int) -> np.ndarray:
    """Returns the outputs for the words of a sentence, [length, L], from those of its windows.

    `parts` are (first word, outputs [words, L]).
    """
    joined = np.zeros((length, labels), np.float32)
    for first, values in parts:
        joined[first : first + len(values)] = values
    return joined
