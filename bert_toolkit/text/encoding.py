"""From texts to what the model reads: where [CLS] and [SEP] are put and texts are cut."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Optional

from tokenization import CLASSIFY, SEPARATE, UNKNOWN, FullTokenizer

SPECIAL_TOKENS_OF_PAIR = 3  # [CLS] a [SEP] b [SEP]
SPECIAL_TOKENS_OF_SINGLE = 2  # [CLS] a [SEP]


class Encoded(NamedTuple):
    """A text or a pair of texts as the model reads it, unpadded.

    Attributes:
      input_ids: token ids with [CLS] and [SEP].
      segment_ids: 0 for the first text with its [CLS] and [SEP], 1 for the second with its [SEP].
      cut: how many tokens were cut off to fit.
    """

    input_ids: list[int]
    segment_ids: list[int]
    cut: int


def count_unknown(tokenizer: FullTokenizer, encoded: Sequence[Encoded]) -> tuple[int, int]:
    """Returns how many tokens of texts are [UNK], and how many there are, without special ones."""
    unknown = tokenizer.vocab[UNKNOWN]
    special = (tokenizer.vocab[CLASSIFY], tokenizer.vocab[SEPARATE])
    ids = [number for each in encoded for number in each.input_ids if number not in special]
    return ids.count(unknown), len(ids)


# What is kept of a text that is too long: its beginning, its end, or some of both.
HEAD, TAIL, HEAD_TAIL = "head", "tail", "head_tail"
# Of a cut text, the share that is its beginning where both ends are kept, as Sun et al. found best
# (2019, https://arxiv.org/abs/1905.05583, section 5.3.1: 128 tokens of 510).
HEAD_SHARE = 0.25


class Window(NamedTuple):
    """A part of a long text as the model reads it.

    Attributes:
      encoded: the sequence.
      begin, end: its tokens [begin, end) have no more text around them in another window. These of
        all windows, one after the other, are the whole text with its special tokens.
      before: how many tokens come before those of the text that windows move over.
      start: where in that text the window starts, in tokens.
    """

    encoded: Encoded
    begin: int
    end: int
    before: int = 1
    start: int = 0


@dataclasses.dataclass(frozen=True)
class SequenceEncoder:
    """Makes the sequences that a model reads of texts, one text or a pair at a time.

    Attributes:
      tokenizer: of the model.
      max_seq_length: longest sequence in tokens, special ones included.
      truncate: what is kept of longer texts: HEAD, TAIL or HEAD_TAIL.
      doc_stride: if not 0, longer texts are not cut but covered by windows that begin so many
        tokens apart. Of a pair it is the second text that windows move over; the first is cut to
        half the length.
    """

    tokenizer: FullTokenizer
    max_seq_length: int
    truncate: str = HEAD
    doc_stride: int = 0

    def encode(self, text_a: str, text_b: Optional[str] = None) -> list[Encoded]:
        """Returns the sequences of one text or two: one, or its windows."""
        first = self.tokenizer.encode(text_a)
        second = self.tokenizer.encode(text_b) if text_b else []
        return [window.encoded for window in self.windows(first, second)]

    def windows(self, first: list[int], second: list[int]) -> list[Window]:
        """Returns the windows of texts in token ids; one where they are cut."""
        if self.doc_stride:
            return _cover(self.tokenizer, first, second, self.max_seq_length, self.doc_stride)
        encoded = _join_and_cut(self.tokenizer, first, second, self.max_seq_length, self.truncate)
        before = encoded.segment_ids.count(0) if second else 1
        return [Window(encoded, 0, len(encoded.input_ids), before)]


def _cover(
    tokenizer: FullTokenizer, first: list[int], second: list[int], max_seq_length: int, stride: int
) -> list[Window]:
    """Returns the windows of a text or a pair in token ids, as SequenceEncoder has them."""
    cut = 0
    if second:
        if len(first) + len(second) + SPECIAL_TOKENS_OF_PAIR > max_seq_length:
            kept = min(max_seq_length // 2, max_seq_length - SPECIAL_TOKENS_OF_PAIR - 1)
            cut = max(0, len(first) - kept)
            first = first[:kept]
        before = len(first) + 2  # [CLS] first [SEP]
        room = max_seq_length - SPECIAL_TOKENS_OF_PAIR - len(first)
    else:
        before = 1
        room = max_seq_length - SPECIAL_TOKENS_OF_SINGLE
    moving = second or first
    step = min(stride, room)
    starts = list(range(0, max(1, len(moving) - room + step), step))
    # What two windows share is divided in the middle; the special tokens at its ends are kept once.
    middles = [start + (room - step) // 2 for start in starts[1:]]
    begins = [0, *(before + middle - start for middle, start in zip(middles, starts[1:]))]
    ends = [before + middle - start for middle, start in zip(middles, starts)]
    windows = []
    for start, begin, end in zip(starts, begins, [*ends, None]):
        part = moving[start : start + room]
        texts = (first, part) if second else (part, [])
        encoded = _join_and_cut(tokenizer, *texts, max_seq_length)._replace(cut=cut)
        end = len(encoded.input_ids) if end is None else end
        windows.append(Window(encoded, begin, end, before, start))
    return windows


def _join_and_cut(
    tokenizer: FullTokenizer,
    first: list[int],
    second: list[int],
    max_seq_length: int,
    truncate: str = HEAD,
) -> Encoded:
    """Returns the sequence of texts in token ids, cut to fit, with the special tokens."""
    before = len(first) + len(second)
    if second:
        lengths = shares(len(first), len(second), max_seq_length - SPECIAL_TOKENS_OF_PAIR)
        first, second = _cut(first, lengths[0], truncate), _cut(second, lengths[1], truncate)
    else:
        first = _cut(first, max_seq_length - SPECIAL_TOKENS_OF_SINGLE, truncate)
    cut = before - len(first) - len(second)
    vocab = tokenizer.vocab
    input_ids, length_a = join_segments(first, second, vocab[CLASSIFY], vocab[SEPARATE])
    return Encoded(input_ids, [0] * length_a + [1] * (len(input_ids) - length_a), cut)


def _cut(tokens: list[int], length: int, truncate: str) -> list[int]:
    if len(tokens) <= length:
        return tokens
    head = {HEAD: length, TAIL: 0, HEAD_TAIL: int(length * HEAD_SHARE)}[truncate]
    return tokens[:head] + tokens[len(tokens) - (length - head) :]


def shares(first: int, second: int, room: int) -> tuple[int, int]:
    """Returns what is left of two lengths when the longer is cut by one until both fit.

    A token of a short text says more than one of a long text, so the shares are not kept equal.
    """
    over = max(0, first + second - room)
    from_longer = min(over, abs(first - second))
    rest = over - from_longer
    if first > second:
        first -= from_longer
    else:
        second -= from_longer
    # Of two equal ones the second is cut first.
    return first - rest // 2, second - (rest + 1) // 2


def join_segments(
    first: list[int], second: list[int], cls_id: int, sep_id: int
) -> tuple[list[int], int]:
    """Returns [CLS] first [SEP], and second [SEP] if there is one; and the first part's length."""
    input_ids = [cls_id, *first, sep_id]
    first_part = len(input_ids)
    if second:
        input_ids += [*second, sep_id]
    return input_ids, first_part
