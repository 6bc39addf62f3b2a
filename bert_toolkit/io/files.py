"""Files: input patterns, text by the line, outputs that appear whole or not at all, I/O errors.

Paths with :// (gs:// and the like) go through TensorFlow's file system layer (or what
`use_for_remote_paths` puts in its place), others not.
"""

import codecs
import contextlib
import glob
import gzip
import hashlib
import os
import shutil
import socket
import sys
from collections.abc import Iterator, Sequence
from typing import IO, Any, Optional, Union

from bert_toolkit.errors import UserError

STREAM = "-"  # standard input where lines are read, standard output where they are written

# First bytes of files that hold no UTF-8 text: what they are, and what makes text of them.
_BEGINNINGS = (
    (b"\xff\xfe\0\0", "UTF-32 text", "convert it: iconv -f UTF-32 -t UTF-8"),
    (b"\xff\xfe", "UTF-16 text", "convert it: iconv -f UTF-16 -t UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "convert it: iconv -f UTF-16 -t UTF-8"),
    (b"\x1f\x8b", "gzip data", "unpack it with gzip -dc, or let its name end in .gz"),
    (b"PK\x03\x04", "a zip archive or a spreadsheet", "unpack it, or save it as CSV in UTF-8"),
)


def _is_remote(path: str) -> bool:
    return "://" in path


_remote_files: Any = None


def use_for_remote_paths(file_system: Any) -> None:
    """Lets paths with :// go through something else that has the functions of gfile."""
    global _remote_files
    _remote_files = file_system


def _gfile() -> Any:
    if _remote_files is not None:
        return _remote_files
    from tensorflow.compat.v1 import gfile

    return gfile


@contextlib.contextmanager
def io_errors(path: str) -> Iterator[None]:
    """Turns an OSError on `path`, a full disk for one, into a UserError that names the path."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except Exception as error:
        if type(error).__module__.startswith("tensorflow.") and _is_remote(path):
            raise UserError(f"{path}: {getattr(error, 'message', error)}") from error
        raise


def shown(path: str) -> str:
    """Returns the name that messages have for a path that lines are read from."""
    return "standard input" if path == STREAM else path


def exists(path: str) -> bool:
    """Whether there is a file or directory at `path`."""
    return _gfile().Exists(path) if _is_remote(path) else os.path.exists(path)


def is_directory(path: str) -> bool:
    """Whether `path` is a directory."""
    return _gfile().IsDirectory(path) if _is_remote(path) else os.path.isdir(path)


def check_input(path: str, flag: str) -> None:
    """Raises a UserError naming `flag` unless `path` is a file that is there."""
    if not exists(path):
        raise UserError(f"--{flag}={path}: no such file")
    if is_directory(path):
        raise UserError(f"--{flag}={path}: a directory; expected a file")


def expand_inputs(patterns: str, flag: str) -> list[str]:
    """Returns the files that a comma-separated list of paths and glob patterns stands for.

    Patterns are taken in the order given, the matches of each in alphabetical order. The .json
    notes that lie beside data sets are left out.

    Raises:
      UserError: a pattern matches nothing, or a path is a directory.
    """
    files = []
    for pattern in filter(None, (part.strip() for part in patterns.split(","))):
        if exists(pattern):
            matches = [pattern]
        else:
            found = _gfile().Glob(pattern) if _is_remote(pattern) else glob.glob(pattern)
            matches = sorted(name for name in found if not name.endswith(".json"))
        if not matches:
            raise UserError(f"--{flag}={patterns}: no file matches {pattern!r}")
        for name in matches:
            check_input(name, flag)
        files += matches
    if not files:
        raise UserError(f"--{flag}={patterns!r}: names no file")
    return files


def check_output(path: str) -> None:
    """Raises a UserError if no file can be written at `path`, before work that would be lost."""
    if is_directory(path):
        raise UserError(f"{path}: a directory; expected the name of a file to write")
    if os.path.dirname(path) and not _is_remote(path):
        make_directory(os.path.dirname(path))


def make_directory(path: str, flag: Optional[str] = None) -> None:
    """Makes an output directory with its parents unless it is there; `flag` names just it."""
    name = f"--{flag}={path}" if flag else path
    try:
        _gfile().MakeDirs(path) if _is_remote(path) else os.makedirs(path, exist_ok=True)
    except FileExistsError:
        raise UserError(f"{name}: a file; expected a directory to write to") from None
    except OSError as error:
        raise UserError(f"{name}: cannot make this directory: {error.strerror}") from None


def open_binary(path: str, mode: str) -> IO[bytes]:
    """Opens a file for reading ("rb") or writing ("wb") bytes."""
    with io_errors(path):
        return _gfile().GFile(path, mode) if _is_remote(path) else open(path, mode)


@contextlib.contextmanager
def replacing(paths: Sequence[str]) -> Iterator[list[str]]:
    """Yields names to write in place of `paths`; at the end they become `paths`, all together.

    If the block fails or is interrupted, they are removed and what stood at `paths` is untouched.
    Missing parent directories are made.
    """
    unfinished = [unfinished_name(path, os.getpid()) for path in paths]
    try:
        for path in paths:
            check_output(path)
        with io_errors(paths[0] if len(paths) == 1 else os.path.dirname(paths[0]) or "."):
            yield unfinished
            for name, path in zip(unfinished, paths):
                _gfile().Rename(name, path, overwrite=True) if _is_remote(path) else os.replace(
                    name, path
                )
    finally:
        for name in unfinished:
            remove(name)


def write_text(path: str, text: str) -> None:
    """Writes a text file as a whole, atomically."""
    with replacing([path]) as [name], open_binary(name, "wb") as writer:
        writer.write(text.encode("utf-8"))


def read_text(path: str) -> str:
    """Returns a whole UTF-8 text file."""
    with open_binary(path, "rb") as reader, io_errors(path):
        data = reader.read()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        _check_beginning(path, data)
        raise UserError(f"{path}: binary data; expected UTF-8 text") from None


def _check_beginning(name: str, line: bytes) -> None:
    """Raises a UserError that names what a first line is, if it is not the first line of text."""
    for beginning, found, advice in _BEGINNINGS:
        if line.startswith(beginning):
            raise UserError(f"{name}: {found}; expected UTF-8 text; {advice}")
    # Latin letters in UTF-16 are a byte and a zero, or a zero and a byte.
    even, odd = line[0:64:2], line[1:64:2]
    for order, zeros, letters in (("LE", odd, even), ("BE", even, odd)):
        if len(line) > 3 and not zeros.strip(b"\0") and b"\0" not in letters:
            raise UserError(
                f"{name}: UTF-16 text without a byte-order mark; expected UTF-8 text; convert it:"
                f" iconv -f UTF-16{order} -t UTF-8"
            )
    if not line.endswith(b"\n") and b"\r" in line.rstrip(b"\r"):
        raise UserError(
            f"{name}: all one line, whose parts end in carriage returns only; expected line feeds;"
            " convert it: tr '\\r' '\\n'"
        )


def remove(path: str) -> None:
    """Removes a file if it is there."""
    if exists(path):
        with io_errors(path):
            _gfile().Remove(path) if _is_remote(path) else os.remove(path)


def unfinished_name(path: str, process: Union[int, str]) -> str:
    """Returns the name under which a process of this machine writes what will become `path`."""
    return f"{path}.unfinished-{socket.gethostname()}-{process}"


def size(path: str) -> int:
    """Returns the length of a file in bytes."""
    with io_errors(path):
        return _gfile().Stat(path).length if _is_remote(path) else os.path.getsize(path)


def digest(path: str) -> str:
    """Returns the SHA-256 digest of a file, in hexadecimal."""
    with open_binary(path, "rb") as reader, io_errors(path):
        return hashlib.sha256(reader.read()).hexdigest()


def copy(source: str, target: str) -> None:
    """Copies a small file, atomically; nothing happens if both are the same file."""
    if os.path.realpath(source) == os.path.realpath(target):
        return
    with (
        open_binary(source, "rb") as reader,
        replacing([target]) as [name],
        open_binary(name, "wb") as writer,
    ):
        shutil.copyfileobj(reader, writer)


def read_lines(path: str) -> Iterator[str]:
    """Yields the lines of UTF-8 text without their ends: of a file, .gz or plain, or of - (stdin).

    Only a line feed ends a line, with a carriage return before it or not: other characters that
    Unicode calls line ends, U+2028 for one, are text. A byte-order mark is dropped.

    Raises:
      UserError: the file cannot be read, or holds something else than lines of UTF-8 text: what it
        holds, if its beginning tells, or the line where it is none.
    """
    number = 0
    name = shown(path)
    try:
        with _open_maybe_gzip(path) as reader:
            for number, line in enumerate(reader, 1):
                if number == 1:
                    _check_beginning(name, line)
                    line = line.removeprefix(codecs.BOM_UTF8)
                if number <= 10 and b"\0" in line:
                    raise UserError(
                        f"{name} line {number}: binary data; expected UTF-8 text, plain or .gz"
                    )
                yield line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{name} line {number}: not UTF-8 (byte 0x{error.object[error.start]:02x}); convert it"
            " with iconv"
        ) from None
    except (EOFError, gzip.BadGzipFile) as error:
        raise UserError(f"{name} after line {number}: broken gzip data ({error})") from None
    except OSError as error:
        raise UserError(f"{name}: {error.strerror or error}") from None


def count_lines(path: str) -> int:
    """Returns how many lines a text file has, .gz or plain; reads it once.

    Raises:
      UserError: it cannot be read.
    """
    count, last = 0, b"\n"
    with _open_maybe_gzip(path) as reader, io_errors(path), gzip_errors(path):
        while block := reader.read(1 << 20):
            count += block.count(b"\n")
            last = block[-1:]
    return count + (last != b"\n")


def read_lines_from(path: str, offset: int) -> Iterator[tuple[int, str]]:
    """Yields the lines of a plain UTF-8 file that begin at byte `offset` or later: (begin, line).

    Lines end, and errors are told, as in `read_lines`; places are told in bytes.
    """
    with open_binary(path, "rb") as reader, io_errors(path):
        if offset > 0:
            reader.seek(offset - 1)
            offset += len(reader.readline()) - 1
        for line in reader:
            if offset == 0:
                _check_beginning(path, line)
            text = line.removeprefix(codecs.BOM_UTF8) if offset == 0 else line
            try:
                yield offset, text.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path} at byte {offset + error.start:,}: not UTF-8 (byte"
                    f" 0x{error.object[error.start]:02x}); convert it with iconv"
                ) from None
            offset += len(line)


@contextlib.contextmanager
def gzip_errors(path: str) -> Iterator[None]:
    """Turns broken gzip data into a UserError that names the path."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: broken gzip data ({error}); copy or make it again") from None


@contextlib.contextmanager
def _open_maybe_gzip(path: str) -> Iterator[IO[bytes]]:
    if path == STREAM:
        yield sys.stdin.buffer
        return
    with open_binary(path, "rb") as raw:
        if path.endswith(".gz"):
            with gzip.GzipFile(fileobj=raw) as reader:
                yield reader  # type: ignore[misc]
        else:
            yield raw
