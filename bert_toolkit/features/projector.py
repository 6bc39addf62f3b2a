"""What TensorBoard's embedding projector opens: points as numbers, and what to call them.

https://www.tensorflow.org/tensorboard/tensorboard_projector_plugin
"""

import contextlib
import os
import re

import numpy as np
from absl import logging

from bert_toolkit.features.lines import LineFeatures
from bert_toolkit.io import files

VECTORS, METADATA, CONFIG = "vectors.tsv", "metadata.tsv", "projector_config.pbtxt"
# The projector itself takes a sample of more.
MOST_POINTS = 100_000


class Projector:
    """Writes lines, or their tokens, as points. Use as a context manager."""

    def __init__(self, directory: str):
        """Makes the directory, which is then TensorBoard's --logdir."""
        files.make_directory(directory, "projector_dir")
        self.directory, self.points, self.left_out = directory, 0, 0
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "Projector":
        paths = [os.path.join(self.directory, name) for name in (VECTORS, METADATA)]
        unfinished = self._open.enter_context(files.replacing(paths))
        self._vectors, self._metadata = (
            self._open.enter_context(files.open_binary(name, "wb")) for name in unfinished
        )
        self._metadata.write(b"text\tline\tin\n")
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
        room = MOST_POINTS - self.points
        self.left_out += max(0, len(points) - room)
        for point, name in list(zip(points, names))[:room]:
            row = "\t".join(np.char.mod("%.6g", point))
            self._vectors.write(f"{row}\n".encode())
            self._metadata.write(f"{name}\t{number}\t{text}\n".encode())
            self.points += 1


def _cell(text: str) -> str:
    """Without tabs and line ends, which would end the cell."""
    return re.sub(r"\s+", " ", text).strip() or "(empty)"
