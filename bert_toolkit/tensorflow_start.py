"""Imports TensorFlow, when it is first needed, without Keras and without its notes about itself."""

import contextlib
import ctypes
import importlib.abc
import importlib.util
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

# What TensorFlow prints while its libraries are loaded, whatever TF_CPP_MIN_LOG_LEVEL says.
_NOTE = re.compile(
    rb"WARNING: All log messages before absl::Init"
    rb"|[IW]\d{4} \S+ +\d+ \S+\]"
    rb"|E\d{4} .*Unable to register cu\w+ factory"  # harmless, and in every log of 2.17 to 2.20
)
# The part of Keras that TensorFlow imports on its own account, though nothing here uses it: a fifth
# of the time to import TensorFlow. `tf.keras` is still there for who asks for it.
_KERAS = ("keras.src.optimizers", "keras.api._v2.keras")  # the second by TensorFlow 2.12
# Parameters of glibc's mallopt: by number in malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def prepare(quiet: bool = True) -> None:
    """Lets the first import of TensorFlow in this process be quick, and quiet if asked.

    Nothing happens if TensorFlow is imported already, or `prepare` has been called before.
    """
    keep_freed_memory()
    # TensorFlow has them off on older x86 processors, where a training step takes a seventh less
    # time with them, too (docs/performance.md).
    if platform.machine().lower() in ("x86_64", "amd64"):
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if quiet:
        # Read when TensorFlow is imported.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" not in sys.modules and not any(
        isinstance(finder, _FirstImport) for finder in sys.meta_path
    ):
        sys.meta_path.insert(0, _FirstImport(quiet))


def keep_freed_memory() -> None:
    """Has the C library keep the memory of freed tensors for the next ones.

    It otherwise returns large blocks to the system at once and takes them back empty, a page at a
    time: half of the time of a step, or more (docs/performance.md). The environment variables for
    the same (MALLOC_TRIM_THRESHOLD_ and others) go before it; another C library than glibc is left
    alone.
    """
    if any(name.startswith(("MALLOC_MMAP", "MALLOC_T")) for name in os.environ):
        return
    if "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", ""):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_TOP_PAD, 64 * 2**20)


class _FirstImport(importlib.abc.MetaPathFinder):
    """Finds TensorFlow, once, and has it executed as `prepare` says."""

    def __init__(self, quiet: bool):
        self._quiet = quiet

    def find_spec(self, fullname, path=None, target=None):
        if fullname != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        loader: Any = spec.loader if spec else None
        if loader is None:
            return spec
        execute = loader.exec_module

        def exec_module(module):
            with (
                without_modules(*_KERAS),
                _without_notes() if self._quiet else contextlib.nullcontext(),
            ):
                execute(module)

        loader.exec_module = exec_module
        return spec


@contextlib.contextmanager
def without_modules(*names: str) -> Iterator[None]:
    """Lets the import of modules that are not imported yet fail, for importers that do without."""
    held_back = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(held_back))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in held_back:
            del sys.modules[name]


@contextlib.contextmanager
def _without_notes() -> Iterator[None]:
    """Holds back what is written to stderr, and passes on what is no note of TensorFlow's."""
    with tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            held.seek(0)
            for line in held:
                if not _NOTE.match(line):
                    os.write(stderr, line)
            os.close(stderr)
