"""Lines of text on their way through a model: as it reads them, and what it made of them.

A line is one sequence, or several windows where it is long. Sequences go to the model by length, so
that little of a batch is padding; what comes back is put into the order of the lines again.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Optional

import numpy as np
from absl import logging

from bert_toolkit.errors import UserError
from bert_toolkit.text import encoding, tokenizer_rules
from bert_toolkit.text import shown as shown_records
from bert_toolkit.text.batches import grouped, padded
from bert_toolkit.text.encoding import SequenceEncoder, Window
from bert_toolkit.text.words import PIECES, Words, find_words
from tokenization import FullTokenizer

# Lines are sorted among as many as give results of this size, which wait for their turn in memory.
BYTES_AHEAD = 64_000_000
LINES_AHEAD = 4096


class SourceLine(NamedTuple):
    """A line of a file: its number from 0, and its text; a query is no part of the output."""

    number: int
    text: str
    is_query: bool = False


@dataclasses.dataclass(frozen=True)
class Line:
    """A line as the model reads it.

    Attributes:
      source: where it comes from.
      windows: the sequences that cover it; one unless windows are wanted and it is long.
      words: what pieces are put together to; None to keep pieces.
    """

    source: SourceLine
    windows: list[Window]
    words: Optional[Words] = None

    @property
    def input_ids(self) -> list[int]:
        """Ids of all tokens of the line, as the kept parts of its windows follow each other."""
        return [
            number
            for window in self.windows
            for number in window.encoded.input_ids[window.begin : window.end]
        ]


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How lines become sequences; the names are those of the flags.

    Attributes:
      max_seq_length: longest sequence in tokens.
      doc_stride: tokens from the beginning of a window to that of the next; 0 to cut lines.
      align: what a vector stands for: "pieces", "words" or "spaces" (see `find_words`).
      pool_special_tokens: whether [CLS] and [SEP] count in a pooled vector.
    """

    max_seq_length: int
    doc_stride: int = 0
    align: str = PIECES
    pool_special_tokens: bool = True

    def encode(self, tokenizer: FullTokenizer, source: SourceLine) -> Line:
        """Tokenizes a line and cuts it, to one sequence or to windows."""
        texts = split_pair(source.text)
        if self.align == PIECES:
            tokens = [tokenizer.encode(text.text) for text in texts]
        else:
            placed = [tokenizer.tokenize_with_offsets(text.text) for text in texts]
            tokens = [tokenizer.convert_tokens_to_ids(pieces) for pieces, _ in placed]
        first, second = tokens[0], tokens[1] if len(tokens) > 1 else []
        encoder = SequenceEncoder(tokenizer, self.max_seq_length, doc_stride=self.doc_stride)
        windows = encoder.windows(first, second)
        if self.align == PIECES:
            return Line(source, windows)
        kept = [len(tokens) for tokens in _segments(windows)]
        offsets = [
            [(start + text.begin, end + text.begin) for start, end in pairs[:length]]
            for text, (_, pairs), length in zip(texts, placed, kept)
        ]
        pieces = [names[:length] for (names, _), length in zip(placed, kept)]
        return Line(source, windows, find_words(source.text, pieces, offsets, self.align))


SEPARATOR = " ||| "  # between the texts of a pair


class _Text(NamedTuple):
    text: str
    begin: int  # in its line


def split_pair(line: str) -> list[_Text]:
    """Returns the two texts of "A ||| B", or the one of another line, and where they begin."""
    text, begin = line.strip(), len(line) - len(line.lstrip())
    first, separator, second = text.rpartition(SEPARATOR)
    if not separator:
        return [_Text(text, begin)]
    return [_Text(first, begin), _Text(second, begin + len(first) + len(separator))]


def _segments(windows: list[Window]) -> list[list[int]]:
    """Returns the kept token ids of the first and of the second text, without special tokens."""
    first: list[int] = []
    second: list[int] = []
    for window in windows:
        ids, segments = window.encoded.input_ids, window.encoded.segment_ids
        for position in range(window.begin, window.end):
            (second if segments[position] else first).append(ids[position])
    return [first[1:-1], second[:-1]]


# Features of a sequence with a number for each token.
PER_TOKEN = ("input_ids", "input_mask", "segment_ids", "pooling_mask")


def _tokens(features: Mapping[str, Any]) -> int:
    """Returns the length of a sequence."""
    return len(features["input_ids"])


class LineInput:
    """An Estimator's input function over lines of text, which are read as they are needed."""

    def __init__(
        self,
        name: str,
        sources: Iterable[SourceLine],
        tokenizer: FullTokenizer,
        encoding: Encoding,
        bytes_per_token: int,
        batch_tokens: int = 0,
        static_shapes: bool = False,
        shown: int = 0,
    ):
        """Makes the input.

        Args:
          name: what the lines are, for messages.
          sources: the lines.
          tokenizer: cuts them.
          encoding: how.
          bytes_per_token: size of what the model gives for a token, which bounds the sorting.
          batch_tokens: tokens up to which a batch has more lines than asked for; 0 for never.
          static_shapes: keep the order and pad every batch alike, as TPUs need.
          shown: how many of the first lines to log.
        """
        self.name, self.sources = name, sources
        self.tokenizer, self.encoding = tokenizer, encoding
        self.bytes_per_token, self.static_shapes = bytes_per_token, static_shapes
        self.batch_tokens, self.shown = batch_tokens, shown
        self.error: Optional[BaseException] = None
        self.empty: list[int] = []
        self.empty_count = self.cut_count = 0
        self.unknown = self.tokens = 0
        # Sequence number -> its line's place among the lines, the line, and the window's number.
        self.under_way: dict[int, tuple[int, Line, int]] = {}

    def batches(self, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
        """Yields the features of each batch; keeps an error, which TensorFlow would garble.

        Features are int32 [B, S]; unique_ids int32 [B], -1 for what fills a batch.
        """
        try:
            for group in self._sequences():
                for batch in grouped(group, _tokens, batch_size, self._batch_tokens()):
                    yield self._padded(batch, batch_size)
        except Exception as error:
            self.error = error

    def _batch_tokens(self) -> int:
        """Returns up to how many tokens a batch has more sequences than its size."""
        if self.static_shapes:
            return 0
        # A batch is a small part of what is sorted, or it would have all lengths.
        part = BYTES_AHEAD // 4 // max(1, self.bytes_per_token)
        return min(self.batch_tokens, part)

    def _sequences(self) -> Iterator[Iterable[dict[str, Any]]]:
        """Yields those that share batches: all where shapes are static, else groups by length."""
        numbers = itertools.count()
        groups = (self._sorted(lines, numbers) for lines in self._groups())
        if self.static_shapes:
            yield itertools.chain.from_iterable(groups)
        else:
            yield from groups

    def _sorted(
        self, lines: list[tuple[int, Line]], numbers: Iterator[int]
    ) -> Iterator[dict[str, Any]]:
        """Yields the features of the sequences of some lines, by length or, if static, in order."""
        there = [(*entry, n) for entry in lines for n in range(len(entry[1].windows))]
        if not self.static_shapes:
            there.sort(key=lambda entry: len(entry[1].windows[entry[2]].encoded.input_ids))
        for entry, number in zip(there, numbers):
            self.under_way[number] = entry
            yield self._features(number, entry[1].windows[entry[2]])

    def _padded(self, rows: list[dict[str, Any]], batch_size: int) -> dict[str, np.ndarray]:
        """Returns sequences as a batch, as long as the longest, or of one shape for all batches."""
        shape = (batch_size, self.encoding.max_seq_length) if self.static_shapes else None
        batch = {name: padded([row[name] for row in rows], shape) for name in PER_TOKEN}
        numbers = np.full(len(batch["input_ids"]), -1, np.int32)
        numbers[: len(rows)] = [row["unique_ids"] for row in rows]
        return {**batch, "unique_ids": numbers}

    def _groups(self) -> Iterator[list[tuple[int, Line]]]:
        """Yields (place, line) for all lines, as many at a time as may be sorted."""
        group: list[tuple[int, Line]] = []
        size = 0
        for place, source in enumerate(self.sources):
            line = self.encoding.encode(self.tokenizer, source)
            self._count(line)
            if place < self.shown:
                self._show(line)
            group.append((place, line))
            tokens = sum(len(window.encoded.input_ids) for window in line.windows)
            size += tokens * self.bytes_per_token
            if size >= BYTES_AHEAD or len(group) >= LINES_AHEAD:
                yield group
                group, size = [], 0
        yield group

    def _show(self, line: Line) -> None:
        facts = [("line", line.source.number + 1), ("text", line.source.text)]
        for number, window in enumerate(line.windows):
            record = self._features(number, window)
            del record["unique_ids"]
            shown_records.log_example(record, self.tokenizer.inv_vocab, facts)

    def _count(self, line: Line) -> None:
        if line.source.is_query:
            return
        self.cut_count += any(window.encoded.cut for window in line.windows)
        encoded = [window.encoded for window in line.windows]
        unknown, tokens = encoding.count_unknown(self.tokenizer, encoded)
        self.unknown += unknown
        self.tokens += tokens
        if not line.source.text.strip():
            self.empty_count += 1
            if len(self.empty) < 5:
                self.empty.append(line.source.number + 1)

    def _features(self, number: int, window: Window) -> dict[str, Any]:
        ids, segments, _ = window.encoded
        pooled = [0] * window.begin + [1] * (window.end - window.begin)
        pooled += [0] * (len(ids) - window.end)
        if not self.encoding.pool_special_tokens:
            last_of_first = segments.index(1) - 1 if 1 in segments else len(ids) - 1
            pooled[0] = pooled[last_of_first] = pooled[-1] = 0
        return {
            "unique_ids": number,
            "input_ids": ids,
            "input_mask": [1] * len(ids),
            "segment_ids": segments,
            "pooling_mask": pooled,
        }

    def __call__(self, params: Mapping[str, Any], input_context: Any = None) -> Any:
        """Returns a tf.data.Dataset of batches: features by name, each [B, S], unique_ids [B]."""
        import tensorflow.compat.v1 as tf

        batch_size = params["batch_size"]
        shape: list[Optional[int]] = [None, None]
        if self.static_shapes:
            shape = [batch_size, self.encoding.max_seq_length]
        signature = dict.fromkeys(PER_TOKEN, tf.TensorSpec(shape, tf.int32))
        signature["unique_ids"] = tf.TensorSpec(shape[:1], tf.int32)
        dataset = tf.data.Dataset.from_generator(
            lambda: self.batches(batch_size), output_signature=signature
        )
        return dataset.prefetch(2)

    def check_end(self, done: int) -> None:
        """Raises what stopped the reading, and a UserError if there was nothing to read."""
        if self.error is not None:
            raise self.error
        if not done:
            raise UserError(f"{self.name}: empty; expected lines of text")

    def warn(self) -> None:
        """Says which lines were empty, how many were cut, and if hardly any token is known."""
        tokenizer_rules.warn_of_unknown(self.name, self.unknown, self.tokens)
        if self.empty_count:
            shown = ", ".join(map(str, self.empty))
            shown += ", ..." if self.empty_count > len(self.empty) else ""
            logging.warning(
                "%s: %d empty lines (%s) have [CLS] and [SEP] only",
                self.name,
                self.empty_count,
                shown,
            )
        if self.cut_count:
            what = (
                "first texts of pairs were cut to half of"
                if self.encoding.doc_stride
                else "lines were cut (--doc_stride keeps all) to"
            )
            logging.warning(
                "%s: %d %s --max_seq_length=%d tokens",
                self.name,
                self.cut_count,
                what,
                self.encoding.max_seq_length,
            )


# --- What the model made of them ---


@dataclasses.dataclass(frozen=True)
class LineFeatures:
    """What comes out for a line.

    Attributes:
      source: the line.
      arrays: name -> float32 [T, D], for every token; or "vector" -> [D], for the line.
      tokens: T pieces or words; none with a vector of the line.
      words: T words, if the tokens are words.
    """

    source: SourceLine
    arrays: dict[str, np.ndarray]
    tokens: list[str]
    words: Optional[Words] = None


@dataclasses.dataclass(frozen=True)
class Finish:
    """What is done to a line's arrays when all its windows are there; names are those of flags.

    Attributes:
      pooling: "none", or what the vector of a line is made of.
      normalize: scale the vector of a line to length 1.
      word_vector: a word is the "mean" of its pieces, or the "first".
    """

    pooling: str = "none"
    normalize: bool = False
    word_vector: str = "mean"

    def line(self, line: Line, parts: list[dict[str, np.ndarray]], tokenizer) -> LineFeatures:
        """Makes a line's features of what the model gave for each of its windows."""
        if self.pooling != "none":
            weights = [float(part["pooled_tokens"]) for part in parts]
            vector = join_pooled([part["vector"] for part in parts], weights, self.pooling)
            if self.normalize:
                vector /= max(float(np.linalg.norm(vector)), 1e-6)
            return LineFeatures(line.source, {"vector": vector}, [])
        arrays = {
            name: parts[0][name]
            if len(parts) == 1
            else np.concatenate([part[name] for part in parts])
            for name in parts[0]
        }
        if line.words is None:
            tokens = tokenizer.convert_ids_to_tokens(line.input_ids)
            return LineFeatures(line.source, arrays, tokens)
        arrays = {
            name: line.words.vectors(array, self.word_vector) for name, array in arrays.items()
        }
        return LineFeatures(line.source, arrays, line.words.texts, line.words)


def join_pooled(vectors: list[np.ndarray], weights: list[float], pooling: str) -> np.ndarray:
    """Pools the pooled vectors [D] of a line's windows, which have `weights` tokens each."""
    if len(vectors) == 1 or pooling == "cls":
        return vectors[0]
    mean = np.average(vectors, axis=0, weights=weights).astype(np.float32)
    largest = np.max(vectors, axis=0)
    half = len(mean) // 2
    joined = {"mean": mean, "max": largest, "mean_max": np.append(mean[:half], largest[half:])}
    return joined[pooling]


def in_order(
    batches: Iterable[Mapping[str, np.ndarray]], lines: LineInput, finish: Finish
) -> Iterator[LineFeatures]:
    """Yields the features of every line, in the order of the lines.

    Args:
      batches: predictions of `vectors.network`, a batch at a time: [B, ...].
      lines: the input they are of.
      finish: what is done to a whole line.
    """
    parts: dict[int, list[Optional[dict[str, np.ndarray]]]] = {}
    ready: dict[int, LineFeatures] = {}
    next_place, tokens = 0, finish.pooling == "none"
    for batch in batches:
        names = [name for name in batch if name != "unique_ids"]
        for row, number in enumerate(batch["unique_ids"].tolist()):
            if number < 0:  # fills the batch
                continue
            place, line, index = lines.under_way.pop(number)
            windows = parts.setdefault(place, [None] * len(line.windows))
            begin, end = line.windows[index].begin, line.windows[index].end
            windows[index] = {
                # Copies, so that the padded batch goes.
                name: (batch[name][row, begin:end] if tokens else batch[name][row]).copy()
                for name in names
            }
            if all(window is not None for window in windows):
                there = [window for window in parts.pop(place) if window is not None]
                ready[place] = finish.line(line, there, lines.tokenizer)
        while next_place in ready:
            yield ready.pop(next_place)
            next_place += 1
