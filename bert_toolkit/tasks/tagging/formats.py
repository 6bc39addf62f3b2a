"""Files of tagged sentences: columns (CoNLL), JSON lines, and plain text to find words in."""

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Optional

from bert_toolkit.errors import UserError
from bert_toolkit.io import files, tables
from bert_toolkit.tasks.bad_rows import BadRows
from bert_toolkit.text import words
from tokenization import FullTokenizer

CONLL, JSONL, TEXT = "conll", "jsonl", "text"
DOCUMENT = "-DOCSTART-"
# Keys of JSON objects, the first that is there.
TOKENS, TAGS = ("tokens", "words"), ("tags", "ner_tags")
PREDICTED = "predicted_tags"


class Sentence(NamedTuple):
    """A sentence.

    Attributes:
      words: as the file has them.
      tags: of the words; None where they are to be predicted. As read, they may be numbers.
      line: where it begins in its file.
      source: what predictions are written into: its lines, its JSON object, or its text.
      before: lines between it and the sentence before, which are written as they are.
      offsets: characters [begin, end) of the words in a text; empty elsewhere.
    """

    words: tuple[str, ...]
    tags: Optional[tuple[Any, ...]]
    line: int
    source: Any = None
    before: tuple[str, ...] = ()
    offsets: tuple[tuple[int, int], ...] = ()


@dataclasses.dataclass(frozen=True)
class Layout:
    """How files are read.

    Attributes:
      word_column: of the word, from 1, or from the end below 0.
      tag_column: of the tag.
      tagged: whether there must be tags.
      format: CONLL, JSONL or TEXT.
    """

    word_column: int = 1
    tag_column: int = -1
    tagged: bool = True
    format: str = CONLL


class TagFile(NamedTuple):
    """A file's sentences, and the lines after the last one."""

    name: str
    sentences: list[Sentence]
    rest: tuple[str, ...] = ()


def format_of(path: str, predicts: bool) -> str:
    """Returns what a file is by the ending of its name."""
    if tables.is_json(path):
        return JSONL
    is_text = path == files.STREAM or path.removesuffix(".gz").endswith(".txt")
    return TEXT if predicts and is_text else CONLL


def read(path: str, layout: Layout, tokenizer: FullTokenizer, bad: BadRows) -> TagFile:
    """Reads a file; takes note of the sentences in it that cannot be used.

    Raises:
      UserError: it cannot be read, has no sentence, or not the columns asked for.
    """
    if path != files.STREAM and not files.exists(path):
        raise UserError(f"{path}: no such file; expected sentences, in columns or as JSON lines")
    known = len(bad.rows)
    if layout.format == TEXT:
        found = TagFile(files.shown(path), [*_read_text(path, tokenizer)])
    elif layout.format == JSONL:
        found = TagFile(files.shown(path), [*_read_json(path, layout, bad)])
    else:
        found = _Columns(path, layout, bad).read()
    if not found.sentences and len(bad.rows) == known:
        expected = {
            CONLL: "a word and its tag a line, a blank line after each sentence",
            JSONL: 'a {"tokens": [...], "tags": [...]} a line',
            TEXT: "a text a line",
        }[layout.format]
        raise UserError(f"{found.name}: no sentence in it; expected {expected}; is it the one?")
    return found


# --- Plain text ---


def text_words(tokenizer: FullTokenizer, text: str) -> words.Words:
    """Returns the words of a text: tokenization's, punctuation marks are some of them."""
    pieces, offsets = tokenizer.tokenize_with_offsets(text)
    return words.find_words(text, [pieces], [offsets], words.WORDS)


def _read_text(path: str, tokenizer: FullTokenizer) -> Iterator[Sentence]:
    for number, line in enumerate(files.read_lines(path), 1):
        found = text_words(tokenizer, line)
        offsets = tuple(map(tuple, found.offsets.tolist()))
        yield Sentence(tuple(found.texts), None, number, line, offsets=offsets)


# --- JSON lines ---


def _read_json(path: str, layout: Layout, bad: BadRows) -> Iterator[Sentence]:
    for line, fields in tables.Table(path, tables.TableFormat(json=True)).rows():
        if fields is None:
            continue
        try:
            if isinstance(fields, tables.BadRow):
                raise fields
            yield _json_sentence(fields, line, layout)  # type: ignore[arg-type]
        except tables.BadRow as why:
            bad.add(files.shown(path), f"line {line}", str(why))


def _json_sentence(fields: dict[str, Any], line: int, layout: Layout) -> Sentence:
    tokens = _list(fields, TOKENS)
    stranger = next((token for token in tokens if not isinstance(token, str)), None)
    if stranger is not None:
        raise tables.BadRow(f"token {tables.shorten(stranger)}; expected a string")
    if not layout.tagged:
        return Sentence(tuple(tokens), None, line, fields)
    tags = _list(fields, TAGS)
    if len(tags) != len(tokens):
        raise tables.BadRow(f"{len(tokens)} tokens, but {len(tags)} tags; expected a tag for each")
    return Sentence(tuple(tokens), tuple(tags), line, fields)


def _list(fields: dict[str, Any], names: Sequence[str]) -> list[Any]:
    name = next((name for name in names if name in fields), None)
    if name is None:
        raise tables.BadRow(f"no {' or '.join(names)} in it; it has {tables.listing([*fields])}")
    if not isinstance(fields[name], list):
        raise tables.BadRow(f"{name} is {tables.shorten(fields[name])}; expected a list")
    return fields[name]


# --- Columns ---


class _Columns:
    """Reads a file with a word a line, its columns separated by tabs or by spaces."""

    def __init__(self, path: str, layout: Layout, bad: BadRows):
        self._path, self._name, self._layout, self._bad = path, files.shown(path), layout, bad
        self._sentences: list[Sentence] = []
        self._columns = self._first_line = 0
        self._tabs = False
        self._before: list[str] = []  # lines that belong to no sentence
        self._rows: list[tuple[int, str, list[str]]] = []  # line, as it stands, its columns

    def read(self) -> TagFile:
        for number, line in enumerate(files.read_lines(self._path), 1):
            if line.strip(" \t") and not line.startswith(DOCUMENT) and not self._is_comment(line):
                self._rows.append((number, line, self._divided(number, line)))
            else:
                self._end_sentence()
                self._before.append(line)
        self._end_sentence()
        return TagFile(self._name, self._sentences, tuple(self._before))

    def _is_comment(self, line: str) -> bool:
        """Whether a line is one that CoNLL-U files have before a sentence."""
        is_plain = line.startswith("# ") and "\t" not in line
        return is_plain and not self._rows and (self._tabs or " = " in line)

    def _divided(self, number: int, line: str) -> list[str]:
        if not self._columns:
            self._tabs = "\t" in line
        columns = line.split("\t") if self._tabs else re.split(" +", line.strip(" "))
        if not self._columns:
            self._columns, self._first_line = len(columns), number
            self._check_columns()
        return columns

    def _check_columns(self) -> None:
        """Raises a UserError if the first line lacks the columns that are asked for."""
        count, where = self._columns, f"{self._name} line {self._first_line}"
        by = "tabs" if self._tabs else "spaces"
        wanted = {"word_column": self._layout.word_column}
        if self._layout.tagged:
            wanted["tag_column"] = self._layout.tag_column
            if count == 1:
                raise UserError(
                    f"{where}: one column; expected a word and its tag, with a tab or spaces"
                    " between them"
                )
        for name, column in wanted.items():
            if not -count <= column <= count:
                raise UserError(
                    f"--{name}={column}: {where} has {count} columns, separated by {by}; pass one"
                    f" from 1 to {count}, or from -{count} to -1 to count from the end"
                )
        positions = {column - 1 if column > 0 else count + column for column in wanted.values()}
        if len(positions) < len(wanted):
            raise UserError(
                f"{where}: --word_column={self._layout.word_column} and"
                f" --tag_column={self._layout.tag_column} are the same of its {count} columns;"
                " pass two"
            )

    def _end_sentence(self) -> None:
        rows, self._rows = self._rows, []
        if not rows:
            return
        before, self._before = tuple(self._before), []
        for number, _, columns in rows:
            if len(columns) != self._columns:
                count = f"{len(columns)} column{'s' * (len(columns) > 1)}"
                why = (
                    f"{count}, separated by {'tabs' if self._tabs else 'spaces'}; expected"
                    f" {self._columns}, as in line {self._first_line}"
                )
                self._bad.add(self._name, f"line {number}", why)
                return

        def column(wanted: int) -> tuple[str, ...]:
            return tuple(columns[wanted - (wanted > 0)] for _, _, columns in rows)

        layout = self._layout
        tags = column(layout.tag_column) if layout.tagged else None
        source = [line for _, line, _ in rows]
        sentence = Sentence(column(layout.word_column), tags, rows[0][0], source, before)
        self._sentences.append(sentence)


# --- Writing ---


def with_tags(source: TagFile, tags: Sequence[Sequence[str]], format: str) -> Iterator[str]:
    """Yields the lines of a file, in columns or of JSON, with predicted tags in it."""
    for sentence, predicted in zip(source.sentences, tags):
        if format == JSONL:
            yield json.dumps({**sentence.source, PREDICTED: list(predicted)}, ensure_ascii=False)
            continue
        yield from sentence.before
        for line, tag in zip(sentence.source, predicted):
            yield f"{line}\t{tag}" if "\t" in line else f"{line} {tag}"
    yield from source.rest
