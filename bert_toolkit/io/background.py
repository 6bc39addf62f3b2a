"""Work that goes on beside the main thread, in order."""

import collections
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class InBackground:
    """Calls a function with one argument after the other, in a thread.

    Writing features takes as long as computing them on a fast device, and computing needs no
    Python. Use as a context manager, and call. An error of the function is raised by a later call,
    or at the end.
    """

    def __init__(self, function: Callable[[Any], None], most_waiting: int = 32):
        """Starts; no more than `most_waiting` arguments wait, then calls do."""
        self._function, self._most_waiting = function, most_waiting
        self._waiting: collections.deque[Future] = collections.deque()
        self._pool = ThreadPoolExecutor(1)

    def __call__(self, argument: Any) -> None:
        """Calls the function soon."""
        if len(self._waiting) == self._most_waiting:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(self._function, argument))

    def __enter__(self) -> "InBackground":
        return self

    def __exit__(self, error_type, error, traceback) -> None:
        try:
            while error is None and self._waiting:
                self._waiting.popleft().result()
        finally:
            self._pool.shutdown(cancel_futures=True)
