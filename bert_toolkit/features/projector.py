"""What TensorBoard's embedding projector opens: points as numbers, and what to call them.

Points are lines, their tokens, or the entries of a vocabulary.

https://www.tensorflow.org/tensorboard/tensorboard_projector_plugin
"""

import contextlib
import os
import re
from collections.abc import Sequence

import numpy as np
from absl import logging

from bert_toolkit.features.lines import LineFeatures
from bert_toolkit.io import files
from bert_toolkit.io.progress import Progress
from tokenization import FullTokenizer

VECTORS, METADATA, CONFIG = "vectors.tsv", "metadata.tsv", "projector_config.pbtxt"
# The projector itself takes a sample of more.
MOST_POINTS = 100_000


# What is told of a point: of a line or a token of it, and of an entry of a vocabulary.
OF_LINES = ("text", "line", "in")
OF_VOCABULARY = ("token", "id", "kind")


class Projector:
    """Writes points, with what is told of them. Use as a context manager."""

    def __init__(self, directory: str, columns: Sequence[str] = OF_LINES):
        """Makes the directory, which is then TensorBoard's --logdir."""
        files.make_directory(directory, "projector_dir")
        self.directory, self.points, self.left_out = directory, 0, 0
        self._columns = columns
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "Projector":
        paths = [os.path.join(self.directory, name) for name in (VECTORS, METADATA)]
        unfinished = self._open.enter_context(files.replacing(paths))
        self._vectors, self._metadata = (
            self._open.enter_context(files.open_binary(name, "wb")) for name in unfinished
        )
        self._metadata.write("{}\n".format("\t".join(self._columns)).encode())
        return self

    def __exit__(self, *error) -> None:
        if error[0] is None:
            config = f'embeddings {{\n  tensor_name: "features"\n  tensor_path: "{VECTORS}"\n'
            config += f'  metadata_path: "{METADATA}"\n}}\n'
            files.write_text(os.path.join(self.directory, CONFIG), config)
        self._open.__exit__(*error)
        if self.left_out:
            logging.warning(
                "%s: the first %s points; %s more were left out",
                self.directory,
                f"{self.points:,}",
                f"{self.left_out:,}",
            )

    def write(self, line: LineFeatures) -> None:
        """Adds the points of a line."""
        number, text = str(line.source.number + 1), _cell(line.source.text)
        [values] = line.arrays.values()
        points = values[None] if values.ndim == 1 else values
        names = [_cell(token) for token in line.tokens] or [text]
        for point, name in zip(points, names):
            self.add(point, (name, number, text))

    def add(self, point: np.ndarray, cells: Sequence[str]) -> None:
        """Adds a point [D], with a cell for each column; no more than MOST_POINTS."""
        if self.points == MOST_POINTS:
            self.left_out += 1
            return
        row = "\t".join(np.char.mod("%.6g", point))
        self._vectors.write(f"{row}\n".encode())
        self._metadata.write("{}\n".format("\t".join(cells)).encode())
        self.points += 1


def write_vocabulary(directory: str, tokenizer: FullTokenizer, table: np.ndarray) -> int:
    """Writes the word embeddings [V, H] of a model as points; returns how many."""
    entries = sorted((number, token) for token, number in tokenizer.vocab.items())
    with (
        Projector(directory, OF_VOCABULARY) as projector,
        Progress("writing", "points", len(entries)) as progress,
    ):
        for number, token in entries:
            projector.add(table[number], (_cell(token), str(number), _kind(token)))
            progress.update()
    return projector.points


def _kind(token: str) -> str:
    """Returns what an entry of a vocabulary is, by which the projector can colour it."""
    if re.fullmatch(r"\[unused\d+\]", token):
        return "unused"
    if re.fullmatch(r"\[[A-Z]+\]", token):
        return "special"
    return "piece" if token.startswith("##") and len(token) > 2 else "word"


def _cell(text: str) -> str:
    """Without tabs and line ends, which would end the cell."""
    return re.sub(r"\s+", " ", text).strip() or "(empty)"
