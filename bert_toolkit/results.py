"""What models say of texts, as callers get it; without TensorFlow, for clients of a server too."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Prediction(NamedTuple):
    """What a classifier says of a text.

    Attributes:
      label: the answer: a label, labels with commas between them, a number, or "other".
      probabilities: label -> probability; empty where a number is predicted.
    """

    label: str
    probabilities: dict[str, float]


class Candidate(NamedTuple):
    """What may stand in place of a [MASK].

    Attributes:
      word: the pieces, joined.
      pieces: WordPiece tokens.
      probability: of the piece at this [MASK]; of several pieces the product of each one's, given
        the text and the pieces before it, with [MASK] at those after it. Other [MASK]s of the text
        stay.
      text: with the word in place of this [MASK].
    """

    word: str
    pieces: tuple[str, ...]
    probability: float
    text: str


class Entity(NamedTuple):
    """An entity of a text.

    Attributes:
      text: as it stands there; of words, joined by spaces.
      type: what it is.
      start, end: its characters [start, end) in the text; of words, their numbers.
      score: mean probability of the tags of its words.
    """

    text: str
    type: str
    start: int
    end: int
    score: float


class Answer(NamedTuple):
    """What a model says of a question.

    Attributes:
      text: the answer; empty if there is none.
      start: its first character in the context; 0 if there is none.
      end: the character after its last.
      probability: among the best answers, and no answer where there may be none.
    """

    text: str
    start: int
    end: int
    probability: float


class Neighbor(NamedTuple):
    """A line near to a text.

    Attributes:
      line: its number in its file, from 1.
      text: the line.
      cosine: of the angle between the vectors of the two, -1 to 1.
    """

    line: int
    text: str
    cosine: float


class Attention(NamedTuple):
    """What each token of a text takes in of every other.

    Attributes:
      tokens: T pieces, special ones included.
      segments: 0 of each token of the first text, 1 of the second's.
      weights: float32 [L, N, T, T], by layer, head, token, and what it takes in; the last axis
        sums to 1.
    """

    tokens: Sequence[str]
    segments: Sequence[int]
    weights: np.ndarray
