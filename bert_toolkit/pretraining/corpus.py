"""A corpus: text files with one sentence a line and a blank line between documents.

The files are read as one text, laid end to end in their order. A corpus can be divided into spans
of bytes that are read each on its own, whatever the number of files and documents.
"""

import bisect
import contextlib
import dataclasses
import gzip
import itertools
import os
import shutil
from collections.abc import Iterator, Sequence
from typing import Optional

from absl import logging

from bert_toolkit.io import files

COPY_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Span:
    """A part of a corpus, in bytes from its beginning.

    To it belong the documents before which the last blank line begins in [start, end); the first
    document of the corpus belongs to the first span.
    """

    start: int
    end: int


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Plain text files that can be read from any place."""

    paths: tuple[str, ...]
    names: tuple[str, ...]  # what the files were called before they were unpacked
    starts: tuple[int, ...]  # of each file, in bytes from the beginning of the corpus
    size: int

    @classmethod
    def of(cls, paths: Sequence[str], names: Optional[Sequence[str]] = None) -> "Corpus":
        """Looks at the sizes of the files."""
        ends = list(itertools.accumulate(map(files.size, paths)))
        return cls(tuple(paths), tuple(names or paths), (0, *ends[:-1]), ends[-1])

    def spans(self, count: int) -> list[Span]:
        """Divides the corpus into spans of the same number of bytes, to one."""
        bounds = [self.size * index // count for index in range(count + 1)]
        return [Span(start, end) for start, end in zip(bounds, bounds[1:])]

    def lines(self, span: Span) -> Iterator[str]:
        """Yields the lines of the documents of a span, with the blank ones between them.

        Raises:
          UserError: a file cannot be read or is not UTF-8 text.
        """
        ours = span.start == 0 < span.end
        for begin, line in self._lines_from(span.start):
            if not line.strip():
                if begin >= span.end:
                    return
                ours = True
            if ours:
                yield line

    def _lines_from(self, place: int) -> Iterator[tuple[int, str]]:
        first = bisect.bisect_right(self.starts, place) - 1
        for path, start in list(zip(self.paths, self.starts))[first:]:
            for offset, line in files.read_lines_from(path, max(0, place - start)):
                yield start + offset, line


def whole_lines(paths: Sequence[str]) -> Iterator[str]:
    """Yields the lines of all files, plain or .gz, and warns where a document spans two files."""
    line = ""
    for index, name in enumerate(paths):
        if line.strip():
            logging.warning(
                "%s ends without a blank line: its last document goes on in %s",
                paths[index - 1],
                name,
            )
        for line in files.read_lines(name):  # noqa: UP028 (the last line is looked at above)
            yield line


@contextlib.contextmanager
def unpacked(paths: Sequence[str], directory: str) -> Iterator[list[str]]:
    """Yields the paths with plain copies in place of .gz files, which exist inside the block only.

    Compressed text can be read from its beginning only, which would be done again for each part.
    """
    names = []
    copies = []
    try:
        for index, path in enumerate(paths):
            if path.endswith(".gz"):
                copies.append(os.path.join(directory, f"unpacked-{os.getpid()}-{index}.txt"))
                _unpack(path, copies[-1])
                names.append(copies[-1])
            else:
                names.append(path)
        yield names
    finally:
        for copy in copies:
            files.remove(copy)


def _unpack(path: str, copy: str) -> None:
    logging.info("unpacking %s to %s", path, os.path.dirname(copy) or ".")
    if os.path.dirname(copy):
        files.make_directory(os.path.dirname(copy))
    with (
        files.open_binary(path, "rb") as raw,
        gzip.GzipFile(fileobj=raw) as reader,
        files.open_binary(copy, "wb") as writer,
        files.gzip_errors(path),
        files.io_errors(copy),
    ):
        shutil.copyfileobj(reader, writer, COPY_BYTES)
