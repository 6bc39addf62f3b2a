"""Lines of text that are loaded with a model of vectors, to find the nearest to a text."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bert_toolkit.errors import UserError
from bert_toolkit.features.lines import split_pair
from bert_toolkit.features.neighbors import UnitVectors
from bert_toolkit.inference.encoder import Encoder, Text
from bert_toolkit.io import files
from bert_toolkit.io.progress import Progress
from bert_toolkit.results import Neighbor

# Their vectors are computed before the port opens, and each text is compared with all of them.
MOST_LINES = 100_000
LINES_AT_ONCE = 512


class Line(NamedTuple):
    """A line that says something, and its number from 1."""

    number: int
    text: str

    def parts(self) -> Text:
        """Returns what a model reads, as `bert features` has it: the text, or the two of a pair."""
        parts = split_pair(self.text)
        return parts[0].text if len(parts) == 1 else (parts[0].text, parts[1].text)


def read(path: str) -> list[Line]:
    """Returns the lines of --lines_file, without blank ones.

    Raises:
      UserError: there are none, or too many, or the file cannot be read.
    """
    files.check_input(path, "lines_file")
    found: list[Line] = []
    for number, text in enumerate(files.read_lines(path), 1):
        if text.strip():
            found.append(Line(number, text))
        if len(found) > MOST_LINES:
            raise UserError(
                f"--lines_file={path}: more than {MOST_LINES:,} lines; expected at most that, as"
                " each text is compared with all; pass a part of them"
            )
    if not found:
        raise UserError(f"--lines_file={path}: empty; expected lines of text")
    return found


class LineSearch:
    """Finds the nearest lines to texts, by the cosine of their vectors."""

    def __init__(self, encoder: Encoder, lines: Sequence[Line]):
        """Computes the vectors of all lines."""
        self._encoder, self._lines = encoder, lines
        vectors: list[np.ndarray] = []
        with Progress("encoding --lines_file", "lines", len(lines)) as progress:
            for start in range(0, len(lines), LINES_AT_ONCE):
                part = [line.parts() for line in lines[start : start + LINES_AT_ONCE]]
                vectors.extend(encoder.encode(part))
                progress.update(len(part))
        self._vectors = UnitVectors(vectors)

    def nearest(
        self, texts: Sequence[Text], count: int, batch_size: int = 32
    ) -> list[list[Neighbor]]:
        """Returns the `count` nearest lines of each text, the best first."""
        found = []
        for vector in self._encoder.encode(texts, batch_size):  # [D]; one needs a number a line
            [nearest] = self._vectors.nearest(UnitVectors([vector]), count)
            found.append([Neighbor(*self._lines[n], cosine) for cosine, n in nearest])
        return found
