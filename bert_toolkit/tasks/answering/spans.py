"""Windows of a question and its text, and the best spans of their scores."""

import functools
from typing import NamedTuple, Optional

import numpy as np

from bert_toolkit.tasks.answering.question_data import Question
from bert_toolkit.text.encoding import SequenceEncoder, Window
from tokenization import FullTokenizer

# Questions and contexts whose tokens are remembered, where records that are sorted by length
# together come back in another order than their questions have.
REMEMBERED = 8192


class Tokens(NamedTuple):
    """A context in tokens.

    Attributes:
      ids: T of them.
      offsets: int32 [T, 2], the characters [begin, end) that each stands for.
    """

    ids: list[int]
    offsets: np.ndarray


class Place(NamedTuple):
    """Where a window has the context.

    Attributes:
      first, last: its positions [first, last) hold tokens of the context.
      begin, end: those of [begin, end) have no more text around them in another window.
      start: the token of the context at `first`.
    """

    first: int
    last: int
    begin: int
    end: int
    start: int


class Span(NamedTuple):
    """An answer that a window offers: its characters [begin, end) of the context, and scores."""

    begin: int
    end: int
    start_logit: float
    end_logit: float

    @property
    def score(self) -> float:
        """What spans are compared by."""
        return self.start_logit + self.end_logit


class QuestionEncoder:
    """Makes windows of a question and the text that may answer it; usable by several threads."""

    def __init__(
        self,
        tokenizer: FullTokenizer,
        max_seq_length: int,
        max_query_length: int,
        doc_stride: int,
        remembered: int = REMEMBERED,
    ):
        """Takes the lengths, see the flags of these names, and how many contexts to remember."""
        self._tokenizer, self._max_query_length = tokenizer, max_query_length
        self._encoder = SequenceEncoder(tokenizer, max_seq_length, doc_stride=doc_stride)
        self.tokens = functools.lru_cache(remembered)(self._tokens)
        self.places = functools.lru_cache(remembered)(self._places)

    def _tokens(self, context: str) -> Tokens:
        names, offsets = self._tokenizer.tokenize_with_offsets(context)
        ids = self._tokenizer.convert_tokens_to_ids(names)
        return Tokens(ids, np.array(offsets, np.int32).reshape(-1, 2))

    def windows(self, question: str, context: str) -> list[Window]:
        """Returns the windows: [CLS] question [SEP] a part of the context [SEP]."""
        query = self._tokenizer.encode(question)[: self._max_query_length]
        return self._encoder.windows(query, self.tokens(context).ids)

    def _places(self, question: str, context: str) -> list[Place]:
        """Returns where each window has the context."""
        return [place_of(window) for window in self.windows(question, context)]

    def positions(self, question: Question, window: Window) -> tuple[int, int]:
        """Returns the first and last position of the first true answer; 0, 0 if it is not there."""
        if not question.answers:
            return 0, 0
        offsets = self.tokens(question.context).offsets
        answer, place = question.answers[0], place_of(window)
        inside = (offsets[:, 1] > answer.start) & (offsets[:, 0] < answer.start + len(answer.text))
        [tokens] = np.nonzero(inside)
        if not len(tokens):
            return 0, 0
        first, last = (place.first + int(token) - place.start for token in tokens[[0, -1]])
        return (first, last) if place.first <= first and last < place.last else (0, 0)


def place_of(window: Window) -> Place:
    """Returns where a window has the context; it ends with [SEP]. Nowhere, if it has no token."""
    length = len(window.encoded.input_ids)
    if 1 not in window.encoded.segment_ids:
        return Place(length, length, length, length, 0)
    last = max(window.before, length - 1)
    return Place(window.before, last, window.begin, window.end, window.start)


def best_spans(
    logits: np.ndarray, place: Place, offsets: np.ndarray, count: int, longest: int
) -> list[Span]:
    """Returns the spans that a window offers, best first: as published.

    Each of the `count` best starts goes with each of the `count` best ends; a start counts only in
    the window where it has the most context.

    Args:
      logits: float32 [S, 2], scores of starts and ends.
      place: where the window has the context.
      offsets: int [T, 2], the characters of the context's tokens.
      count: how many starts and ends to look at.
      longest: most tokens of an answer.
    """
    starts, ends = (np.argsort(-logits[:, n], kind="stable")[:count] for n in (0, 1))
    first, last = max(place.first, place.begin), min(place.last, place.end)
    starts = starts[(starts >= first) & (starts < last)]
    ends = ends[(ends >= place.first) & (ends < place.last)]
    lengths = ends[None, :] - starts[:, None] + 1  # [starts, ends]
    rows, columns = np.nonzero((lengths >= 1) & (lengths <= longest))
    starts, ends = starts[rows], ends[columns]
    scores = logits[starts, 0] + logits[ends, 1]
    order = np.argsort(-scores, kind="stable")
    shift = place.start - place.first
    return [
        Span(
            int(offsets[start + shift, 0]),
            int(offsets[end + shift, 1]),
            float(logits[start, 0]),
            float(logits[end, 1]),
        )
        for start, end in zip(starts[order], ends[order])
    ]


class NBest:
    """The best spans of each of many questions, in arrays of fixed size, and their null scores.

    Attributes:
      null: float32 [N, 2], the scores of [CLS] as start and end, in the window where they are least
        in sum.
    """

    def __init__(self, questions: int, size: int):
        """Makes room for `size` spans of each question."""
        self.size = size
        self._begins = np.zeros((questions, size), np.int32)
        self._ends = np.zeros((questions, size), np.int32)
        self._logits = np.zeros((questions, size, 2), np.float32)
        self._counts = np.zeros(questions, np.int32)
        self.null = np.full((questions, 2), np.inf, np.float32)

    def add(self, number: int, context: str, spans: list[Span], null: np.ndarray) -> None:
        """Takes the spans of a window; of those with one text the best is kept."""
        if null.sum() < self.null[number].sum():
            self.null[number] = null
        merged = sorted([*self.spans(number), *spans], key=lambda span: -span.score)
        kept: dict[str, Span] = {}
        for span in merged:
            kept.setdefault(context[span.begin : span.end], span)
            if len(kept) == self.size:
                break
        self._counts[number] = len(kept)
        for place, span in enumerate(kept.values()):
            self._begins[number, place], self._ends[number, place] = span.begin, span.end
            self._logits[number, place] = span.start_logit, span.end_logit

    def spans(self, number: int) -> list[Span]:
        """Returns the spans of a question, best first."""
        return [self._span(number, place) for place in range(self._counts[number])]

    def best(self, number: int) -> Optional[Span]:
        """Returns the best span of a question; None if no window offers one."""
        return self._span(number, 0) if self._counts[number] else None

    def _span(self, number: int, place: int) -> Span:
        return Span(
            int(self._begins[number, place]),
            int(self._ends[number, place]),
            *map(float, self._logits[number, place]),
        )
