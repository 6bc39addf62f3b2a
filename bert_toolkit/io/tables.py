"""Rows of tab-separated, comma-separated and JSON files, with the lines they stand on.

The ending of a file's name says what it is: .csv, .jsonl or .json (an object a line, or one array
of objects), or else tab-separated; .gz may follow.
"""

import csv
import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Optional, Union

from bert_toolkit.errors import UserError
from bert_toolkit.io import files

# A quoted field may be a whole document.
csv.field_size_limit(2**31 - 1)

# Characters between columns that files in use have, by their names.
TAB = "\t"
DELIMITERS = {",": "commas", TAB: "tabs", ";": "semicolons", "|": "vertical bars"}
# How many characters of a value, and how many names of columns, a message shows.
SHOWN, NAMES_SHOWN = 60, 20


class BadRow(Exception):
    """A row that cannot be used, and why."""


class Row(NamedTuple):
    """A row and the number of its first line.

    `fields` is a list of columns; of JSON, a dict; None for a blank line; a BadRow where the row
    cannot be read.
    """

    line: int
    fields: Union[list[str], dict[str, Any], BadRow, None]


@dataclasses.dataclass(frozen=True)
class TableFormat:
    """How a file is laid out.

    Attributes:
      header: whether the first row names the columns.
      quoting: whether fields may stand in double quotes, as spreadsheet programs write them; None
        for what the kind of file has: comma-separated ones do, tab-separated ones do not.
      columns: how many columns a row has, where no header tells; 0 if the first row tells, 1 for
        lines that are not divided.
      delimiter: the character between columns; None for what the kind of file has.
      json: whether rows are JSON objects, whatever the file is named.
    """

    header: bool = True
    quoting: Optional[bool] = None
    columns: int = 0
    delimiter: Optional[str] = None
    json: bool = False


def is_json(path: str) -> bool:
    """Whether the rows of a file are JSON objects, so that its columns have names always."""
    return _stem(path).endswith((".jsonl", ".json", ".ndjson"))


def _stem(path: str) -> str:
    return path.removesuffix(".gz").lower()


class Table:
    """A file of rows.

    Attributes:
      path: of the file; - for standard input.
      name: of the file, for messages.
      header: names of the columns, in order; empty without a header.
      header_line: where they stand.
      names: column name -> position, from 0.
      quoted: how many fields of tab-separated rows look quoted, though quotes are text in them.
    """

    def __init__(self, path: str, layout: TableFormat):
        """Opens the file; the header is read when rows are."""
        self.path, self.layout = path, layout
        self.name = files.shown(path)
        is_csv = _stem(path).endswith(".csv")
        self._delimiter = layout.delimiter or ("," if is_csv else TAB)
        self._has_quotes = is_csv if layout.quoting is None else layout.quoting
        self.header: list[str] = []
        self.header_line = self.quoted = 0
        self.names: dict[str, int] = {}

    def rows(self) -> Iterator[Row]:
        """Yields the rows below the header.

        Raises:
          UserError: the file cannot be read, or its header shows that it is separated or quoted in
            another way.
        """
        if self.layout.json or is_json(self.path):
            yield from self._json_rows()
            return
        lines = self._quoted() if self._has_quotes else self._plain()
        if self.layout.header:
            self._take_header(lines)
        columns = self.layout.columns or len(self.header)
        for line, fields in lines:
            if _is_blank(fields):
                yield Row(line, None)
                continue
            columns = columns or len(fields)
            if len(fields) != columns:
                yield Row(line, BadRow(self._wrong_columns(fields, columns)))
            else:
                self.quoted += self._count_quoted(fields)
                yield Row(line, fields)

    def _plain(self) -> Iterator[tuple[int, list[str]]]:
        whole = self.layout.columns == 1
        for number, line in enumerate(files.read_lines(self.path), 1):
            yield number, [line] if whole else line.split(self._delimiter)

    def _quoted(self) -> Iterator[tuple[int, list[str]]]:
        reader = csv.reader(
            (f"{line}\n" for line in files.read_lines(self.path)),
            delimiter=self._delimiter,
            strict=True,
        )
        first = 1
        try:
            for fields in reader:
                yield first, fields
                first = reader.line_num + 1
        except csv.Error as error:
            raise UserError(
                f"{self.name} line {first}: {error}; fields with quotes in them are quoted as a"
                ' whole, and quotes in them doubled: "a ""word"" here" (or pass --noquoting)'
            ) from None

    def _take_header(self, lines: Iterator[tuple[int, list[str]]]) -> None:
        self.header_line, fields = next(
            ((line, fields) for line, fields in lines if not _is_blank(fields)), (0, [])
        )
        self.header = [name.strip().lstrip("\ufeff") for name in fields]
        self.names = {name: number for number, name in enumerate(self.header)}
        other = self.other_delimiter(fields)
        if other:
            raise UserError(
                f"{self.name} line {self.header_line}: columns separated by {DELIMITERS[other]},"
                f" {shorten(fields[0])}; expected {self._separators()}; pass {_flag(other)}"
            )
        if any(self._is_quoted(name) for name in self.header):
            raise UserError(
                f"{self.name} line {self.header_line}: names in quotes, {shorten(fields[0])}; in"
                " tab-separated files quotes are text; pass --quoting if they enclose fields, or"
                " --noquoting if they are text"
            )

    def other_delimiter(self, fields: list[str]) -> Optional[str]:
        """Returns what seems to separate the columns of a row that is one column, if anything."""
        if len(fields) != 1 or self.layout.delimiter:
            return None
        for delimiter in DELIMITERS:
            names = fields[0].split(delimiter)
            if len(names) > 1 and all(name and name == name.strip() for name in names):
                return delimiter
        return None

    def _is_quoted(self, field: str) -> bool:
        """Whether a field seems to be in quotes, and nothing says whether quotes are text here."""
        may_be = not self._has_quotes and self.layout.quoting is None
        return may_be and len(field) > 1 and field[0] == field[-1] == '"'

    def _count_quoted(self, fields: list[str]) -> int:
        """How many fields are quoted as programs do it: quotes in them are doubled."""
        if '"' not in "".join(fields):
            return 0
        inner = [field[1:-1] for field in fields if self._is_quoted(field)]
        return sum('""' in text and '"' not in text.replace('""', "") for text in inner)

    def _separators(self) -> str:
        return DELIMITERS.get(self._delimiter, repr(self._delimiter))

    def _wrong_columns(self, fields: list[str], expected: int) -> str:
        found = len(fields)
        names = f" ({', '.join(self.header)})" if self.header and expected < 8 else ""
        begins = any(field.startswith('"') for field in fields)
        one = self._separators().rstrip("s")
        if begins and not self._has_quotes and self.layout.quoting is None:
            advice = "If fields stand in quotes here, pass --quoting."
        elif found < expected:
            advice = f"Are its columns separated by {self._separators()}?"
        elif not any(field.strip() for field in fields[expected:]):
            advice = f"Remove the {self._separators()} at its end."
        elif self._has_quotes or self._delimiter == ",":
            advice = f"Put fields with {self._separators()} in them in quotes."
        else:
            advice = f"Remove the extra {one}."
        return f"{found} columns, expected {expected}{names}. {advice}"

    # --- JSON ---

    def _json_rows(self) -> Iterator[Row]:
        lines = files.read_lines(self.path)
        is_first = True
        for number, line in enumerate(lines, 1):
            if not line.strip():
                yield Row(number, None)
            elif is_first and line.lstrip().startswith("["):
                yield from self._array_rows(number, "\n".join([line, *lines]))
                return
            else:
                is_first = False
                yield Row(number, _parsed(line))

    def _array_rows(self, first: int, text: str) -> Iterator[Row]:
        """Yields the elements of the one array that a text is; it begins on line `first`."""
        try:
            json.loads(text)
        except ValueError as error:
            line = first + getattr(error, "lineno", 1) - 1
            raise UserError(
                f"{self.name} line {line}: not JSON ({getattr(error, 'msg', error)}); expected an"
                " object a line, or one array of objects"
            ) from None
        place, line = text.index("[") + 1, first
        while True:
            begin = _find_element(text, place)
            line += text.count("\n", place, begin)
            if text[begin] == "]":
                return
            value, place = _DECODER.raw_decode(text, begin)
            yield Row(line, _as_row(value))
            line += text.count("\n", begin, place)


def _unique(pairs: list[tuple[str, Any]]) -> Union[dict[str, Any], BadRow]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    names = [name for name, _ in pairs]
    return BadRow(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def _find_element(text: str, place: int) -> int:
    """Returns where the next element of a JSON array begins, or its closing bracket is."""
    match = re.compile(r"[\s,]*").match(text, place)
    assert match
    return match.end()


def _parsed(line: str) -> Union[dict[str, Any], BadRow]:
    try:
        return _as_row(_DECODER.decode(line))
    except ValueError as error:
        hint = "; expected an object a line, or one array of objects" if _is_cut(line) else ""
        return BadRow(f"not JSON ({error}){hint}")


def _as_row(value: Any) -> Union[dict[str, Any], BadRow]:
    if isinstance(value, (dict, BadRow)):
        return value
    return BadRow("no JSON object; expected one a line, {...}")


def _is_cut(line: str) -> bool:
    """Whether a line is the beginning of an object that goes on below it."""
    return line.strip() == "{" or line.rstrip().endswith((",", "{", "["))


def _is_blank(fields: list[str]) -> bool:
    return not any(field.strip() for field in fields)


def shorten(value: Any) -> str:
    """Returns a value as a message shows it."""
    if isinstance(value, str):
        return repr(value if len(value) <= SHOWN else f"{value[:SHOWN]}...")
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def listing(names: Any) -> str:
    """Returns names of columns, or the fields of a row, as a message shows them."""
    names = list(names)
    more = f", ... ({len(names)} in all)" if len(names) > NAMES_SHOWN else ""
    return ", ".join(map(shorten, names[:NAMES_SHOWN])) + more


def cell(table: Table, fields: Any, column: Union[int, str]) -> Any:
    """Returns what a row has in a column: by position from 0 (-1 is the last), or by name.

    A name may be several with | between them; the first that is there counts.

    Raises:
      BadRow: a JSON object lacks it.
      UserError: the table has no such column, or several of that name.
    """
    names = column.split("|") if isinstance(column, str) else []
    if isinstance(fields, Mapping):
        if isinstance(column, int):
            raise UserError(
                f"{table.name}: no column number {column + 1}; the columns of JSON objects have"
                f" names only: {listing(fields)}; pass the name in place of the number"
            )
        name = next((name for name in names if name in fields), None)
        if name is None:
            raise BadRow(f"no {' or '.join(map(repr, names))}, only {listing(fields) or 'nothing'}")
        return fields[name]
    position: Any = column
    if names:
        name = next((name for name in names if name in table.names), None)
        position = table.names.get(name) if name else None
        if name and table.header.count(name) > 1:
            numbers = [str(n) for n, other in enumerate(table.header, 1) if other == name]
            raise UserError(
                f"{table.name} line {table.header_line}: columns {' and '.join(numbers)} are both"
                f" named {name!r}; rename one, or pass the number of the column in place of its"
                " name"
            )
    if position is None or not -len(fields) <= position < len(fields):
        raise UserError(_no_column(table, fields, names, column))
    return fields[position]


def has_column(table: Table, fields: Any, column: Union[int, str]) -> bool:
    """Whether a row has a column, by the same names as `cell` takes."""
    if isinstance(column, int):
        return not isinstance(fields, Mapping) and -len(fields) <= column < len(fields)
    there = fields if isinstance(fields, Mapping) else table.names
    return any(name in there for name in column.split("|"))


def _no_column(table: Table, fields: list[str], names: list[str], column: Any) -> str:
    wanted = " or ".join(map(repr, names)) or f"number {column + 1}"
    there = listing(table.header) or f"{len(fields)}, without a header"
    other = table.other_delimiter(table.header or fields)
    if other:
        advice = f"Are they separated by {DELIMITERS[other]}? Pass {_flag(other)}"
    elif table.header:
        advice = (
            "Is it the right file? --text_column and --label_column say which to take, --noheader"
            f" that line {table.header_line} is a row"
        )
    elif names:
        advice = "With --noheader columns have numbers, from 1, and no names"
    else:
        advice = "Is it the right file? --text_column and --label_column say which to take"
    return f"{table.name}: no column {wanted}; its columns: {there}. {advice}"


def _flag(delimiter: str) -> str:
    """Returns the flag for a delimiter, as a shell takes it."""
    return f"--delimiter={'tab' if delimiter == TAB else repr(delimiter)}"
