"""Metrics of slices of the data: of the values of a column, of short and of long texts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from bert_toolkit.io import files, metrics_files
from bert_toolkit.problems import Problem
from bert_toolkit.tasks.classification import scores
from tokenization import FullTokenizer

LENGTH = "length in tokens"
# How many values of a column the log shows; the file has all.
SHOWN = 20

# Name of what divides the data -> value -> the rows that have it, [N] booleans.
Parts = Mapping[str, Mapping[str, np.ndarray]]


def parts(examples: Sequence[Any], options: Any, tokenizer: FullTokenizer) -> Parts:
    """Returns the slices that --slice_column and --slice_by_length ask for, the largest first.

    Those by length are quarters of the texts, the shortest first.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    for number, column in enumerate(options.slice_column or ()):
        values = np.array([one.slices[number] for one in examples])
        names, counts = np.unique(values, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        found[column] = {str(name): values == name for name in names[order]}
    if options.slice_by_length:
        lengths = np.array([_length(one, tokenizer) for one in examples])
        found[LENGTH] = quarters(lengths)
    return found


def _length(example: Any, tokenizer: FullTokenizer) -> int:
    """Returns the tokens of an example's texts, before they are cut, without special ones."""
    return sum(len(tokenizer.encode(text)) for text in (example.text_a, example.text_b or ""))


def quarters(lengths: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the quarters of rows by length; fewer parts where many have the same one."""
    bounds = np.unique(np.quantile(lengths, [0.25, 0.5, 0.75], method="higher"))
    numbers = np.searchsorted(bounds, lengths)
    found = {}
    for number in np.unique(numbers):
        inside = numbers == number
        least, most = lengths[inside].min(), lengths[inside].max()
        found[f"{least} to {most}" if least < most else str(least)] = inside
    return found


def scores_of(
    parts: Parts, problem: Problem, logits: np.ndarray, targets: np.ndarray
) -> dict[str, dict[str, dict[str, Any]]]:
    """Returns the metrics of every slice, as scores.of_part has them; no number is None."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for column, slices in parts.items():
        found[column] = {}
        for value, inside in slices.items():
            metrics = scores.of_part(problem, logits[inside], targets[inside])
            found[column][value] = {
                name: number if np.isfinite(number) else None for name, number in metrics.items()
            }
    return found


def write(path: str, found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Writes a table with a row for each slice, and shows it."""
    rows = [
        [column, " ".join(value.split()), *map(_shown, metrics.values())]
        for column, slices in found.items()
        for value, metrics in slices.items()
    ]
    names = list(next(metrics for slices in found.values() for metrics in slices.values()))
    table = [["slice", "value", *names], *rows]
    files.write_text(path, "".join("\t".join(row) + "\n" for row in table))
    for line in _lines(table):
        logging.info("%s", line)


def _lines(table: list[list[str]]) -> list[str]:
    """Returns the lines of a table for the log, with the first values of each column only."""
    header, *rows = table
    shown: list[list[str]] = []
    for column in dict.fromkeys(row[0] for row in rows):
        own = [row for row in rows if row[0] == column]
        shown += own[:SHOWN]
        if len(own) > SHOWN:
            shown.append([column, f"... {len(own) - SHOWN:,} more", *[""] * (len(header) - 2)])
    return metrics_files.aligned([header, *shown])


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def log_values(what: str, values: Mapping[str, Any]) -> None:
    """Shows numbers by name on one line."""
    numbers = {name: value for name, value in values.items() if isinstance(value, (int, float))}
    logging.info("%s: %s", what, ", ".join(f"{name} {_shown(v)}" for name, v in numbers.items()))
