"""Texts in, by flags or lines of a file; JSON lines out: of bert fill-mask and bert score."""

import contextlib
import dataclasses
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple, Optional

from bert_toolkit.errors import UserError
from bert_toolkit.io import files, tables
from bert_toolkit.options import ModelOptions, option

# The columns of objects in JSON lines, whichever is there.
TEXT, TEXT_B = "text|sentence|text_a|sentence1", "text_b|sentence2"
_WHOLE_LINES = tables.TableFormat(header=False, quoting=False, columns=1)


@dataclasses.dataclass(frozen=True)
class TextOptions(ModelOptions):
    """The texts, the model that reads them, and where what it says of them goes."""

    text: Optional[Sequence[str]] = option(
        None, "A text; may be given several times.", repeated=True
    )
    input_file: Optional[str] = option(
        None,
        "Texts, a line each, .gz or plain; - for standard input. A .jsonl file has objects with"
        " text.",
    )
    output_file: str = option(
        files.STREAM, "File for the JSON lines; - for standard output, line by line."
    )
    batch_size: int = option(32, "Sequences in a batch.", lower=1)
    max_seq_length: Optional[int] = option(
        None,
        "Longest sequence in tokens, [CLS] and [SEP] included; without it, as many as the model has"
        " positions.",
        lower=4,
    )
    init_checkpoint: Optional[str] = option(
        None,
        "The model's weights: a prefix such as bert_model.ckpt, its .index file, a directory,"
        " or a Hugging Face model.safetensors.",
    )

    def text_conflicts(self) -> list[str]:
        """Returns a sentence for what is missing or does not go together."""
        conflicts = self.missing_files("bert_config_file", "vocab_file", "init_checkpoint")
        if not self.text and not self.input_file:
            conflicts.append("--text is required (or --input_file)")
        if self.text and self.input_file:
            conflicts.append("--text and --input_file: pass one of them")
        return conflicts

    def check_files(self) -> None:
        """Raises a UserError if the input is not there, or the output cannot be written."""
        if self.input_file and self.input_file != files.STREAM:
            files.check_input(self.input_file, "input_file")
        if self.output_file != files.STREAM:
            files.check_output(self.output_file)


class Line(NamedTuple):
    """A text: its number from 1, where it stands, and the second one if it is a pair."""

    number: int
    where: str
    text: str
    text_b: Optional[str] = None


def read(options: TextOptions, pairs: bool = False) -> Iterator[Line]:
    """Yields the texts, or pairs of them with a tab between.

    Raises:
      UserError: there is none, or a line is no pair, or no JSON object with text.
    """
    if options.text:
        for number, text in enumerate(options.text, 1):
            where = "--text" if len(options.text) == 1 else f"--text number {number}"
            yield _divided(Line(number, where, text)) if pairs else Line(number, where, text)
        return
    assert options.input_file
    table = tables.Table(options.input_file, _WHOLE_LINES)
    line = None
    for row in table.rows():
        try:
            line = _line(table, row, pairs)
        except tables.BadRow as error:
            raise UserError(f"{table.name} line {row.line}: {error}") from None
        yield line
    if line is None:
        raise UserError(f"{table.name}: empty; expected lines of text")


def _line(table: tables.Table, row: tables.Row, pairs: bool) -> Line:
    line = Line(row.line, f"{table.name} line {row.line}", "")
    if isinstance(row.fields, tables.BadRow):
        raise row.fields
    if isinstance(row.fields, Mapping):
        columns = (TEXT, TEXT_B) if pairs else (TEXT,)
        values = [tables.cell(table, row.fields, column) for column in columns]
        for value in values:
            if not isinstance(value, str):
                raise tables.BadRow(f"{tables.shorten(value)} is no text; expected one in quotes")
        line = line._replace(text=values[0], text_b=values[1] if pairs else None)
        return _checked(line) if pairs else line
    line = line._replace(text=row.fields[0] if row.fields else "")
    return _divided(line) if pairs else line


def _divided(line: Line) -> Line:
    texts = line.text.split("\t")
    if len(texts) != 2:
        raise UserError(
            f"{line.where}: {len(texts) - 1} tabs, expected two texts with one between them"
        )
    return _checked(line._replace(text=texts[0], text_b=texts[1]))


def _checked(line: Line) -> Line:
    """Returns a pair, both texts of which say something."""
    if not line.text.strip() or not (line.text_b or "").strip():
        raise UserError(f"{line.where}: one text of the pair is empty; expected two")
    return line


def in_groups(lines: Iterable[Line], size: int) -> Iterator[list[Line]]:
    """Yields so many lines at a time; the first are read at once, before a model is loaded."""
    lines = iter(lines)

    def group() -> list[Line]:
        return list(itertools.islice(lines, size))

    return itertools.chain([group()], iter(group, []))


@contextlib.contextmanager
def open_output(path: str) -> Iterator[IO[bytes]]:
    """Opens a file that appears whole at the end of the block, or not at all; - is stdout."""
    if path == files.STREAM:
        yield sys.stdout.buffer
        return
    with files.replacing([path]) as [name], files.open_binary(name, "wb") as stream:
        yield stream


def write(stream: IO[bytes], row: Mapping[str, Any]) -> None:
    """Writes an object as a line, for the next program in a pipe to have at once."""
    # Bytes of the command line that are no UTF-8 come as characters that cannot be encoded.
    stream.write(f"{json.dumps(row, ensure_ascii=False)}\n".encode("utf-8", "replace"))
    stream.flush()


def rounded(value: float) -> Optional[float]:
    """Returns a number with six digits, as JSON has it: no nan."""
    return float(f"{value:.6g}") if value == value else None
