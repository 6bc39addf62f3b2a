"""Rows of tab-separated, comma-separated and JSON-lines files, with the lines they stand on.

The ending of a file's name says what it is: .csv, .jsonl, or else tab-separated; .gz may follow.
"""

import csv
import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Optional, Union

from bert_toolkit import files
from bert_toolkit.errors import UserError

STANDARD_INPUT = "-"
# A quoted field may be a whole document.
csv.field_size_limit(2**31 - 1)


class BadRow(Exception):
    """A row that cannot be used, and why."""


class Row(NamedTuple):
    """A row and the number of its first line.

    `fields` is a list of columns; of JSON lines, a dict; a BadRow where it cannot be read.
    """

    line: int
    fields: Union[list[str], dict[str, Any], BadRow]


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a file is laid out.

    Attributes:
      header: whether the first row names the columns.
      quoting: whether fields may stand in double quotes, as spreadsheet programs write them; None
        for what the kind of file has: comma-separated ones do, tab-separated ones do not.
      columns: how many columns a row has, where no header tells; 0 if the first row tells, 1 for
        lines that are not divided.
    """

    header: bool = True
    quoting: Optional[bool] = None
    columns: int = 0


class Table:
    """A file of rows.

    Attributes:
      path: of the file.
      names: column name -> position, from 0; empty without a header.
    """

    def __init__(self, path: str, layout: Layout):
        """Opens the file; the header is read when rows are."""
        stem = path.removesuffix(".gz").lower()
        self.path, self.layout = path, layout
        self.is_json = stem.endswith((".jsonl", ".json", ".ndjson"))
        self._is_csv = stem.endswith(".csv")
        self.names: dict[str, int] = {}
        self.blank = 0

    def rows(self) -> Iterator[Row]:
        """Yields the rows below the header; blank lines are counted and left out.

        Raises:
          UserError: the file cannot be read.
        """
        if self.is_json:
            yield from self._json_rows()
            return
        columns = self.layout.columns
        is_header = self.layout.header
        for line, fields in self._quoted() if self._has_quotes() else self._plain():
            if not any(field.strip() for field in fields):
                self.blank += 1
            elif is_header:
                self.names = {name.strip(): number for number, name in enumerate(fields)}
                columns, is_header = len(fields), False
            elif columns and len(fields) != columns:
                yield Row(line, BadRow(self._wrong_columns(len(fields), columns)))
            else:
                columns = columns or len(fields)
                yield Row(line, fields)

    def _has_quotes(self) -> bool:
        return self._is_csv if self.layout.quoting is None else self.layout.quoting

    def _lines(self) -> Iterator[str]:
        if self.path != STANDARD_INPUT:
            return files.read_lines(self.path)
        return (line.rstrip("\r\n") for line in sys.stdin)

    def _plain(self) -> Iterator[tuple[int, list[str]]]:
        separator = "," if self._is_csv else "\t"
        whole = self.layout.columns == 1
        for number, line in enumerate(self._lines(), 1):
            yield number, [line] if whole else line.split(separator)

    def _quoted(self) -> Iterator[tuple[int, list[str]]]:
        reader = csv.reader(
            (f"{line}\n" for line in self._lines()),
            delimiter="," if self._is_csv else "\t",
            strict=True,
        )
        first = 1
        try:
            for fields in reader:
                yield first, fields
                first = reader.line_num + 1
        except csv.Error as error:
            raise UserError(
                f"{self.path} line {first}: {error}; fields with quotes in them are quoted as a"
                ' whole, and quotes in them doubled: "a ""word"" here" (or pass --noquoting)'
            ) from None

    def _json_rows(self) -> Iterator[Row]:
        for number, line in enumerate(self._lines(), 1):
            if not line.strip():
                self.blank += 1
                continue
            try:
                value = json.loads(line)
            except ValueError as error:
                yield Row(number, BadRow(f"not JSON ({error})"))
                continue
            if isinstance(value, dict):
                yield Row(number, value)
            else:
                yield Row(number, BadRow("no JSON object; expected one a line, {...}"))

    def _wrong_columns(self, found: int, expected: int) -> str:
        names = f" ({', '.join(self.names)})" if self.names and expected < 8 else ""
        if found < expected:
            separated = "commas" if self._is_csv else "tabs"
            advice = f"Are its columns separated by {separated}?"
        elif self._has_quotes() or self._is_csv:
            advice = "Put fields with commas in them in quotes."
        else:
            advice = "Remove the extra tab."
        return f"{found} columns, expected {expected}{names}. {advice}"


def cell(table: Table, fields: Any, column: Union[int, str]) -> Any:
    """Returns what a row has in a column: by position from 0 (-1 is the last), or by name.

    A name may be several with | between them; the first that is there counts.

    Raises:
      BadRow: a JSON object lacks it.
      UserError: the table has no such column.
    """
    names = column.split("|") if isinstance(column, str) else []
    if isinstance(fields, Mapping):
        name = next((name for name in names if name in fields), None)
        if name is None:
            there = ", ".join(map(repr, fields)) or "nothing"
            raise BadRow(f"no {' or '.join(map(repr, names)) or column}, only {there}")
        return fields[name]
    position: Any = column
    if names:
        position = next((table.names[name] for name in names if name in table.names), None)
    if position is None or not -len(fields) <= position < len(fields):
        wanted = " or ".join(map(repr, names)) or f"number {position + 1}"
        known = ", ".join(map(repr, table.names)) or f"{len(fields)}, and no header"
        raise UserError(
            f"{table.path}: no column {wanted}; its columns: {known}. Is it the right file? In"
            " files of your own, --text_column and --label_column say which to take"
        )
    return fields[position]
