"""Pretraining instances from documents: next-sentence pairs and masked tokens.

For one seed the instances, and their order, are those of the script published with the BERT paper:
every random number is drawn in the same place. A document is a list of sentences, a sentence a list
of token ids.
"""

import dataclasses
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bert_toolkit import features
from tokenization import CLASSIFY, MASK, SEPARATE, FullTokenizer

Sentence = list[int]
Document = list[Sentence]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How instances are made; the names are those of the flags."""

    max_seq_length: int
    max_predictions_per_seq: int
    masked_lm_prob: float
    short_seq_prob: float
    dupe_factor: int
    do_whole_word_mask: bool


class Vocabulary:
    """What masking needs to know of a vocabulary, in ids."""

    def __init__(self, tokenizer: FullTokenizer):
        vocab = tokenizer.vocab
        self.cls, self.sep, self.mask = vocab[CLASSIFY], vocab[SEPARATE], vocab[MASK]
        self.replacements = list(vocab.values())  # in the order of the file
        self.inside_words = {index for token, index in vocab.items() if token.startswith("##")}


class Instance(NamedTuple):
    """One training instance, unpadded.

    Attributes:
      input_ids: [CLS] first segment [SEP] second segment [SEP], after masking.
      first_segment: tokens of the first segment with its [CLS] and [SEP].
      masked_positions: positions to predict, ascending.
      masked_ids: what stood at those positions.
      is_random_next: whether the second segment comes from another document.
    """

    input_ids: list[int]
    first_segment: int
    masked_positions: list[int]
    masked_ids: list[int]
    is_random_next: bool


def create_instances(
    documents: list[Document], vocabulary: Vocabulary, settings: Settings, rng: random.Random
) -> list[Instance]:
    """Returns the instances of all documents, `dupe_factor` times with new masks, shuffled.

    Args:
      documents: none empty, no sentence in them empty; shuffled in place first.
      vocabulary: of the tokenizer that made them.
      settings: how to make instances.
      rng: seeded with --random_seed.
    """
    rng.shuffle(documents)
    instances = [
        instance
        for _ in range(settings.dupe_factor)
        for index in range(len(documents))
        for instance in _document_instances(documents, index, vocabulary, settings, rng)
    ]
    rng.shuffle(instances)
    return instances


def _document_instances(
    documents: Sequence[Document],
    index: int,
    vocabulary: Vocabulary,
    settings: Settings,
    rng: random.Random,
) -> Iterator[Instance]:
    """Yields the instances of one document: pairs of segments that fill a sequence.

    Most sequences are filled as far as they go; a share of `short_seq_prob` documents aims at a
    random shorter length, so that fine-tuning on short texts meets a model that has seen some.
    """
    document = documents[index]
    max_tokens = settings.max_seq_length - features.SPECIAL_TOKENS_OF_PAIR
    target = max_tokens
    if rng.random() < settings.short_seq_prob:
        target = rng.randint(2, max_tokens)

    chunk: list[Sentence] = []  # sentences that the next instance is made of
    length = position = 0
    while position < len(document):
        chunk.append(document[position])
        length += len(document[position])
        if length >= target or position == len(document) - 1:
            # The first segment takes some of the sentences, the second the rest or a random text.
            split = rng.randint(1, len(chunk) - 1) if len(chunk) > 1 else 1
            first = _join(chunk[:split])
            is_random_next = len(chunk) == 1 or rng.random() < 0.5
            if is_random_next:
                second = _random_text(documents, index, target - len(first), rng)
                position -= len(chunk) - split  # the sentences not used come again
            else:
                second = _join(chunk[split:])
            _truncate_at_random(first, second, max_tokens, rng)
            yield _masked_instance(first, second, is_random_next, vocabulary, settings, rng)
            chunk, length = [], 0
        position += 1


def _join(sentences: Sequence[Sentence]) -> list[int]:
    return [token for sentence in sentences for token in sentence]


def _random_text(
    documents: Sequence[Document], index: int, length: int, rng: random.Random
) -> list[int]:
    """Returns sentences from a random place of another document, about `length` tokens."""
    for _ in range(10):  # with few documents chance may not find another; with many, once is enough
        other = rng.randint(0, len(documents) - 1)
        if other != index:
            break
    document = documents[other]
    text: list[int] = []
    for sentence in document[rng.randint(0, len(document) - 1) :]:
        text += sentence
        if len(text) >= length:
            break
    return text


def _truncate_at_random(
    first: list[int], second: list[int], max_tokens: int, rng: random.Random
) -> None:
    """Cuts the longer segment by a token, at either end by chance, until both fit together."""
    while len(first) + len(second) > max_tokens:
        longer = first if len(first) > len(second) else second
        if rng.random() < 0.5:
            del longer[0]
        else:
            longer.pop()


def _masked_instance(
    first: list[int],
    second: list[int],
    is_random_next: bool,
    vocabulary: Vocabulary,
    settings: Settings,
    rng: random.Random,
) -> Instance:
    input_ids, first_segment = features.join_segments(first, second, vocabulary.cls, vocabulary.sep)
    positions = _choose_positions(input_ids, vocabulary, settings, rng)
    original = list(input_ids)
    for position in positions:
        # 80 % [MASK], 10 % as it was, 10 % any token of the vocabulary (paper, section 3.1).
        if rng.random() < 0.8:
            input_ids[position] = vocabulary.mask
        elif rng.random() >= 0.5:
            input_ids[position] = vocabulary.replacements[
                rng.randint(0, len(vocabulary.replacements) - 1)
            ]
    masked_positions = sorted(positions)
    masked_ids = [original[position] for position in masked_positions]
    return Instance(input_ids, first_segment, masked_positions, masked_ids, is_random_next)


def _choose_positions(
    input_ids: list[int], vocabulary: Vocabulary, settings: Settings, rng: random.Random
) -> list[int]:
    """Returns the positions to predict in the order chosen, whole words together if asked."""
    groups: list[list[int]] = []
    for position, token in enumerate(input_ids):
        if token in (vocabulary.cls, vocabulary.sep):
            continue
        if settings.do_whole_word_mask and groups and token in vocabulary.inside_words:
            groups[-1].append(position)
        else:
            groups.append([position])
    rng.shuffle(groups)
    wanted = min(
        settings.max_predictions_per_seq, max(1, round(len(input_ids) * settings.masked_lm_prob))
    )
    positions: list[int] = []
    for group in groups:
        if len(positions) >= wanted:
            break
        if len(positions) + len(group) <= wanted:
            positions += group
    return positions
