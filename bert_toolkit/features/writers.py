"""Files of features: JSON lines as published, arrays, records and tables. docs/formats.md tells.

A writer takes the features of a line after the other and is closed; the names of what it writes are
those of the arrays, "layer_-1" for instance.
"""

import contextlib
import dataclasses
import gzip
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, Optional, Protocol

import numpy as np

from bert_toolkit.errors import UserError
from bert_toolkit.features.lines import LineFeatures
from bert_toolkit.io import files, tfrecord

# Ending of a file's name -> format.
FORMAT_BY_ENDING = {
    ".npy": "npy",
    ".npz": "npz",
    ".tfrecord": "tfrecord",
    ".parquet": "parquet",
    ".hdf5": "hdf5",
    ".h5": "hdf5",
}
FORMATS = ("jsonl", "npy", "npz", "hdf5", "parquet", "tfrecord")
# Formats whose libraries want files that one can go back in, which are here and not elsewhere.
LOCAL_FORMATS = ("hdf5", "npz", "parquet")


def format_of(path: str) -> str:
    """Returns the format that the name of an output file means; JSON lines if none."""
    return FORMAT_BY_ENDING.get(os.path.splitext(path)[1].lower(), "jsonl")


@dataclasses.dataclass(frozen=True)
class FeatureLayout:
    """What is written of each line.

    Attributes:
      layers: name of an array -> the layer's number as JSON lines tell it; with pooling "vector".
      dtype: type of numbers in binary formats, "float32" or "float16".
      pooled: one vector a line, rather than one a token.
      with_words: tokens are words, and it is told where they stand.
      attention: what is written is attention weights, of these layers; no vectors.
    """

    layers: Mapping[str, Any]
    dtype: str = "float32"
    pooled: bool = False
    with_words: bool = False
    attention: bool = False


class Writer(Protocol):
    """Writes features to a file."""

    def write(self, line: LineFeatures) -> None:
        """Writes those of a line."""

    def close(self) -> None:
        """Ends the file."""


@contextlib.contextmanager
def open_writer(path: str, format_name: str, layout: FeatureLayout) -> Iterator[Writer]:
    """Opens a writer; a file appears as a whole at the end of the block, or not at all."""
    if path == files.STREAM:
        yield JsonLines(sys.stdout.buffer, layout)
        return
    with files.replacing([path]) as [unfinished]:
        if format_name == "jsonl":
            stream = files.open_binary(unfinished, "wb")
            compressed = path.endswith(".gz")
            writer: Writer = JsonLines(_gzipped(stream) if compressed else stream, layout)
        elif layout.attention:
            writer = AttentionNpz(unfinished, layout)
        else:
            writer = _WRITERS[format_name](unfinished, layout)
        yield writer
        writer.close()


def _gzipped(stream: IO[bytes]) -> IO[bytes]:
    """Compresses quickly, with the same bytes whenever and wherever it is done."""
    return gzip.GzipFile("", "wb", compresslevel=1, fileobj=stream, mtime=0)  # type: ignore[return-value]


class JsonLines:
    """The published form: a JSON object a line, values with 6 decimals."""

    def __init__(self, stream: IO[bytes], layout: FeatureLayout):
        self._stream, self._layout = stream, layout

    def write(self, line: LineFeatures) -> None:
        """Writes a line."""
        import orjson

        row = self._pooled(line) if self._layout.pooled else self._tokens(line)
        option = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
        self._stream.write(orjson.dumps(row, option=option))

    def _pooled(self, line: LineFeatures) -> dict[str, Any]:
        return {"linex_index": line.source.number, "vector": _rounded(line.arrays["vector"])}

    def _tokens(self, line: LineFeatures) -> dict[str, Any]:
        layers = [
            (number, _rounded(line.arrays[name])) for name, number in self._layout.layers.items()
        ]
        tokens = []
        for position, token in enumerate(line.tokens):
            feature: dict[str, Any] = {"token": token}
            if line.words is not None:
                feature["offsets"] = line.words.offsets[position]
                feature["pieces"] = line.words.pieces[position]
            feature["layers"] = [
                {"index": number, "values": values[position]} for number, values in layers
            ]
            tokens.append(feature)
        return {"linex_index": line.source.number, "features": tokens}

    def close(self) -> None:
        """Ends the file."""
        raw = getattr(self._stream, "fileobj", None)  # of a compressed one
        self._stream.close()
        if raw is not None:
            raw.close()


def _rounded(values: np.ndarray) -> np.ndarray:
    """To 6 decimals in double precision, as published: they may need more than float32 has."""
    return np.round(values.astype(np.float64), 6)


class _Column:
    """Rows of an array in an unnamed file, until their number is known."""

    def __init__(self, dtype: str, shape: Sequence[int], directory: str):
        self.dtype, self.shape, self.rows = np.dtype(dtype).newbyteorder("<"), tuple(shape), 0
        # It has no name and goes when it is closed, or when the process ends.
        self._file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115

    def append(self, rows: np.ndarray) -> None:
        self._file.write(np.ascontiguousarray(rows, self.dtype).tobytes())
        self.rows += len(rows)

    def save(self, stream: IO[bytes]) -> None:
        """Writes an .npy file."""
        header = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (self.rows, *self.shape),
        }
        np.lib.format.write_array_header_1_0(stream, header)
        self._file.seek(0)
        shutil.copyfileobj(self._file, stream, 1 << 20)
        self._file.close()


def _directory(path: str) -> str:
    """Where to keep what is on its way to a file: beside it, if that is on this machine."""
    return tempfile.gettempdir() if "://" in path else os.path.dirname(os.path.abspath(path))


class Npy:
    """One array, [lines, D], of pooled vectors."""

    def __init__(self, path: str, layout: FeatureLayout):
        self._path, self._dtype = path, layout.dtype
        self._column: Optional[_Column] = None

    def write(self, line: LineFeatures) -> None:
        """Adds a row."""
        vector = line.arrays["vector"]
        if self._column is None:
            self._column = _Column(self._dtype, vector.shape, _directory(self._path))
        self._column.append(vector[None])

    def close(self) -> None:
        """Writes the file."""
        with files.open_binary(self._path, "wb") as stream:
            if self._column is not None:
                self._column.save(stream)


class _Columns:
    """What files of arrays have: numbers and vectors of lines, or of all their tokens."""

    def __init__(self, layout: FeatureLayout):
        self._layout = layout
        self.indexes: list[int] = []
        self.splits = [0]
        self.tokens: list[str] = []

    def rows(self, line: LineFeatures) -> dict[str, np.ndarray]:
        """Notes a line, and returns what is to be added to each of its columns."""
        self.indexes.append(line.source.number)
        if self._layout.pooled:
            return {"vector": line.arrays["vector"][None]}
        self.tokens += line.tokens
        self.splits.append(len(self.tokens))
        added = {name: line.arrays[name] for name in self._layout.layers}
        if line.words is not None:
            added |= {"offsets": line.words.offsets, "pieces": line.words.pieces}
        return added

    def dtype(self, name: str) -> str:
        return "int64" if name in ("offsets", "pieces") else self._layout.dtype

    def small(self) -> dict[str, np.ndarray]:
        """Returns the columns that are kept in memory."""
        columns = {"linex_index": np.array(self.indexes, np.int64)}
        if not self._layout.pooled:
            columns["splits"] = np.array(self.splits, np.int64)
        return columns


class Npz:
    """An .npz archive, not compressed: floats of vectors hardly get smaller."""

    def __init__(self, path: str, layout: FeatureLayout):
        self._path, self._layout = path, layout
        self._columns = _Columns(layout)
        self._large: dict[str, _Column] = {}

    def write(self, line: LineFeatures) -> None:
        """Adds a line."""
        for name, rows in self._columns.rows(line).items():
            if name not in self._large:
                dtype = self._columns.dtype(name)
                self._large[name] = _Column(dtype, rows.shape[1:], _directory(self._path))
            self._large[name].append(rows)

    def close(self) -> None:
        """Writes the file."""
        small = self._columns.small()
        if not self._layout.pooled:
            small["tokens"] = np.array(self._columns.tokens, np.str_)
        with (
            files.open_binary(self._path, "wb") as stream,
            zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive,
        ):
            for name, array in small.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)
            for name, column in self._large.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    column.save(entry)


class AttentionNpz:
    """An .npz archive with two arrays a line: its tokens, and its attention weights.

    Every line has arrays of its own, which numpy reads when they are asked for: those of all lines
    are too large to be read at once.
    """

    def __init__(self, path: str, layout: FeatureLayout):
        self._stream = files.open_binary(path, "wb")
        self._archive = zipfile.ZipFile(self._stream, "w", zipfile.ZIP_STORED)
        self._dtype = np.dtype(layout.dtype).newbyteorder("<")
        self._add("layers", np.array(list(layout.layers.values()), np.int64))

    def _add(self, name: str, array: np.ndarray) -> None:
        with self._archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
            np.lib.format.write_array(entry, array, allow_pickle=False)

    def write(self, line: LineFeatures) -> None:
        """Adds a line: tokens_N [T] and attention_N [L, heads, T, T]."""
        weights = line.arrays["attention"][..., : len(line.tokens)]  # [T, L, heads, T]
        number = line.source.number
        self._add(f"tokens_{number}", np.array(line.tokens, np.str_))
        self._add(f"attention_{number}", np.moveaxis(weights, 0, 2).astype(self._dtype))

    def close(self) -> None:
        """Ends the file."""
        self._archive.close()
        self._stream.close()


# Rows are kept until they are this large together: appending one by one is slow.
_BYTES_AT_ONCE = 16_000_000


class Hdf5:
    """An HDF5 file with a data set for each array."""

    def __init__(self, path: str, layout: FeatureLayout):
        import h5py

        self._columns = _Columns(layout)
        self._layout = layout
        self._file = h5py.File(path, "w")
        self._waiting: dict[str, list[np.ndarray]] = {}
        self._waiting_bytes = 0

    def write(self, line: LineFeatures) -> None:
        """Adds a line."""
        for name, rows in self._columns.rows(line).items():
            self._waiting.setdefault(name, []).append(rows)
            self._waiting_bytes += rows.nbytes
        if self._waiting_bytes >= _BYTES_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        for name, parts in self._waiting.items():
            rows = np.concatenate(parts)
            if name not in self._file:
                chunk = max(1, 250_000 // max(1, rows[:1].nbytes))
                self._file.create_dataset(
                    name,
                    (0, *rows.shape[1:]),
                    self._columns.dtype(name),
                    maxshape=(None, *rows.shape[1:]),
                    chunks=(chunk, *rows.shape[1:]),
                )
            stored = self._file[name]
            stored.resize(len(stored) + len(rows), axis=0)
            stored[len(stored) - len(rows) :] = rows
        self._waiting, self._waiting_bytes = {}, 0

    def close(self) -> None:
        """Ends the file."""
        import h5py

        self._flush()
        for name, array in self._columns.small().items():
            self._file[name] = array
        if not self._layout.pooled:
            text = h5py.string_dtype()
            self._file.create_dataset("tokens", data=self._columns.tokens, dtype=text)
        self._file.close()


class Parquet:
    """A Parquet table with a row a line; the vectors of its tokens are a list of lists."""

    def __init__(self, path: str, layout: FeatureLayout):
        self._stream = files.open_binary(path, "wb")
        self._layout = layout
        self._writer: Any = None
        self._waiting: list[LineFeatures] = []
        self._waiting_bytes = 0

    def write(self, line: LineFeatures) -> None:
        """Adds a line."""
        self._waiting.append(line)
        self._waiting_bytes += sum(array.nbytes for array in line.arrays.values())
        if self._waiting_bytes >= _BYTES_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        import pyarrow
        import pyarrow.parquet

        if not self._waiting:
            return
        table = pyarrow.table(self._columns(pyarrow))
        if self._writer is None:
            self._writer = pyarrow.parquet.ParquetWriter(
                self._stream, table.schema, use_dictionary=["tokens"]
            )
        self._writer.write_table(table)
        self._waiting, self._waiting_bytes = [], 0

    def _columns(self, pyarrow: Any) -> dict[str, Any]:
        def vectors(name: str) -> Any:
            arrays = [line.arrays[name] for line in self._waiting]
            joined = np.concatenate(arrays, axis=None).astype(self._layout.dtype)
            return pyarrow.FixedSizeListArray.from_arrays(
                pyarrow.array(joined), arrays[0].shape[-1]
            )

        lines = self._waiting
        columns = {"linex_index": pyarrow.array([line.source.number for line in lines])}
        if self._layout.pooled:
            return {**columns, "vector": vectors("vector")}
        ends = np.cumsum([0, *(len(line.tokens) for line in lines)], dtype=np.int32)

        def by_line(values: Any) -> Any:
            return pyarrow.ListArray.from_arrays(pyarrow.array(ends), values)

        columns["tokens"] = by_line(
            pyarrow.array([t for line in lines for t in line.tokens], pyarrow.string())
        )
        if self._layout.with_words:
            for name in ("offsets", "pieces"):
                pairs = [getattr(line.words, name) for line in lines]
                flat = pyarrow.array(np.concatenate(pairs, axis=None))
                columns[name] = by_line(pyarrow.FixedSizeListArray.from_arrays(flat, 2))
        return {**columns, **{name: by_line(vectors(name)) for name in self._layout.layers}}

    def close(self) -> None:
        """Ends the file."""
        self._flush()
        if self._writer is not None:
            self._writer.close()
        self._stream.close()


class Records:
    """A TFRecord file with a tf.train.Example a line; float16 is written as bytes."""

    def __init__(self, path: str, layout: FeatureLayout):
        self._writer, self._layout = tfrecord.RecordWriter(path), layout

    def write(self, line: LineFeatures) -> None:
        """Adds a record."""
        values: dict[str, Any] = {"linex_index": np.array([line.source.number])}
        if not self._layout.pooled:
            values["tokens"] = [token.encode() for token in line.tokens]
        if line.words is not None:
            values |= {"offsets": line.words.offsets, "pieces": line.words.pieces}
        for name in self._layout.layers:
            array = line.arrays[name]
            half = self._layout.dtype == "float16"
            values[name] = [array.astype("<f2").tobytes()] if half else array
        self._writer.write(tfrecord.example(values))

    def close(self) -> None:
        """Ends the file."""
        self._writer.close()


_WRITERS: dict[str, Callable[[str, FeatureLayout], Writer]] = {
    "npy": Npy,
    "npz": Npz,
    "hdf5": Hdf5,
    "parquet": Parquet,
    "tfrecord": Records,
}


def check_libraries(format_name: str) -> None:
    """Raises a UserError if the library that writes a format is not installed."""
    library = {"parquet": "pyarrow", "hdf5": "h5py"}.get(format_name)
    if library is None:
        return
    try:
        __import__(library)
    except ImportError:
        raise UserError(
            f"{format_name}: writing it needs {library}; pip install 'bert-toolkit[features]', or"
            " write JSON lines or .npz"
        ) from None
