"""Examples that cannot be used: an error that names them all, or left out and listed."""

import os
from collections.abc import Sequence
from typing import Any, Optional

from absl import logging

from bert_toolkit.errors import UserError
from bert_toolkit.io import files

FILE = "bad_rows.tsv"
# How many of them an error names; the others are counted.
NAMED = 10


def check_left(options: Any, what: str, *splits: Optional[Sequence[Any]]) -> None:
    """Raises a UserError if nothing is left of --train_file, --eval_file or --predict_file.

    Args:
      options: with these.
      what: an example is called: "sentence".
      splits: the examples of the three; None for one that is not needed.
    """
    for name, examples in zip(("train_file", "eval_file", "predict_file"), splits):
        if examples is not None and not examples:
            path = files.shown(getattr(options, name))
            raise UserError(f"{path}: no {what} in it can be used; expected some; mend the file")


class BadRows:
    """Collects what cannot be used of the files of a run."""

    def __init__(self, skip: bool):
        """Takes whether they are left out (--on_bad_row=skip) rather than an error."""
        self.skip = skip
        self.rows: list[tuple[str, str, str]] = []

    def add(self, path: str, place: str, why: str) -> None:
        """Takes note of an example: its file, its place there ("line 4"), what is wrong."""
        self.rows.append((path, place, why))

    def finish(self, directory: str) -> None:
        """Lists them in a file of `directory`, if there are any; without one, in the log.

        Raises:
          UserError: they are not to be left out.
        """
        if not self.rows:
            return
        if not self.skip:
            raise UserError(self._named("; --on_bad_row=skip leaves such rows out"))
        if not directory:
            logging.warning("%s bad rows left out:\n%s", f"{len(self.rows):,}", self._named())
            return
        path = os.path.join(directory, FILE)
        lines = ["file\tline\twhat is wrong"]
        lines += [
            "\t".join((file, place.removeprefix("line "), why)) for file, place, why in self.rows
        ]
        files.write_text(path, "\n".join(lines) + "\n")
        logging.warning("%s bad rows left out; %s lists them", f"{len(self.rows):,}", path)

    def _named(self, advice: str = "") -> str:
        """Returns the first of them, a line each, and how many more there are, with advice."""
        lines = [f"{path} {place}: {why}" for path, place, why in self.rows[:NAMED]]
        more = len(self.rows) - NAMED
        if more > 0:
            lines.append(f"and {more:,} rows more{advice}")
        return "\n".join(lines)
