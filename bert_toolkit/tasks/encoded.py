"""Examples as the model reads them: records in a file, and which example each is of."""

from collections.abc import Iterator, Sequence
from typing import Any, Optional

import numpy as np
from absl import logging

from bert_toolkit.io import files, tfrecord
from bert_toolkit.io.progress import Progress
from bert_toolkit.tasks.base import EncodedSplit, Task
from bert_toolkit.text import encoding, tokenizer_rules
from bert_toolkit.text import shown as shown_records
from tokenization import FullTokenizer

# Records that are sorted by length together, where the order of examples does not matter: batches
# of alike lengths need less padding.
SORTED_TOGETHER = 8192


def write(
    path: str,
    what: str,
    task: Task,
    examples: Sequence[Any],
    tokenizer: FullTokenizer,
    by_length: bool,
    copies: Optional[Sequence[int]] = None,
    shown: int = 0,
) -> EncodedSplit:
    """Writes the records of examples and says what they are made of.

    Args:
      path: the file to write.
      what: the split's name, for messages.
      task: encodes the examples.
      examples: to encode.
      tokenizer: of the model, to count tokens that it does not know.
      by_length: whether records may be sorted, rather than stay in the order of examples.
      copies: how many times each example counts; once, if not given.
      shown: how many of the first examples to log.
    """
    schema = task.schema()
    owners: list[int] = []
    lengths: list[int] = []
    counts = Counts(tokenizer, task.max_seq_length)
    waiting: list[tuple[int, int, bytes]] = []  # length, example, record
    with (
        files.replacing([path]) as [unfinished],
        tfrecord.RecordWriter(unfinished) as writer,
        Progress(f"reading {what}", "rows", len(examples)) as progress,
    ):

        def sequences() -> Iterator[tuple[tuple[int, int], dict[str, Any]]]:
            for number, example in enumerate(examples):
                for encoded, own_features in task.encode(example):
                    counts.add(encoded)
                    features = {**_sequence(encoded), **own_features}
                    if number < shown:
                        _show(what, example, schema.encode(features), tokenizer)
                    yield (len(encoded.input_ids), number), features
                progress.update()

        def flush() -> None:
            for length, number, record in (
                sorted(waiting, key=lambda item: item[0]) if by_length else waiting
            ):
                writer.write(record)
                owners.append(number)
                lengths.append(length)
            waiting.clear()

        for (length, number), record in schema.encode_each(sequences()):
            waiting += [(length, number, record)] * (copies[number] if copies else 1)
            if len(waiting) >= SORTED_TOGETHER:
                flush()
        flush()
    logging.info("%s: %s", what, counts.text(len(examples)))
    tokenizer_rules.warn_of_unknown(what, counts.unknown, counts.tokens)
    return EncodedSplit(path, examples, np.array(owners, np.int64), lengths)


def _show(what: str, example: Any, record: bytes, tokenizer: FullTokenizer) -> None:
    """Logs what an example became."""
    record_values = shown_records.values_of(tfrecord.features_of(record, what))
    shown_records.log_example(
        record_values, tokenizer.inv_vocab, [("split", what), *shown_records.facts_of(example)]
    )


def _sequence(encoded: encoding.Encoded) -> dict[str, Any]:
    """Returns the features that every sequence has, by name, unpadded."""
    return {
        "input_ids": encoded.input_ids,
        "input_mask": b"\1" * len(encoded.input_ids),
        "segment_ids": encoded.segment_ids,
        "is_real_example": b"\1",
    }


class Counts:
    """What examples are made of, in tokens.

    Attributes:
      lengths: of the sequences, special tokens included.
      max_seq_length: what they are padded and cut to.
      cut: how many were cut.
      unknown: [UNK] among their tokens.
      tokens: in all, without special ones.
    """

    def __init__(self, tokenizer: FullTokenizer, max_seq_length: int):
        """Takes the model's tokenizer, whose [UNK] is counted."""
        self._tokenizer = tokenizer
        self.max_seq_length = max_seq_length
        self.lengths: list[int] = []
        self.cut = self.unknown = self.tokens = 0

    def add(self, encoded: encoding.Encoded) -> None:
        """Counts a sequence."""
        self.lengths.append(len(encoded.input_ids))
        self.cut += encoded.cut > 0
        unknown, tokens = encoding.count_unknown(self._tokenizer, [encoded])
        self.unknown += unknown
        self.tokens += tokens

    def text(self, rows: int) -> str:
        """Returns a line to read about sequences of so many rows."""
        lengths = np.array(self.lengths)
        half, most = np.percentile(lengths, [50, 95]).astype(int)
        sequences = f" in {len(lengths):,} windows" if len(lengths) > rows else ""
        return (
            f"{rows:,} rows{sequences}, {lengths.mean():.1f} tokens on average (half have at most"
            f" {half}, 95 % at most {most}, one {lengths.max()}),"
            f" {100 * self.cut / len(lengths):.1f} % cut to {self.max_seq_length},"
            f" {100 * self.unknown / lengths.sum():.2f} % [UNK]"
        )
