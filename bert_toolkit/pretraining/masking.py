"""Pretraining instances from documents: segments to tell apart and masked tokens to predict.

With the settings that the published script has, and one seed, the instances and their order are
its own: every random number is drawn in the same place. A document is a list of sentences, a
sentence a list of token ids.
"""

import array
import dataclasses
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bert_toolkit.text import encoding
from tokenization import CLASSIFY, MASK, SEPARATE, FullTokenizer

Sentence = list[int]
Document = list[Sentence]

# Added to the id of a token that goes on with a word, where the text itself marks words.
CONTINUES_WORD = 1 << 24


@dataclasses.dataclass(frozen=True)
class Settings:
    """How instances are made; the names are those of the flags.

    `static_masks` false leaves the tokens as they are: they are masked while training.
    """

    max_seq_length: int
    max_predictions_per_seq: int
    masked_lm_prob: float
    short_seq_prob: float
    dupe_factor: int
    do_whole_word_mask: bool
    max_ngram: int = 1
    use_next_sentence: bool = True
    sentence_order: bool = False
    pack_documents: bool = False
    static_masks: bool = True
    words_are_marked: bool = False

    @property
    def whole_words(self) -> bool:
        """Whether the tokens of a word are masked together."""
        return self.do_whole_word_mask or self.words_are_marked

    @property
    def needs_two_documents(self) -> bool:
        """Whether second segments come from other documents."""
        return self.use_next_sentence and not self.sentence_order


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
      input_ids: [CLS] first segment [SEP], and second segment [SEP] if there are two; masked.
      first_segment: tokens of the first segment with its [CLS] and [SEP].
      masked_positions: positions to predict, ascending.
      masked_ids: what stood at those positions.
      is_random_next: whether the second segment comes from another document or, for sentence
        order, the two were swapped.
      word_starts: 1 for each token that begins a word, where masking while training needs it.
    """

    input_ids: Sequence[int]
    first_segment: int
    masked_positions: Sequence[int]
    masked_ids: Sequence[int]
    is_random_next: bool
    word_starts: Sequence[int] = ()


def create_instances(
    documents: list[Document],
    vocabulary: Vocabulary,
    settings: Settings,
    rngs: Sequence[random.Random],
) -> Iterator[Instance]:
    """Yields the instances of all documents, once for each of `rngs`, with new masks, shuffled.

    Args:
      documents: none empty, no sentence in them empty; shuffled in place first.
      vocabulary: of the tokenizer that made them.
      settings: how to make instances.
      rngs: the source of chance of each repetition; the published script has one for all.
    """
    rngs[0].shuffle(documents)
    # All instances wait here for the shuffle: as bytes they take a fifth of the room of lists.
    code = "H" if max(vocabulary.replacements) < 1 << 16 else "I"
    packed = []
    for rng in rngs:
        masker = Masker(vocabulary, settings, rng)
        for segments in _all_segments(documents, settings, vocabulary, rng):
            packed.append(_pack(masker.instance(*segments), code))
    rngs[-1].shuffle(packed)
    for data in packed:
        yield _unpack(data, code)


def _pack(instance: Instance, code: str) -> bytes:
    ids, first, positions, masked, is_random, starts = instance
    head = [first, is_random, len(positions), len(starts)]
    return array.array(code, [*head, *positions, *masked, *starts, *ids]).tobytes()


def _unpack(data: bytes, code: str) -> Instance:
    numbers = array.array(code, data)
    first, is_random, num_masked, num_starts = numbers[:4]
    positions_end = 4 + num_masked
    masked_end = positions_end + num_masked
    starts_end = masked_end + num_starts
    return Instance(
        numbers[starts_end:],
        first,
        numbers[4:positions_end],
        numbers[positions_end:masked_end],
        bool(is_random),
        numbers[masked_end:starts_end],
    )


# --- Segments ---

_Segments = tuple[list[int], list[int], bool]  # first, second, whether the second is a random next


def _all_segments(
    documents: Sequence[Document], settings: Settings, vocabulary: Vocabulary, rng: random.Random
) -> Iterator[_Segments]:
    if settings.pack_documents:
        stream: list[int] = []
        for document in documents:
            stream += [*_join(document), vocabulary.sep]
        yield from _windows(stream[:-1], settings, rng)
        return
    for index, document in enumerate(documents):
        if settings.use_next_sentence:
            yield from _pairs(documents, index, settings, rng)
        else:
            yield from _windows(_join(document), settings, rng)


def _windows(text: list[int], settings: Settings, rng: random.Random) -> Iterator[_Segments]:
    """Cuts text into single segments that fill their sequences."""
    max_tokens = settings.max_seq_length - encoding.SPECIAL_TOKENS_OF_SINGLE
    start = 0
    while start < len(text):
        target = max_tokens
        if rng.random() < settings.short_seq_prob:
            target = rng.randint(2, max_tokens)
        yield text[start : start + target], [], False
        start += target


def _pairs(
    documents: Sequence[Document], index: int, settings: Settings, rng: random.Random
) -> Iterator[_Segments]:
    """Yields the pairs of segments of one document, each filling a sequence.

    Most sequences are filled as far as they go; a share of `short_seq_prob` documents aims at a
    random shorter length, so that fine-tuning on short texts meets a model that has seen some.
    """
    document = documents[index]
    max_tokens = settings.max_seq_length - encoding.SPECIAL_TOKENS_OF_PAIR
    target = max_tokens
    if rng.random() < settings.short_seq_prob:
        target = rng.randint(2, max_tokens)

    chunk: list[Sentence] = []  # sentences that the next instance is made of
    length = position = 0
    while position < len(document):
        chunk.append(document[position])
        length += len(document[position])
        if length >= target or position == len(document) - 1:
            if settings.sentence_order:
                first, second, swapped = _ordered_or_swapped(chunk, rng)
                if second:
                    yield *_truncated_at_random(first, second, max_tokens, rng), swapped
            else:
                # The first segment takes some of the sentences, the second the rest or a random
                # text.
                split = rng.randint(1, len(chunk) - 1) if len(chunk) > 1 else 1
                first = _join(chunk[:split])
                is_random_next = len(chunk) == 1 or rng.random() < 0.5
                if is_random_next:
                    second = _random_text(documents, index, target - len(first), rng)
                    position -= len(chunk) - split  # the sentences not used come again
                else:
                    second = _join(chunk[split:])
                yield *_truncated_at_random(first, second, max_tokens, rng), is_random_next
            chunk, length = [], 0
        position += 1


def _ordered_or_swapped(chunk: Sequence[Sentence], rng: random.Random) -> _Segments:
    """Two halves of a text, in their order or not (ALBERT, Lan et al., 2020, section 3.1).

    A single sentence is cut inside; the second segment is empty if it has one token only.
    """
    if len(chunk) == 1:
        chunk = [[token] for token in chunk[0]]
    if len(chunk) == 1:
        return chunk[0], [], False
    split = rng.randint(1, len(chunk) - 1)
    first, second = _join(chunk[:split]), _join(chunk[split:])
    swapped = rng.random() < 0.5
    return (second, first, True) if swapped else (first, second, False)


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


def _truncated_at_random(
    first: list[int], second: list[int], max_tokens: int, rng: random.Random
) -> tuple[list[int], list[int]]:
    """Cuts the longer segment by a token, at either end by chance, until both fit together."""
    starts, ends = [0, 0], [len(first), len(second)]
    while ends[0] - starts[0] + ends[1] - starts[1] > max_tokens:
        longer = 0 if ends[0] - starts[0] > ends[1] - starts[1] else 1
        if rng.random() < 0.5:
            starts[longer] += 1
        else:
            ends[longer] -= 1
    return first[starts[0] : ends[0]], second[starts[1] : ends[1]]


# --- Masks ---


class Masker:
    """Masks tokens of sequences."""

    def __init__(self, vocabulary: Vocabulary, settings: Settings, rng: random.Random):
        self.vocabulary, self.settings, self.rng = vocabulary, settings, rng
        self.places = list(range(settings.max_seq_length))  # slices of it are quicker than ranges
        # A span of n words is chosen with a probability that falls as 1 / n (ALBERT, section 4.1).
        self.span_lengths = range(1, settings.max_ngram + 1)
        self.span_weights = [1 / length for length in self.span_lengths]

    def instance(self, first: list[int], second: list[int], is_random_next: bool) -> Instance:
        """Puts two segments (or one, with an empty second) together and masks some tokens."""
        settings, vocabulary = self.settings, self.vocabulary
        ids, first_segment = encoding.join_segments(first, second, vocabulary.cls, vocabulary.sep)
        words = self._words(ids) if settings.whole_words else []
        if settings.words_are_marked:
            ids = [token % CONTINUES_WORD for token in ids]
        if not settings.static_masks:
            starts = self._word_starts(words, len(ids)) if settings.whole_words else ()
            return Instance(ids, first_segment, [], [], is_random_next, starts)
        wanted = min(
            settings.max_predictions_per_seq, max(1, round(len(ids) * settings.masked_lm_prob))
        )
        if settings.max_ngram > 1:
            positions = self._choose_spans(words or self._words(ids), wanted)
        elif settings.whole_words:
            positions = self._choose_words(words, wanted)
        else:
            positions = self._choose_tokens(ids, first_segment, bool(second), wanted)
        original = list(ids)
        self._mask(ids, positions)
        positions.sort()
        masked_ids = [original[position] for position in positions]
        return Instance(ids, first_segment, positions, masked_ids, is_random_next)

    def _words(self, ids: list[int]) -> list[list[int]]:
        """Returns the positions of each word, special tokens apart; a token is one if so asked."""
        specials = (self.vocabulary.cls, self.vocabulary.sep)
        marked, inside_words = self.settings.words_are_marked, self.vocabulary.inside_words
        words: list[list[int]] = []
        whole = self.settings.whole_words
        for position, token in enumerate(ids):
            if token in specials:
                continue
            continues = whole and (token >= CONTINUES_WORD if marked else token in inside_words)
            if marked and words and words[-1][-1] < position - 1:
                continues = False  # a second segment that begins inside of a word
            if continues and words:
                words[-1].append(position)
            else:
                words.append([position])
        return words

    def _word_starts(self, words: list[list[int]], length: int) -> list[int]:
        starts = [0] * length
        for word in words:
            starts[word[0]] = 1
        return starts

    def _choose_tokens(
        self, ids: list[int], first_segment: int, is_pair: bool, wanted: int
    ) -> list[int]:
        """Returns the positions to predict in the order chosen."""
        cls, sep = self.vocabulary.cls, self.vocabulary.sep
        if ids.count(sep) == 1 + is_pair and ids.count(cls) == 1:
            positions = (
                self.places[1 : first_segment - 1] + self.places[first_segment : len(ids) - 1]
            )
        else:  # the text has some of its own
            positions = [place for place, token in enumerate(ids) if token not in (cls, sep)]
        _shuffle(positions, self.rng)
        return positions[:wanted]

    def _choose_words(self, words: list[list[int]], wanted: int) -> list[int]:
        """Returns the positions to predict in the order chosen; no word in part."""
        _shuffle(words, self.rng)
        positions: list[int] = []
        for word in words:
            if len(positions) >= wanted:
                break
            if len(positions) + len(word) <= wanted:
                positions += word
        return positions

    def _choose_spans(self, words: list[list[int]], wanted: int) -> list[int]:
        order = list(range(len(words)))
        _shuffle(order, self.rng)
        positions: list[int] = []
        chosen: set[int] = set()
        for start in order:
            if len(positions) >= wanted:
                break
            (length,) = self.rng.choices(self.span_lengths, self.span_weights)
            span: list[int] = []
            for word in words[start : start + length]:
                adjoins = not span or word[0] == span[-1] + 1
                if not adjoins or word[0] in chosen or len(positions) + len(span + word) > wanted:
                    break
                span += word
            positions += span
            chosen.update(span)
        return positions

    def _mask(self, ids: list[int], positions: list[int]) -> None:
        """Of the chosen tokens, masks 80 %, keeps 10 % and replaces 10 % (paper, section 3.1)."""
        chance, vocabulary = self.rng.random, self.vocabulary
        for position in positions:
            if chance() < 0.8:
                ids[position] = vocabulary.mask
            elif chance() >= 0.5:
                replacements = vocabulary.replacements
                ids[position] = replacements[self.rng.randint(0, len(replacements) - 1)]


def _shuffle(items: list, rng: random.Random) -> None:
    """Does what rng.shuffle(items) does, with the same numbers, without a call for each item."""
    getrandbits = rng.getrandbits
    start = len(items) - 1
    while start > 0:
        bits = (start + 1).bit_length()
        end = (1 << (bits - 1)) - 2  # from there on, a bit less is drawn
        for last in range(start, end, -1):
            other = getrandbits(bits)
            while other > last:
                other = getrandbits(bits)
            items[last], items[other] = items[other], items[last]
        start = end
