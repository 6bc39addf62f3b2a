"""Nearest neighbors: the lines whose vectors point most nearly the same way as a query's."""

from collections.abc import Sequence
from typing import Optional

import numpy as np

from bert_toolkit.features.lines import LineFeatures, SourceLine

LINES_AT_ONCE = 1024


class UnitVectors:
    """Vectors to find the nearest of, by cosine."""

    def __init__(self, vectors: Sequence[np.ndarray]):
        """Takes float32 [N, D]; zeros are alike to nothing."""
        self.values = _unit(vectors)

    def nearest(self, queries: "UnitVectors", count: int) -> list[list[tuple[float, int]]]:
        """Returns for each query its `count` nearest, the best first: (cosine, number from 0)."""
        cosines = queries.values @ self.values.T  # [Q, N]
        best = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
        return [[(float(row[n]), int(n)) for n in of_row] for row, of_row in zip(cosines, best)]


class Neighbors:
    """Finds the nearest lines to some queries; all queries come before all lines.

    Needs memory for the queries and what is nearest to them, not for the lines.
    """

    def __init__(self, count: int):
        """Looks for the `count` nearest of each query."""
        self._count = count
        self._queries: list[LineFeatures] = []
        self._unit_queries: Optional[UnitVectors] = None
        self._waiting: list[LineFeatures] = []
        self._nearest: list[list[tuple[float, SourceLine]]] = []

    def write(self, line: LineFeatures) -> None:
        """Takes a query, or a line to compare."""
        if line.source.is_query:
            self._queries.append(line)
            return
        self._waiting.append(line)
        if len(self._waiting) == LINES_AT_ONCE:
            self._compare()

    def _compare(self) -> None:
        if self._unit_queries is None:
            self._unit_queries = UnitVectors(_vectors(self._queries))
            self._nearest = [[] for _ in self._queries]
        if self._waiting:
            lines = UnitVectors(_vectors(self._waiting))
            found = lines.nearest(self._unit_queries, self._count)
            for nearest, of_query in zip(self._nearest, found):
                nearest += [(cosine, self._waiting[number].source) for cosine, number in of_query]
                nearest.sort(key=lambda found: -found[0])
                del nearest[self._count :]
        self._waiting = []

    def text(self) -> str:
        """Returns a paragraph for each query: its text, then cosine, line number, text of each."""
        self._compare()
        paragraphs = []
        for query, nearest in zip(self._queries, self._nearest):
            rows = [f"{cosine:.4f}\t{s.number + 1}\t{s.text.strip()}" for cosine, s in nearest]
            paragraphs.append("\n".join([query.source.text.strip(), *rows]) + "\n")
        return "\n".join(paragraphs)


def _vectors(lines: list[LineFeatures]) -> list[np.ndarray]:
    return [line.arrays["vector"] for line in lines]


def _unit(vectors: Sequence[np.ndarray]) -> np.ndarray:
    array = np.array(vectors)  # [N, D]
    return array / np.maximum(np.linalg.norm(array, axis=1, keepdims=True), 1e-12)
