"""Feeds an Estimator from TFRecord files: order, repetition, batches, padding."""

import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional

from bert_toolkit.io import files, tfrecord
from bert_toolkit.io.tfrecord import Schema


@dataclasses.dataclass(frozen=True)
class Reading:
    """How an input function goes through its files.

    Attributes:
      repeat: without end, in a new seeded order every time (training); else once, in file order.
      shuffle_buffer: records among which the next is drawn.
      seed: of the order.
      skip: records to leave out at the start, when repeating; a multiple of the batch size.
      static_shapes: every batch has the same shape, as TPUs need: no cut of padding; when reading
        once, the last batch is filled with records of zeros.
    """

    repeat: bool
    shuffle_buffer: int = 0
    seed: Optional[int] = None
    skip: int = 0
    static_shapes: bool = False


@dataclasses.dataclass(frozen=True)
class RecordInput:
    """An Estimator's input function over TFRecord files.

    `batch_sizes`, if given, are those of all batches in their order, in place of the one that is
    asked for; for data that is read once.

    `transform`, if given, is a dataclass with a seed; called with the number of each batch, int64,
    and its features, it returns the features that the model gets.
    """

    paths: Sequence[str]
    schema: Schema
    reading: Reading
    transform: Any = None
    batch_sizes: Sequence[int] = ()

    def reseeded(self, offset: int) -> "RecordInput":
        """Returns the same input in another order."""
        reading = dataclasses.replace(self.reading, seed=(self.reading.seed or 0) + offset)
        transform = self.transform
        if transform is not None:
            transform = dataclasses.replace(transform, seed=transform.seed + offset)
        return dataclasses.replace(self, reading=reading, transform=transform)

    def skipping(self, records: int) -> "RecordInput":
        """Returns the same input without its first records."""
        return dataclasses.replace(self, reading=dataclasses.replace(self.reading, skip=records))

    def fingerprint(self, batch_size: int) -> str:
        """Returns a name for what is read and how: a place in one input is none in another."""
        how = {
            "files": self._files(),
            "fields": [dataclasses.asdict(field) for field in self.schema.fields],
            "reading": dataclasses.asdict(self.reading),
            "transform": self.transform and dataclasses.asdict(self.transform),
            "batch_size": batch_size,
        }
        return _digest(json.dumps(how, sort_keys=True))

    def earlier_fingerprint(self, batch_size: int) -> str:
        """Returns the name that version 0.1.0 made, of the classes as Python shows them."""
        return _digest(repr((self._files(), self.schema, self.reading, self.transform, batch_size)))

    def _files(self) -> list[tuple[str, int]]:
        return [(os.path.basename(path), files.size(path)) for path in self.paths]

    def __call__(self, params: Mapping[str, Any], input_context: Any = None) -> Any:
        """Returns a tf.data.Dataset of batches: features by name, each [B, ...]."""
        import tensorflow.compat.v1 as tf

        reading, batch_size = self.reading, params["batch_size"]
        if self.batch_sizes:
            batches = _batches_of(self.paths, self.batch_sizes)
        else:
            batches = self._equal_batches(batch_size, input_context)
        parsed = batches.map(self.schema.parse, num_parallel_calls=tf.data.AUTOTUNE)
        if not reading.static_shapes:
            parsed = parsed.map(lambda features: cut_padding(features, self.schema))
        if self.transform is not None:
            replicas = input_context.num_replicas_in_sync if input_context is not None else 1
            numbered = parsed.enumerate(reading.skip // (batch_size * replicas))
            parsed = numbered.map(self.transform, num_parallel_calls=tf.data.AUTOTUNE)
        return parsed.prefetch(tf.data.AUTOTUNE)

    def _equal_batches(self, batch_size: int, input_context: Any) -> Any:
        """Returns a tf.data.Dataset of batches of serialized records; the last may have less."""
        import tensorflow.compat.v1 as tf

        reading = self.reading
        records = (
            _repeated_records(self.paths, reading, input_context)
            if reading.repeat
            else _all_records(self.paths)
        )
        if reading.static_shapes and not reading.repeat:
            # With batch size - 1 more records, dropping the remainder drops nothing but filling.
            filling = tf.data.Dataset.from_tensors(self.schema.filler()).repeat(batch_size - 1)
            records = records.concatenate(filling)
        return records.batch(batch_size, drop_remainder=reading.static_shapes)


def _batches_of(paths: Sequence[str], sizes: Sequence[int]) -> Any:
    """Returns a tf.data.Dataset of batches of so many records each, and one of any that are left.

    They are read in Python: tf.data's own group_by_window takes four times as long for a record.
    """
    import tensorflow.compat.v1 as tf

    def batches() -> Iterator[list[bytes]]:
        records = itertools.chain.from_iterable(map(tfrecord.read_records, paths))
        for size in sizes:
            yield list(itertools.islice(records, size))
        rest = list(records)
        if rest:
            yield rest

    return tf.data.Dataset.from_generator(
        batches, output_signature=tf.TensorSpec([None], tf.string)
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _all_records(paths: Sequence[str]):
    import tensorflow.compat.v1 as tf

    return tf.data.TFRecordDataset(list(paths))


def _repeated_records(paths: Sequence[str], reading: Reading, input_context):
    """Every record of every file in each pass; files interleaved and records shuffled, seeded."""
    import tensorflow.compat.v1 as tf

    names = tf.data.Dataset.from_tensor_slices(list(paths))
    if len(paths) == 1:
        records = tf.data.TFRecordDataset(list(paths))
    else:
        names = names.shuffle(len(paths), seed=reading.seed)
        records = names.interleave(
            tf.data.TFRecordDataset, cycle_length=min(4, len(paths)), deterministic=True
        )
    if reading.shuffle_buffer > 1:
        records = records.shuffle(reading.shuffle_buffer, seed=reading.seed)
    records = records.repeat().skip(reading.skip)
    if input_context is not None and input_context.num_input_pipelines > 1:
        # Of what all hosts read and shuffle alike, so that they take the batches that one would.
        records = records.shard(input_context.num_input_pipelines, input_context.input_pipeline_id)
    return records


def cut_padding(features: dict[str, Any], schema: Schema) -> dict[str, Any]:
    """Cuts a batch after its own longest sequence: what no position needs is not computed."""
    import tensorflow.compat.v1 as tf

    mask = features["input_mask"]
    longest = tf.maximum(1, tf.reduce_max(mask * tf.range(1, tf.shape(mask)[1] + 1)))
    return {
        **features,
        **{
            field.name: features[field.name][:, :longest]
            for field in schema.fields
            if field.per_position
        },
    }
