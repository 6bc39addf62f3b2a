"""Which model of a directory is served, and whether there is a newer one."""

import contextlib
import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from bert_toolkit.checkpoints import hugging_face, model_directory, task_file
from bert_toolkit.tasks import best_model
from bert_toolkit.tasks.classification import calibration
from bert_toolkit.text import tokenizer_config

_NAMES = {
    *(model_directory.FILES),
    *tokenizer_config.VOCABULARIES,
    hugging_face.CONFIG,
    task_file.NAME,
    calibration.FILE,
    "checkpoint",
}
_ENDS = (".index", ".safetensors")


class Version(NamedTuple):
    """A model as it lies on the disk now.

    Attributes:
      directory: where.
      name: the number of its directory, or "1".
      fingerprint: names, sizes and times of its files.
    """

    directory: str
    name: str
    fingerprint: tuple[tuple[str, int, int], ...]


def newest(directory: str) -> Version:
    """Returns the newest model of a directory: its own, or that in the highest number below it."""
    chosen, name = directory, "1"
    if os.path.isdir(directory) and not any(_files(directory)):
        names: list[str] = []
        with contextlib.suppress(OSError):  # it has gone meanwhile
            names = os.listdir(directory)
        numbers = [one for one in names if re.fullmatch(r"\d{1,18}", one)]
        numbers = [one for one in numbers if any(_files(os.path.join(directory, one)))]
        if numbers:
            name = max(numbers, key=int)
            chosen = os.path.join(directory, name)
    found = [*_files(chosen), *_files(os.path.join(chosen, best_model.BEST))]
    return Version(chosen, name, tuple(sorted(found)))


def _files(directory: str) -> Iterator[tuple[str, int, int]]:
    """Yields path, size and time of the files of a model; those that go meanwhile are left out."""
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name in _NAMES or entry.name.endswith(_ENDS):
                    status = entry.stat()
                    yield entry.path, status.st_size, status.st_mtime_ns
    except OSError:
        return
