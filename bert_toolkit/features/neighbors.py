"""Nearest neighbors: the lines whose vectors point most nearly the same way as a query's."""

from typing import Optional

import numpy as np

from bert_toolkit.features.lines import LineFeatures, SourceLine

LINES_AT_ONCE = 1024


class Neighbors:
    """Finds the nearest lines to some queries; all queries come before all lines.

    Needs memory for the queries and what is nearest to them, not for the lines.
    """

    def __init__(self, count: int):
        """Looks for the `count` nearest of each query."""
        self._count = count
        self._queries: list[LineFeatures] = []
        self._unit_queries: Optional[np.ndarray] = None  # [Q, D]
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
            self._unit_queries = _unit(self._queries)
            self._nearest = [[] for _ in self._queries]
        if self._waiting:
            cosines = self._unit_queries @ _unit(self._waiting).T  # [Q, lines]
            for nearest, row in zip(self._nearest, cosines):
                best = np.argsort(-row, kind="stable")[: self._count]
                nearest += [(float(row[n]), self._waiting[n].source) for n in best]
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


def _unit(lines: list[LineFeatures]) -> np.ndarray:
    vectors = np.array([line.arrays["vector"] for line in lines])
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
