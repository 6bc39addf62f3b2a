"""From texts to what the model reads: where [CLS] and [SEP] are put and texts are cut."""

from typing import NamedTuple, Optional

from tokenization import CLASSIFY, SEPARATE, FullTokenizer

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


def encode(
    tokenizer: FullTokenizer, text_a: str, text_b: Optional[str], max_seq_length: int
) -> Encoded:
    """Tokenizes one text or two, cuts them to fit `max_seq_length` and puts the special tokens."""
    first = tokenizer.encode(text_a)
    second = tokenizer.encode(text_b) if text_b else []
    before = len(first) + len(second)
    if second:
        truncate_pair(first, second, max_seq_length - SPECIAL_TOKENS_OF_PAIR)
    else:
        del first[max_seq_length - SPECIAL_TOKENS_OF_SINGLE :]
    cut = before - len(first) - len(second)
    vocab = tokenizer.vocab
    input_ids, length_a = join_segments(first, second, vocab[CLASSIFY], vocab[SEPARATE])
    return Encoded(input_ids, [0] * length_a + [1] * (len(input_ids) - length_a), cut)


def truncate_pair(first: list[int], second: list[int], max_tokens: int) -> None:
    """Cuts tokens off the end of the longer text, one by one, until both fit together.

    A token of a short text says more than one of a long text, so the shares are not kept equal.
    """
    while len(first) + len(second) > max_tokens:
        (first if len(first) > len(second) else second).pop()


def join_segments(
    first: list[int], second: list[int], cls_id: int, sep_id: int
) -> tuple[list[int], int]:
    """Returns [CLS] first [SEP], and second [SEP] if there is one; and the first part's length."""
    input_ids = [cls_id, *first, sep_id]
    first_part = len(input_ids)
    if second:
        input_ids += [*second, sep_id]
    return input_ids, first_part
