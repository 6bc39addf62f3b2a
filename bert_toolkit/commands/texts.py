"""Texts in, by flags or lines of a file; JSON lines out: of bert fill-mask, score and explain."""

import contextlib
import dataclasses
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple, Optional

from bert_toolkit.errors import UserError
from bert_toolkit.features.lines import split_pair
from bert_toolkit.io import files, tables
from bert_toolkit.options import ModelOptions, option

# The columns of objects in JSON lines, whichever is there.
TEXT, TEXT_B = "text|sentence|text_a|sentence1", "text_b|sentence2"
# How many texts an input may have.
ONE, TWO, ONE_OR_TWO = (1,), (2,), (1, 2)
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
    output_file: Optional[str] = option(
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
        missing = self.missing_files("bert_config_file", "vocab_file", "init_checkpoint")
        return missing + self.input_conflicts()

    def input_conflicts(self) -> list[str]:
        """Returns a sentence if there is no text, or texts from two places."""
        conflicts = []
        if not self.text and not self.input_file:
            conflicts.append("--text is required (or --input_file)")
        if self.text and self.input_file:
            conflicts.append("--text and --input_file: pass one of them")
        return conflicts

    def check_files(self) -> None:
        """Raises a UserError if the input is not there, or the output cannot be written."""
        if self.input_file and self.input_file != files.STREAM:
            files.check_input(self.input_file, "input_file")
        if self.output_file and self.output_file != files.STREAM:
            files.check_output(self.output_file)


class Line(NamedTuple):
    """A text: its number from 1, where it stands, and the second one if it is a pair."""

    number: int
    where: str
    text: str
    text_b: Optional[str] = None


def read(options: TextOptions, counts: Sequence[int] = ONE) -> Iterator[Line]:
    """Yields the texts, or pairs of them: "A ||| B", where all are pairs with a tab between, too.

    Characters that UTF-8 has not, of bytes in the command line or of JSON, become question marks.

    Args:
      options: of the command.
      counts: ONE, TWO or ONE_OR_TWO, how many texts an input has.

    Raises:
      UserError: there is none, or a line is no pair, or no JSON object with text.
    """
    if options.text:
        for number, text in enumerate(options.text, 1):
            where = "--text" if len(options.text) == 1 else f"--text number {number}"
            yield _divided(Line(number, where, encodable(text)), counts)
        return
    assert options.input_file
    table = tables.Table(options.input_file, _WHOLE_LINES)
    line = None
    for row in table.rows():
        try:
            line = _line(table, row, counts)
        except tables.BadRow as error:
            raise UserError(f"{table.name} line {row.line}: {error}") from None
        yield line
    if line is None:
        raise UserError(f"{table.name}: empty; expected lines of text")


def _line(table: tables.Table, row: tables.Row, counts: Sequence[int]) -> Line:
    line = Line(row.line, f"{table.name} line {row.line}", "")
    if isinstance(row.fields, tables.BadRow):
        raise row.fields
    if not isinstance(row.fields, Mapping):
        return _divided(line._replace(text=row.fields[0] if row.fields else ""), counts)
    values = [tables.cell(table, row.fields, TEXT)]
    is_pair = any(row.fields.get(name) is not None for name in TEXT_B.split("|"))
    if counts == TWO or (counts == ONE_OR_TWO and is_pair):
        values.append(tables.cell(table, row.fields, TEXT_B))
    for value in values:
        if not isinstance(value, str):
            raise tables.BadRow(f"{tables.shorten(value)} is no text; expected one in quotes")
    values = list(map(encodable, values))
    if len(values) == 1:
        return line._replace(text=values[0])
    return _checked(line._replace(text=values[0], text_b=values[1]))


def encodable(text: str) -> str:
    """Returns a text with question marks for characters that UTF-8 has not."""
    return text.encode("utf-8", "replace").decode()


def _divided(line: Line, counts: Sequence[int]) -> Line:
    """Returns a line with its text divided into two, if it has two."""
    if counts == ONE:
        return line
    texts = [part.text for part in split_pair(line.text)]
    if len(texts) == 1 and counts == TWO:
        texts = line.text.split("\t")
        if len(texts) != 2:
            raise UserError(
                f"{line.where}: {len(texts) - 1} tabs, expected two texts with one between them,"
                " or |||"
            )
    return line if len(texts) == 1 else _checked(line._replace(text=texts[0], text_b=texts[1]))


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
def open_output(path: Optional[str]) -> Iterator[IO[bytes]]:
    """Opens a file that appears whole at the end of the block, or not at all; - is stdout."""
    if path in (None, files.STREAM):
        yield sys.stdout.buffer
        return
    with files.replacing([path]) as [name], files.open_binary(name, "wb") as stream:
        yield stream


def write(stream: IO[bytes], row: Mapping[str, Any]) -> None:
    """Writes an object as a line, for the next program in a pipe to have at once."""
    stream.write(f"{json.dumps(row, ensure_ascii=False)}\n".encode())
    stream.flush()


def rounded(value: float) -> Optional[float]:
    """Returns a number with six digits, as JSON has it: no nan."""
    return float(f"{value:.6g}") if value == value else None
