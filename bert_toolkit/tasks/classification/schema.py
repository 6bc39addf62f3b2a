"""The features of records of labelled texts."""

from bert_toolkit.io import tfrecord
from bert_toolkit.io.tfrecord import Field, Schema, sequence_fields
from bert_toolkit.problems import MULTI, REGRESSION, Problem


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
    return Schema(
        (
            *sequence_fields(max_seq_length),
            Field("label_ids", 1, scalar=True),
            Field("is_real_example", 1, scalar=True, default=1),
        )
    )
