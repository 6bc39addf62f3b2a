"""How labelled texts become sequences, and the features of their records."""

import dataclasses

from bert_toolkit.io import tfrecord
from bert_toolkit.io.tfrecord import Field, Schema
from bert_toolkit.problems import MULTI, REGRESSION, Problem
from bert_toolkit.tasks.classification.task_data import Example
from bert_toolkit.text import encoding
from tokenization import FullTokenizer


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


def schema(problem: Problem, max_seq_length: int) -> tfrecord.Schema:
    """Returns the features of the records: as published where there is one label a text."""
    published = classification_schema(max_seq_length)
    label = {
        MULTI: tfrecord.Field("label_ids", len(problem.labels)),
        REGRESSION: tfrecord.Field("label_ids", 1, "float32", scalar=True),
    }.get(problem.kind)
    fields = [label if label and field.name == "label_ids" else field for field in published.fields]
    return tfrecord.Schema(tuple(fields))


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
