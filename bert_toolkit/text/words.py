"""Words in place of WordPieces: which pieces make a word, and where it stands in the text."""

import dataclasses
import re
from collections.abc import Iterable, Sequence

import numpy as np

PIECES, WORDS, SPACES = "pieces", "words", "spaces"


@dataclasses.dataclass(frozen=True)
class Words:
    """The words of a line; special tokens are not among them.

    Attributes:
      texts: each as the line has it, T of them.
      pieces: int [T, 2], the word is made of tokens [begin, end) of the line, [CLS] being 0.
      offsets: int [T, 2], and of characters [begin, end) of it.
    """

    texts: list[str]
    pieces: np.ndarray
    offsets: np.ndarray

    def vectors(self, states: np.ndarray, word_vector: str) -> np.ndarray:
        """States of tokens -> of words, [.., D] -> [T, D]: "mean" of the pieces, or the "first"."""
        if word_vector == "first" or not len(self.texts):
            return states[self.pieces[:, 0]]
        # Every second sum is of what lies between two words.
        sums = np.add.reduceat(states, self.pieces.ravel())[::2]
        return sums / (self.pieces[:, 1] - self.pieces[:, 0])[:, None].astype(sums.dtype)


def find_words(
    line: str,
    pieces: Sequence[Sequence[str]],
    offsets: Sequence[Sequence[tuple[int, int]]],
    align: str,
) -> Words:
    """Finds the words of a line.

    Args:
      line: the text.
      pieces: the WordPieces of each of its one or two texts.
      offsets: the characters of `line` that each of them stands for.
      align: "words" for the words that tokenization makes (punctuation marks and Chinese
        characters are some of them), "spaces" for what stands between white space.
    """
    found: list[tuple[int, int, int, int]] = []  # pieces [begin, end), characters [begin, end)
    position = 1  # after [CLS]
    for names, places in zip(pieces, offsets):
        for first, last in _groups(line, names, places, align):
            begin, end = places[first][0], places[last - 1][1]
            found.append((position + first, position + last, begin, end))
        position += len(names) + 1  # [SEP]
    table = np.array(found, np.int64).reshape(-1, 4)
    texts = [line[begin:end] for _, _, begin, end in found]
    return Words(texts, table[:, :2], table[:, 2:])


def _groups(
    line: str, names: Sequence[str], places: Sequence[tuple[int, int]], align: str
) -> Iterable[tuple[int, int]]:
    """Yields the pieces [first, last) of each word."""
    first = 0
    for index in range(1, len(names)):
        between = line[places[index - 1][1] : places[index][0]]
        inside = names[index].startswith("##") and len(names[index]) > 2
        if not inside and (align == WORDS or re.search(r"\s", between)):
            yield first, index
            first = index
    if names:
        yield first, len(names)
