"""Questions on texts: SQuAD's JSON in its two versions, CMRC's, and rows of JSON lines."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from bert_toolkit.errors import UserError
from bert_toolkit.io import files, tables
from bert_toolkit.tasks.bad_rows import BadRows

LAYOUT = '{"data": [{"paragraphs": [{"context": ..., "qas": [...]}]}]}'


class Answer(NamedTuple):
    """A true answer: a text, and the character of the context that it begins at."""

    text: str
    start: int


class Question(NamedTuple):
    """A question on a text.

    Attributes:
      id: what its prediction is listed under.
      text: the question.
      context: the text that has the answer, shared by its questions.
      answers: the true ones; none where it has no answer, or is to be predicted.
      place: where it stands in its file: data[0].paragraphs[2].qas[1], or line 4.
    """

    id: str
    text: str
    context: str
    answers: tuple[Answer, ...] = ()
    place: str = ""


class Layout(NamedTuple):
    """What is expected of the questions of a file.

    Attributes:
      answered: whether they must have answers, rather than are to be predicted.
      with_negative: whether some may have none (SQuAD 2.0).
    """

    answered: bool
    with_negative: bool


class _BadQuestion(Exception):
    """A question that cannot be used, and why; `place` is below the one it was found at."""

    def __init__(self, why: str, place: str = ""):
        super().__init__(why)
        self.place = place


def read(path: str, layout: Layout, bad: BadRows) -> list[Question]:
    """Reads the questions of a file: .json in SQuAD's layout or CMRC's, or .jsonl, .gz or not.

    An object of a .jsonl file, or of standard input, has question, context, perhaps an id, and
    answers, {"text": [...], "answer_start": [...]} or a list of objects with those.

    Args:
      path: of the file; - for standard input.
      layout: what is expected of it.
      bad: takes note of questions that cannot be used.

    Raises:
      UserError: the file cannot be read, is laid out otherwise, or has no question to use.
    """
    is_rows = path == files.STREAM or path.removesuffix(".gz").endswith((".jsonl", ".ndjson"))
    found = []
    before = len(bad.rows)
    ids: dict[str, str] = {}
    for place, raw, context in _rows(path) if is_rows else _paragraphs(path, bad):
        try:
            question = _question(place, raw, context, layout)
            if question.id in ids:
                raise _BadQuestion(f"id {question.id!r} is that of {ids[question.id]} too", ".id")
            ids[question.id] = place
            found.append(question)
        except _BadQuestion as why:
            bad.add(files.shown(path), place + why.place, str(why))
    if not found and len(bad.rows) == before:
        raise UserError(f"{files.shown(path)}: no question in it")
    return found


# --- Layouts ---


def _rows(path: str) -> Iterator[tuple[str, Any, Any]]:
    """Yields place, question and context of JSON lines."""
    table = tables.Table(path, tables.TableFormat(json=True))
    for number, row in enumerate(table.rows()):
        if row.fields is None:
            continue
        place = f"line {row.line}"
        if isinstance(row.fields, tables.BadRow):
            yield place, row.fields, None
            continue
        assert isinstance(row.fields, Mapping)
        yield place, {"id": str(number), **row.fields}, row.fields.get("context")


def _paragraphs(path: str, bad: BadRows) -> Iterator[tuple[str, Any, Any]]:
    """Yields place, question and context of SQuAD's JSON, or of CMRC 2018's own."""
    if not files.exists(path):
        raise UserError(f"{path}: no such file")
    try:
        whole = json.loads("\n".join(files.read_lines(path)))
    except (ValueError, RecursionError) as error:
        hint = "; name it .jsonl if it has an object a line" if "Extra data" in str(error) else ""
        raise UserError(
            f"{path}: not JSON ({error}); expected SQuAD's layout, {LAYOUT}{hint}"
        ) from None
    if (
        isinstance(whole, list)
        and whole
        and isinstance(whole[0], dict)
        and "context_text" in whole[0]
    ):
        yield from _of_cmrc(path, whole)
        return
    articles = _part(path, whole, "data", "", list)
    for a, article in enumerate(articles):
        place = f"data[{a}]"
        for p, paragraph in enumerate(_part(path, article, "paragraphs", place, list)):
            where = f"{place}.paragraphs[{p}]"
            context = _part(path, paragraph, "context", where, str)
            questions = _part(path, paragraph, "qas", where, list)
            if not questions:
                bad.add(path, where, "a paragraph without questions; remove it")
            for q, raw in enumerate(questions):
                yield f"{where}.qas[{q}]", raw, context


def _part(path: str, whole: Any, name: str, place: str, expected: type) -> Any:
    """Returns whole[name], which must be of a type."""
    inside = f"{place}.{name}" if place else name
    if not isinstance(whole, dict) or name not in whole:
        there = tables.listing(whole) if isinstance(whole, dict) else tables.shorten(whole)
        raise UserError(
            f"{path} {place or 'as a whole'}: no {name!r} in it, only {there}; expected {LAYOUT}"
        )
    if not isinstance(whole[name], expected):
        kind = "a text" if expected is str else "a list"
        raise UserError(
            f"{path} {inside}: {tables.shorten(whole[name])}; expected {kind}, as in {LAYOUT}"
        )
    return whole[name]


def _of_cmrc(path: str, paragraphs: list) -> Iterator[tuple[str, Any, Any]]:
    """Yields the questions of CMRC 2018's layout, whose answers are texts without places."""
    for p, paragraph in enumerate(paragraphs):
        context = _part(path, paragraph, "context_text", f"[{p}]", str)
        for q, raw in enumerate(_part(path, paragraph, "qas", f"[{p}]", list)):
            place = f"[{p}].qas[{q}]"
            if not isinstance(raw, dict):
                yield place, raw, context
                continue
            found = {"id": raw.get("query_id"), "question": raw.get("query_text")}
            answers = raw.get("answers")
            found["answers"] = [_of_text(text, context) for text in answers or ()]
            yield place, found, context


def _of_text(text: Any, context: str) -> Any:
    """Returns an answer of CMRC's where it stands first in the text; as it is, if it does not."""
    if not isinstance(text, str) or text not in context:
        return text
    return {"text": text, "answer_start": context.index(text)}


# --- Questions ---


def _question(place: str, raw: Any, context: Any, layout: Layout) -> Question:
    if isinstance(raw, tables.BadRow):
        raise _BadQuestion(str(raw))
    if not isinstance(raw, dict):
        raise _BadQuestion(f"{tables.shorten(raw)}; expected an object with id and question")
    if "id" not in raw or isinstance(raw["id"], (dict, list)) or raw["id"] in (None, ""):
        raise _BadQuestion("a question without an id; expected one of its own")
    text = raw.get("question")
    for name, value in (("question", text), ("context", context)):
        if not isinstance(value, str) or not value.strip():
            shown = tables.shorten(value)
            raise _BadQuestion(f"{name} is {shown}; expected text", f".{name}")
        if not _is_unicode(value):
            raise _BadQuestion(f"half of a surrogate pair in the {name}; mend it", f".{name}")
    if not _is_unicode(str(raw["id"])):
        raise _BadQuestion("half of a surrogate pair in the id; mend it", ".id")
    assert isinstance(text, str)
    answers = tuple(_answers(raw, context)) if layout.answered else ()
    if layout.answered:
        answers = _checked(raw, answers, layout)
    return Question(str(raw["id"]), text, context, answers, place)


def _is_unicode(text: str) -> bool:
    """Whether a text can be written; JSON may have one half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _answers(raw: Mapping[str, Any], context: str) -> Iterator[Answer]:
    """Yields the true answers, each at its place in the context."""
    given = raw.get("answers", [])
    if isinstance(given, dict):  # as Hugging Face's data sets have them
        texts, starts = given.get("text", []), given.get("answer_start", [])
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise _BadQuestion("as many texts as starts are expected", ".answers")
        given = [{"text": text, "answer_start": start} for text, start in zip(texts, starts)]
    if not isinstance(given, list):
        raise _BadQuestion(f"{tables.shorten(given)}; expected a list", ".answers")
    for number, answer in enumerate(given):
        yield _answer(answer, context, f".answers[{number}]")


def _answer(answer: Any, context: str, place: str) -> Answer:
    if isinstance(answer, str) and answer not in context:
        raise _BadQuestion(f"{tables.shorten(answer)} is not in the text; expected a part", place)
    if not isinstance(answer, dict) or not isinstance(answer.get("text"), str):
        raise _BadQuestion(f"{tables.shorten(answer)}; expected text and answer_start", place)
    text, start = answer["text"], answer.get("answer_start")
    if isinstance(start, bool) or not isinstance(start, int):
        raise _BadQuestion(f"answer_start is {tables.shorten(start)}; expected a number", place)
    if start < 0 or context[start : start + len(text)] != text:
        found = context[max(start, 0) : max(start, 0) + len(text)]
        other = context.find(text)
        hint = f"; it stands at {other}" if text.strip() and other >= 0 else ""
        raise _BadQuestion(
            f"{tables.shorten(text)} is not at answer_start {start}, where the context has"
            f" {tables.shorten(found)}{hint}",
            place,
        )
    return Answer(text, start)


def _checked(
    raw: Mapping[str, Any], answers: tuple[Answer, ...], layout: Layout
) -> tuple[Answer, ...]:
    """Returns the answers with a text; none where the question is marked as having none."""
    answers = tuple(answer for answer in answers if answer.text.strip())
    impossible = raw.get("is_impossible", False)
    if not isinstance(impossible, bool):
        raise _BadQuestion(
            f"{tables.shorten(impossible)}; expected true or false", ".is_impossible"
        )
    if layout.with_negative:
        return () if impossible else answers
    if not answers:
        raise _BadQuestion(
            "no answer; expected one, or pass --version_2_with_negative if some questions have none"
        )
    return answers
