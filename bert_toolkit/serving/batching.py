"""Joins what many threads ask for into batches, which one thread computes.

    with Batcher(work, Limits(batch_tokens=1024)) as batcher:
        future = batcher.submit(["a text", "another"], [4, 3])
        first, second = future.result()

A batch is the item that has waited longest and those of the nearest lengths that fit with it, so
that little is padded and nothing waits for ever: an item is computed, at the latest, when all that
came before it have been.
"""

import collections
import dataclasses
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

# Items and the length of the longest in tokens -> their results, in order.
Work = Callable[[Sequence[Any], int], Sequence[Any]]


class QueueFullError(Exception):
    """So many items wait that these are not taken."""


class ClosedError(Exception):
    """The batcher takes nothing any more."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """How large batches and the queue may be.

    Attributes:
      batch_tokens: most tokens of a batch, padding included; a longer item is a batch of its own.
      wait: most seconds to wait, when the thread is free, for as many requests as the last batch
        had. One caller at a time never waits.
      queue: most items that may wait.
    """

    batch_tokens: int = 1024
    wait: float = 0.005
    queue: int = 1024


class _Request:
    """What one call of `submit` asks for."""

    def __init__(self, size: int):
        self.future: Future = Future()
        self.results: list[Any] = [None] * size
        self.missing = size

    def put(self, place: int, result: Any) -> None:
        self.results[place] = result
        self.missing -= 1
        if not self.missing:
            self._finish(lambda: self.future.set_result(self.results))

    def fail(self, error: BaseException) -> None:
        self._finish(lambda: self.future.set_exception(error))

    def _finish(self, tell: Callable[[], None]) -> None:
        """Tells the caller, unless it has gone, or was told of another item's error."""
        if not self.future.done() and self.future.set_running_or_notify_cancel():
            tell()


class _Item(NamedTuple):
    request: _Request
    place: int
    value: Any
    tokens: int


class Batcher:
    """A queue and the thread that computes batches of it; may be used by many threads."""

    def __init__(
        self,
        work: Work,
        limits: Limits,
        observe: Callable[[int, int], None] = lambda items, tokens: None,
    ):
        """Starts the thread; `observe` is called with the items and tokens of each batch."""
        self._work, self._limits, self._observe = work, limits, observe
        self._queue: collections.deque[_Item] = collections.deque()
        self._waiting_requests = self._last_requests = 0
        self._changed = threading.Condition()
        self._working = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, values: Sequence[Any], tokens: Sequence[int]) -> Future:
        """Returns what will have the results of `values`, in their order.

        A future that is cancelled takes its items out of the queue.

        Args:
          values: what the work takes.
          tokens: the length of each.

        Raises:
          QueueFullError: there is no room for all of them now.
          ClosedError: the batcher was closed.
        """
        request = _Request(len(values))
        if not values:
            request.future.set_result([])
            return request.future
        with self._changed:
            if self._closed:
                raise ClosedError
            if len(self._queue) + len(values) > self._limits.queue:
                raise QueueFullError
            for place, (value, length) in enumerate(zip(values, tokens)):
                self._queue.append(_Item(request, place, value, max(1, length)))
            self._waiting_requests += 1
            self._changed.notify_all()
        return request.future

    def waiting(self) -> int:
        """Returns how many items wait."""
        return len(self._queue)

    def replace(self, work: Work) -> None:
        """Computes all further batches with `work`; returns when the last with the old one is."""
        with self._working:
            self._work = work

    def close(self) -> None:
        """Takes nothing more; returns when all that was taken is computed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def __enter__(self) -> "Batcher":
        return self

    def __exit__(self, *error) -> None:
        self.close()

    # --- The thread ---

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if not self._queue:
                    return
                self._wait_for_company()
                batch = self._take()
            if batch:
                self._compute(batch)

    def _wait_for_company(self) -> None:
        """Waits a little for those who came together the last time and will so again."""
        end = time.monotonic() + self._limits.wait
        while self._waiting_requests < self._last_requests and not self._closed:
            left = end - time.monotonic()
            if left <= 0 or sum(item.tokens for item in self._queue) >= self._limits.batch_tokens:
                return
            self._changed.wait(left)

    def _take(self) -> list[_Item]:
        """Takes the next batch out of the queue; none, if all who waited have gone."""
        there = [item for item in self._queue if not item.request.future.done()]
        batch: list[_Item] = []
        if there:
            oldest, longest = there[0], 0
            # Of equal lengths, those that came first: sorting is stable.
            for item in sorted(there, key=lambda item: abs(item.tokens - oldest.tokens)):
                length = max(longest, item.tokens)
                if not batch or (len(batch) + 1) * length <= self._limits.batch_tokens:
                    batch.append(item)
                    longest = length
        taken = set(map(id, batch))
        self._queue = collections.deque(item for item in there if id(item) not in taken)
        self._waiting_requests = len({id(item.request) for item in self._queue})
        self._last_requests = len({id(item.request) for item in batch})
        return batch

    def _compute(self, batch: list[_Item]) -> None:
        """Computes a batch; of one that fails, each item by itself, so that only the bad ones do.

        The request of an item that fails alone gets its error.
        """
        self._observe(len(batch), sum(item.tokens for item in batch))
        try:
            with self._working:
                values = [item.value for item in batch]
                results = self._work(values, max(item.tokens for item in batch))
        except Exception as error:
            if len(batch) == 1:
                batch[0].request.fail(error)
            else:
                for item in batch:
                    self._compute([item])
            return
        for item, result in zip(batch, results):
            item.request.put(item.place, result)
