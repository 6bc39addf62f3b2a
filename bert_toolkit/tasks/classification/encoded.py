"""Examples as the model reads them: records in a file, and which example each is of."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Optional

import numpy as np
from absl import logging

from bert_toolkit.io import files, tfrecord
from bert_toolkit.io.progress import Progress
from bert_toolkit.io.tfrecord import Field, Schema
from bert_toolkit.problems import MULTI, REGRESSION, Problem
from bert_toolkit.tasks.classification.task_data import Example
from bert_toolkit.text import encoding, tokenizer_rules
from tokenization import FullTokenizer

# Records that are sorted by length together, where the order of examples does not matter: batches
# of alike lengths need less padding.
SORTED_TOGETHER = 8192


@dataclasses.dataclass(frozen=True)
class Cutting:
    """How texts are made to fit.

    Attributes:
      max_seq_length: longest sequence in tokens.
      truncate: what is kept of a longer text, as in features.encode.
      doc_stride: tokens between windows of a longer text; 0 for one sequence a text.
    """

    max_seq_length: int
    truncate: str = encoding.HEAD
    doc_stride: int = 0

    def encode(self, tokenizer: FullTokenizer, example: Example) -> list[encoding.Encoded]:
        """Returns the sequences of an example: one, or its windows."""
        texts = (tokenizer, example.text_a, example.text_b, self.max_seq_length)
        if not self.doc_stride:
            return [encoding.encode(*texts, truncate=self.truncate)]
        return encoding.encode_windows(*texts, stride=self.doc_stride)


@dataclasses.dataclass(frozen=True)
class EncodedSplit:
    """A TFRecord file of examples.

    Attributes:
      path: of the file.
      examples: in their own order.
      owners: int [records], the example that each record is of.
    """

    path: str
    examples: Sequence[Example]
    owners: np.ndarray

    def of_examples(self, outputs: np.ndarray) -> np.ndarray:
        """[records, outputs] -> [examples, outputs]: means over the records of each example."""
        sums = np.zeros((len(self.examples), outputs.shape[1]))
        np.add.at(sums, self.owners, outputs)
        return sums / np.bincount(self.owners, minlength=len(self.examples))[:, None]

    def targets(self, problem: Problem) -> np.ndarray:
        """Returns what is to be predicted: [N] ids or numbers, or [N, labels] zeros and ones."""
        values = np.array([problem.values(example.label) for example in self.examples])
        return values if problem.kind == MULTI else values[:, 0]


def schema(problem: Problem, max_seq_length: int) -> tfrecord.Schema:
    """Returns the features of the records: as published where there is one label a text."""
    published = classification_schema(max_seq_length)
    label = {
        MULTI: tfrecord.Field("label_ids", len(problem.labels)),
        REGRESSION: tfrecord.Field("label_ids", 1, "float32", scalar=True),
    }.get(problem.kind)
    fields = [label if label and field.name == "label_ids" else field for field in published.fields]
    return tfrecord.Schema(tuple(fields))


def write(
    path: str,
    what: str,
    examples: Sequence[Example],
    problem: Problem,
    tokenizer: FullTokenizer,
    cutting: Cutting,
    by_length: bool,
    copies: Optional[Sequence[int]] = None,
) -> EncodedSplit:
    """Writes the records of examples and says what they are made of.

    Args:
      path: the file to write.
      what: the split's name, for messages.
      examples: to encode.
      problem: what their labels are.
      tokenizer: of the model.
      cutting: how texts are made to fit.
      by_length: whether records may be sorted, rather than stay in the order of examples.
      copies: how many times each example counts; once, if not given.
    """
    layout = schema(problem, cutting.max_seq_length)
    owners: list[int] = []
    counts = _Counts(tokenizer)
    waiting: list[tuple[int, int, bytes]] = []  # length, example, record
    with (
        files.replacing([path]) as [unfinished],
        tfrecord.RecordWriter(unfinished) as writer,
        Progress(f"reading {what}", "rows", len(examples)) as progress,
    ):

        def flush() -> None:
            for _, number, record in (
                sorted(waiting, key=lambda item: item[0]) if by_length else waiting
            ):
                writer.write(record)
                owners.append(number)
            waiting.clear()

        for number, example in enumerate(examples):
            for encoded in cutting.encode(tokenizer, example):
                counts.add(encoded)
                record = layout.encode(_values(encoded, problem.values(example.label)))
                length = len(encoded.input_ids)
                waiting += [(length, number, record)] * (copies[number] if copies else 1)
            if len(waiting) >= SORTED_TOGETHER:
                flush()
            progress.update()
        flush()
    logging.info("%s: %s", what, counts.text(len(examples), cutting))
    tokenizer_rules.warn_of_unknown(what, counts.unknown, counts.tokens)
    return EncodedSplit(path, examples, np.array(owners, np.int64))


def _values(encoded: encoding.Encoded, label_ids: list) -> dict[str, Any]:
    """Returns the features of an example by name, unpadded."""
    return {
        "input_ids": encoded.input_ids,
        "input_mask": [1] * len(encoded.input_ids),
        "segment_ids": encoded.segment_ids,
        "label_ids": label_ids,
        "is_real_example": [1],
    }


class _Counts:
    """What a split is made of, in tokens."""

    def __init__(self, tokenizer: FullTokenizer):
        self._tokenizer = tokenizer
        self._lengths: list[int] = []
        self._cut = 0
        self.unknown = self.tokens = 0  # without special tokens

    def add(self, encoded: encoding.Encoded) -> None:
        self._lengths.append(len(encoded.input_ids))
        self._cut += encoded.cut > 0
        unknown, tokens = encoding.count_unknown(self._tokenizer, [encoded])
        self.unknown += unknown
        self.tokens += tokens

    def text(self, rows: int, cutting: Cutting) -> str:
        lengths = np.array(self._lengths)
        half, most = np.percentile(lengths, [50, 95]).astype(int)
        sequences = f" in {len(lengths):,} windows" if len(lengths) > rows else ""
        return (
            f"{rows:,} rows{sequences}, {lengths.mean():.1f} tokens on average (half have at most"
            f" {half}, 95 % at most {most}, one {lengths.max()}),"
            f" {100 * self._cut / len(lengths):.1f} % cut to {cutting.max_seq_length},"
            f" {100 * self.unknown / lengths.sum():.2f} % [UNK]"
        )


def classification_schema(max_seq_length: int) -> Schema:
    """The features of a labelled example, as published."""
    along = {"flag": "max_seq_length", "per_position": True}
    return Schema(
        (
            Field("input_ids", max_seq_length, **along),  # type: ignore[arg-type]
            Field("input_mask", max_seq_length, **along),  # type: ignore[arg-type]
            Field("segment_ids", max_seq_length, **along),  # type: ignore[arg-type]
            Field("label_ids", 1, scalar=True),
            Field("is_real_example", 1, scalar=True, default=1),
        )
    )
