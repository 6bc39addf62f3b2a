"""The contract between stages: TFRecord files of tf.train.Example, and a JSON note beside each.

One `Schema` a data set writes records, parses them and checks files made elsewhere. Writing and
checking do without TensorFlow, so that data workers start at once.
"""

import array
import contextlib
import dataclasses
import functools
import itertools
import json
import operator
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, Optional, TypeVar, Union

import google_crc32c
import numpy as np

from bert_toolkit.errors import UserError
from bert_toolkit.io import files

Key = TypeVar("Key")

# Records that are encoded together: many enough for array operations to pay, few enough to take no
# memory to speak of.
ENCODED_TOGETHER = 512


@dataclasses.dataclass(frozen=True)
class Field:
    """One feature of a record.

    Attributes:
      name: its key in the Example.
      length: how many values a record holds; shorter values are padded with zeros.
      dtype: "int64" or "float32".
      scalar: parse to shape [B] rather than [B, length].
      per_position: runs along the sequence, and can be cut where all of a batch is padding.
      flag: the flag that decides `length`, for messages.
      default: what a record without this feature means; None if it must be there.
    """

    name: str
    length: int
    dtype: str = "int64"
    scalar: bool = False
    per_position: bool = False
    flag: Optional[str] = None
    default: Optional[int] = None


def along_sequence(name: str, max_seq_length: int) -> Field:
    """Returns a feature that has a value for each position of a sequence."""
    return Field(name, max_seq_length, per_position=True, flag="max_seq_length")


def sequence_fields(max_seq_length: int) -> tuple[Field, ...]:
    """Returns the features that every sequence has."""
    names = ("input_ids", "input_mask", "segment_ids")
    return tuple(along_sequence(name, max_seq_length) for name in names)


@dataclasses.dataclass(frozen=True)
class Schema:
    """The features of one kind of data set."""

    fields: tuple[Field, ...]

    def encode(self, values: Mapping[str, Sequence]) -> bytes:
        """Returns a serialized tf.train.Example of `values`, padded with zeros to their lengths.

        Numbers below 128 may come as bytes, and others as an array.array, which is quicker.
        """
        [record] = self._encode_all([values])
        return record

    def encode_each(
        self, items: Iterable[tuple[Key, Mapping[str, Sequence]]]
    ) -> Iterator[tuple[Key, bytes]]:
        """Yields (key, record) for each (key, values), in their order.

        The records are those of `encode`, which takes twice as long, as these are made together.
        """
        items = iter(items)
        while group := list(itertools.islice(items, ENCODED_TOGETHER)):
            records = self._encode_all([values for _, values in group])
            yield from ((key, record) for (key, _), record in zip(group, records))

    def _encode_all(self, rows: Sequence[Mapping[str, Sequence]]) -> list[bytes]:
        columns = [_entries(field, [row[field.name] for row in rows]) for field in self.fields]
        return [_message(1, b"".join(entries)) for entries in zip(*columns)]

    def parse(self, serialized: Any) -> dict[str, Any]:
        """Parses serialized Examples, string [B], to int32 and float32 [B, length] or [B]."""
        import tensorflow.compat.v1 as tf

        specs = {
            field.name: tf.io.FixedLenFeature(
                [] if field.scalar else [field.length], tf.as_dtype(field.dtype), field.default
            )
            for field in self.fields
        }
        parsed = tf.io.parse_example(serialized, specs)
        # TPUs compute with int32 only.
        return {
            name: tf.cast(value, tf.int32) if value.dtype == tf.int64 else value
            for name, value in parsed.items()
        }

    def filler(self) -> bytes:
        """Returns a record of zeros, which fills the last batch where shapes are static."""
        return self.encode({field.name: [] for field in self.fields})


# --- Protocol buffers by hand: tf.train.Example needs three kinds of field ---


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


class _Varints(dict):
    """number -> its encoding, kept for the next time: the same sizes come again and again."""

    def __missing__(self, number: int) -> bytes:
        self[number] = encoded = _varint(number)
        return encoded


_VARINTS = _Varints()


def _tag(field_number: int) -> bytes:
    """The tag of a length-delimited field (wire type 2)."""
    return _VARINTS[field_number << 3 | 2]


def _message(field_number: int, payload: bytes) -> bytes:
    return _tag(field_number) + _VARINTS[len(payload)] + payload


def _packed_numbers(rows: Sequence[Any]) -> list[bytes]:
    """Returns the varints of each row of numbers, one after the other; all rows at once."""
    counts = [len(row) for row in rows]
    numbers = _joined(rows, sum(counts))
    if numbers.min(initial=0) < 0:
        raise ValueError("a number below 0, which is not encoded here")
    width = max(1, -(-int(numbers.max(initial=0)).bit_length() // 7))
    coded = np.empty((len(numbers), width), np.uint8)
    there = np.ones((len(numbers), width), bool)
    sizes = np.ones(len(numbers) + 1, np.int64)
    sizes[0] = 0
    for place in range(width):  # 7 bits of each number, and one that tells that others follow
        coded[:, place] = numbers >> 7 * place & 127
        if place:
            follows = numbers >= 1 << 7 * place
            there[:, place] = follows
            coded[:, place - 1] |= follows.view(np.uint8) << 7
            sizes[1:] += follows
    packed = coded[there].tobytes()
    ends = np.cumsum(sizes)[np.cumsum([0, *counts])].tolist()
    return [packed[start:end] for start, end in zip(ends, ends[1:])]


def _joined(rows: Sequence[Any], count: int) -> np.ndarray:
    """Returns the numbers of all rows in one array; quickly where they are in arrays of a type."""
    types = {row.typecode if isinstance(row, array.array) else None for row in rows}
    if len(types) == 1 and None not in types:
        return np.frombuffer(b"".join(rows), types.pop())
    if len(rows) == 1 and isinstance(rows[0], np.ndarray) and rows[0].dtype.kind in "biu":
        return rows[0].astype(np.int64, copy=False)
    return np.fromiter(map(operator.index, itertools.chain.from_iterable(rows)), np.int64, count)


class _Heads(dict):
    """Size of a list's values in bytes -> what goes before them in an entry of Features.feature.

    That is the tag of the entry, its key, and the tags of the Feature and of the list in it.
    """

    def __init__(self, name: str, dtype: str):
        super().__init__()
        self._key = _message(1, name.encode())
        self._kind = _tag(2 if dtype == "float32" else 3)

    def __missing__(self, size: int) -> bytes:
        # From the inside out: the list of values, the Feature, the entry's value, the entry.
        length = _VARINTS[size]
        feature_length = _VARINTS[1 + len(length) + size]
        feature_size = 1 + len(feature_length) + 1 + len(length) + size
        value_length = _VARINTS[feature_size]
        entry_length = _VARINTS[len(self._key) + 1 + len(value_length) + feature_size]
        self[size] = head = b"".join(
            (b"\x0a", entry_length, self._key, b"\x12", value_length)
            + (self._kind, feature_length, b"\x0a", length)
        )
        return head


_heads = functools.cache(_Heads)


def _entries(field: Field, rows: Sequence[Any]) -> list[bytes]:
    """Encodes an entry of Features.feature for each of `rows`: a key, and a Feature with a list."""
    heads, zero = _heads(field.name, field.dtype), b"\0"
    packed: Iterable[bytes]
    if field.dtype == "float32":
        packed, zero = (array.array("f", row).tobytes() for row in rows), b"\0\0\0\0"
    elif all(isinstance(row, bytes) for row in rows):
        packed = rows  # small numbers are encoded as themselves
    else:
        packed = _packed_numbers(rows)
    padded = (values + zero * (field.length - len(row)) for row, values in zip(rows, packed))
    return [heads[len(values)] + values for values in padded]


def example(values: Mapping[str, Union[np.ndarray, Sequence[bytes]]]) -> bytes:
    """Returns a serialized tf.train.Example of arrays, flattened, and lists of byte strings.

    Arrays of float32 become a float_list, those of whole numbers not below 0 an int64_list.
    """
    return _message(1, b"".join(_example_entry(name, value) for name, value in values.items()))


def _example_entry(name: str, value: Union[np.ndarray, Sequence[bytes]]) -> bytes:
    if not isinstance(value, np.ndarray):
        feature = _message(1, b"".join(_message(1, item) for item in value))
    elif value.dtype.kind == "f":
        feature = _message(2, _message(1, value.astype("<f4", copy=False).tobytes()))
    else:
        (packed,) = _packed_numbers([value.ravel()])
        feature = _message(3, _message(1, packed))
    return _message(1, _message(1, name.encode()) + _message(2, feature))


# --- TFRecord files ---

FRAME_BYTES = 16  # length and checksums around each record


def _masked_crc(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


class RecordWriter:
    """Writes a TFRecord file; `path` should be one of `files.replacing`. A context manager."""

    def __init__(self, path: str):
        self._writer: IO[bytes] = files.open_binary(path, "wb")
        self.records = 0
        self.bytes = 0

    def write(self, data: bytes) -> None:
        """Appends one record."""
        length = struct.pack("<Q", len(data))
        record = b"".join(
            (
                length,
                struct.pack("<I", _masked_crc(length)),
                data,
                struct.pack("<I", _masked_crc(data)),
            )
        )
        self._writer.write(record)
        self.records += 1
        self.bytes += len(record)

    def close(self) -> None:
        """Ends the file."""
        self._writer.close()

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(self, error_type, error, traceback) -> None:
        # What failed is told already; that the rest cannot be written either is no news.
        with contextlib.suppress(OSError) if error_type else contextlib.nullcontext():
            self.close()


def read_records(path: str) -> Iterator[bytes]:
    """Yields the records of a TFRecord file.

    Raises:
      UserError: the file is cut short or damaged; names the record.
    """
    number = 0
    with files.open_binary(path, "rb") as reader, files.io_errors(path):
        while header := reader.read(12):
            number += 1
            if len(header) == 12 and struct.unpack("<I", header[8:])[0] == _masked_crc(header[:8]):
                (length,) = struct.unpack("<Q", header[:8])
                data, footer = reader.read(length), reader.read(4)
                if len(footer) == 4 and struct.unpack("<I", footer)[0] == _masked_crc(data):
                    yield data
                    continue
                found = "cut short" if len(footer) < 4 else "damaged (its checksum does not fit)"
            else:
                found = "not a TFRecord file" if number == 1 else "cut short or damaged"
            raise UserError(f"{path} record {number}: {found}; make the file again")


def first_damage(paths: Iterable[str]) -> Optional[str]:
    """Returns a sentence that names the first record that cannot be read; None if all can."""
    try:
        for path in paths:
            for _ in read_records(path):
                pass
    except UserError as error:
        return str(error)
    return None


def count_records(paths: Iterable[str]) -> int:
    """Returns how many records the files hold: from the notes beside them, else by reading."""
    count = 0
    for path in paths:
        note = read_note(path)
        count += (
            note["records"] if note and "records" in note else sum(1 for _ in read_records(path))
        )
    return count


# --- The note beside a data set: how it was made ---


def note_path(path: str) -> str:
    """Returns where the note of a TFRecord file lies."""
    return f"{path}.json"


def note_text(note: Mapping[str, Any]) -> str:
    """Returns a note as JSON text."""
    return json.dumps(note, indent=2) + "\n"


def read_note(path: str) -> Optional[dict[str, Any]]:
    """Returns the note beside a TFRecord file, or None if there is none."""
    if not files.exists(note_path(path)):
        return None
    try:
        return json.loads(files.read_text(note_path(path)))
    except ValueError as error:
        raise UserError(
            f"{note_path(path)}: not JSON ({error}); remove it or make the data again"
        ) from None


def lengths(path: str, schema: Schema) -> dict[str, int]:
    """Returns flag -> the length that it decided, as the first record of a file has it.

    Raises:
      UserError: there is no record that can be read.
    """
    features = _first_record(path)
    return {
        field.flag: _length(features[field.name])
        for field in schema.fields
        if field.flag and field.name in features
    }


def check_data(
    paths: Sequence[str],
    schema: Schema,
    vocab_size: int,
    chosen_by: Optional[Mapping[str, str]] = None,
) -> None:
    """Checks that TFRecord files fit the schema and the model, before anything is computed.

    The note beside a file is compared with the flags behind the schema; without a note, the first
    record is looked at.

    Args:
      paths: the files.
      schema: what is expected.
      vocab_size: of the model.
      chosen_by: flag -> the file that its length was taken from, where the flag was not given.

    Raises:
      UserError: naming the file, what it was made with and the flag or file that differs.
    """
    counts = []  # of the records; a shard may be empty, but not all
    for path in paths:
        note = read_note(path)
        counts.append(1 if note is None else note.get("records", 1))
        if note is None:
            _check_first_record(path, schema, vocab_size, chosen_by)
            continue
        for field in schema.fields:
            made_with = note.get(field.flag) if field.flag else None
            if made_with is not None:
                found = f"{path} was made with {made_with}"
                _check_length(field, made_with, found, chosen_by)
        if note.get("vocab_size", 0) > vocab_size:
            raise UserError(
                f"{path} was made with a vocabulary of {note['vocab_size']:,} entries, but the"
                f" model's config says {vocab_size:,}. Make the data with the model's own"
                " vocabulary."
            )
        if note.get("bytes", files.size(path)) != files.size(path):
            raise UserError(
                f"{path}: {files.size(path):,} bytes, but {note_path(path)} says {note['bytes']:,};"
                " it was cut short or replaced: copy it again or make it again"
            )
    if sum(counts) == 0:
        raise UserError(f"{paths[0]}: holds no record; make it again")


def _check_length(
    field: Field, length: int, found: str, chosen_by: Optional[Mapping[str, str]]
) -> None:
    """Raises a UserError unless a field has its length; `found` says what it was made with."""
    if length == field.length:
        return
    source = (chosen_by or {}).get(field.flag or "")
    if source:  # a flag that was not given is no help
        raise UserError(
            f"{source} was made with --{field.flag}={field.length}, but {found}; leave one of them"
            " out, or make it again with the flags of the other"
        )
    raise UserError(
        f"--{field.flag}={field.length}, but {found}. Pass --{field.flag}={length} or make the data"
        " again."
    )


def _first_record(path: str) -> Mapping[str, Any]:
    """Returns the features of a file's first record, by name."""
    data = next(read_records(path), None)
    if data is None:
        raise UserError(f"{path}: empty; expected TFRecord data, as an earlier stage writes it")
    return features_of(data, f"{path} record 1")


def features_of(data: bytes, where: str) -> Mapping[str, Any]:
    """Returns the tf.train.Features of a serialized tf.train.Example, by name.

    Raises:
      UserError: it is none; `where` says which record that is.
    """
    import tensorflow.compat.v1 as tf

    try:
        return tf.train.Example.FromString(data).features.feature
    except Exception:
        raise UserError(
            f"{where}: not a tf.train.Example; expected data of an earlier stage"
        ) from None


def _length(feature: Any) -> int:
    return len(feature.int64_list.value or feature.float_list.value)


def _check_first_record(
    path: str, schema: Schema, vocab_size: int, chosen_by: Optional[Mapping[str, str]]
) -> None:
    features = _first_record(path)
    for field in schema.fields:
        if field.name not in features and field.default is None:
            raise UserError(
                f"{path}: its records have no {field.name!r}, only {', '.join(sorted(features))};"
                f" was it made for another stage, or is its note {note_path(path)} missing?"
            )
        length = _length(features[field.name])
        if field.flag:
            found = f"{field.name} in {path} has {length} values"
            _check_length(field, length, found, chosen_by)
    largest = max(features["input_ids"].int64_list.value)
    if largest >= vocab_size:
        raise UserError(
            f"{path} record 1: token id {largest:,}, but the model's config says {vocab_size:,}"
            " entries. Make the data with the model's own vocabulary."
        )
