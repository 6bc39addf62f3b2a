"""What stages report: metrics as text and JSON."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np
from absl import logging

from bert_toolkit.io import files

# Logs for machines, an object a line: of the steps of a training, and of evaluations meanwhile.
TRAINING_LOG = "training_log.jsonl"
EVALUATION_LOG = "eval_log.jsonl"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the rows of a table as lines with columns below each other, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    numeric = [all(re.fullmatch(r"[\d.,-]*", cell) for cell in column[1:]) for column in zip(*rows)]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric)
        ).rstrip()
        for row in rows
    ]


def write_metrics(
    stem: str, metrics: Mapping[str, Any], details: Optional[Mapping[str, Any]] = None
) -> None:
    """Writes metrics to `stem`.txt ("name = value", as published) and `stem`.json; shows them.

    Args:
      stem: the path of the files without its ending.
      metrics: by name.
      details: what only the JSON file has beside them, such as metrics of each label.
    """
    plain = {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in metrics.items()
    }
    names = sorted(plain)
    files.write_text(f"{stem}.txt", "".join(f"{name} = {metrics[name]}\n" for name in names))
    content = {name: plain[name] for name in names} | dict(details or {})
    files.write_text(f"{stem}.json", json.dumps(content, indent=2) + "\n")
    shown = [
        f"{name} {plain[name]:.4f}" if isinstance(plain[name], float) else f"{name} {plain[name]}"
        for name in names
    ]
    logging.info("%s.txt: %s", stem, ", ".join(shown))
