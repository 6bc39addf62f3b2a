"""Which sequences share a batch where nothing depends on it but time, in prediction; padding.

A batch of few short sequences is too little work for an operation to be worth its start, and one of
many long ones does not fit the processor's caches. So batches go by tokens where sequences are
short, and by sequences where they are long.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Optional, TypeVar

import numpy as np

Item = TypeVar("Item")


def grouped(
    items: Iterable[Item], length: Callable[[Item], int], batch_size: int, batch_tokens: int
) -> Iterator[list[Item]]:
    """Yields consecutive items in batches, in their order.

    Args:
      items: best sorted by length, as all are padded to the longest of a batch.
      length: of an item, in tokens.
      batch_size: least items in a batch, but for the last.
      batch_tokens: most tokens of a batch that has more items, padding included.
    """
    batch: list[Item] = []
    longest = 0
    for item in items:
        longest = max(longest, length(item))
        if len(batch) >= batch_size and (len(batch) + 1) * longest > batch_tokens:
            yield batch
            batch, longest = [], length(item)
        batch.append(item)
    if batch:
        yield batch


def by_length(lengths: Sequence[int], batch_size: int, batch_tokens: int) -> Iterator[list[int]]:
    """Yields the numbers of sequences, a batch at a time: the shortest first, alike together."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    yield from grouped(order, lengths.__getitem__, batch_size, batch_tokens)


def padded(rows: Sequence[Sequence[int]], shape: Optional[tuple[int, int]] = None) -> np.ndarray:
    """Returns rows of numbers as int32 [B, S], filled with zeros to the longest or to `shape`."""
    values = np.zeros(shape or (len(rows), max(map(len, rows))), np.int32)
    for place, row in zip(values, rows):
        place[: len(row)] = row
    return values
