"""Records as lines to read: all of a file's for bert inspect, the first as stages make them."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Optional

import numpy as np
from absl import logging

IDS, MASK, SEGMENTS = "input_ids", "input_mask", "segment_ids"
POSITIONS, MASKED_IDS, WEIGHTS = "masked_lm_positions", "masked_lm_ids", "masked_lm_weights"
SHOWN_VALUES = 8  # of a feature that is not known


def values_of(features: Mapping[str, Any]) -> dict[str, Sequence]:
    """Returns the values of tf.train.Features by name: whole numbers, floats or bytes."""
    kinds = {name: feature.WhichOneof("kind") for name, feature in features.items()}
    return {
        name: list(getattr(features[name], kind).value) if kind else []
        for name, kind in kinds.items()
    }


# --- The first examples, in the form in which the published scripts print them ---


def log_example(
    record: Mapping[str, Sequence], tokens: Mapping[int, str], facts: Iterable[tuple[str, Any]] = ()
) -> None:
    """Logs an example as the model reads it.

    Args:
      record: name -> values.
      tokens: id -> token.
      facts: what the example was made of: its text, its label, by name.
    """
    logging.info("%s", "\n".join(_example_lines(record, tokens, facts)))


def facts_of(example: Any) -> list[tuple[str, Any]]:
    """Returns the fields of an example that say something, by name."""
    facts = []
    for name, value in example._asdict().items():
        if hasattr(value, "_asdict"):  # an example in an example
            facts += facts_of(value)
        elif not isinstance(value, np.ndarray) and value not in (
            None,
            "",
            (),
        ):  # records have those
            facts.append((name, value))
    return facts


def _example_lines(
    record: Mapping[str, Sequence], tokens: Mapping[int, str], facts: Iterable[tuple[str, Any]]
) -> Iterator[str]:
    yield "*** Example ***"
    for name, value in facts:
        yield f"{name}: {' '.join(str(value).split())}"
    pairs = zip(record[IDS], record[MASK])
    yield f"tokens: {' '.join(tokens.get(n, f'<id {n}>') for n, is_token in pairs if is_token)}"
    first = [name for name in (IDS, MASK, SEGMENTS) if name in record]
    for name in [*first, *(name for name in sorted(record) if name not in first)]:
        yield f"{name}: {' '.join(_number(value) for value in record[name])}"


def _number(value: Any) -> str:
    return f"{np.float32(value):g}" if isinstance(value, float) else str(value)


# --- A record of any kind ---


def record_lines(
    record: Mapping[str, Sequence], tokens: Optional[Mapping[int, str]]
) -> Iterator[str]:
    """Yields lines that show a record: its sequence, its masked tokens, then all other features.

    Args:
      record: name -> values.
      tokens: id -> token; None to show ids.
    """
    seen: set[str] = set()

    def name_of(number: int) -> str:
        return str(number) if tokens is None else tokens.get(number, f"<id {number}>")

    real: list[int] = []  # positions that are not padding
    if _are_alike(record, IDS, MASK):
        seen |= {IDS, MASK}
        real = [place for place, is_token in enumerate(record[MASK]) if is_token]
        yield f"length     {len(real)} of {len(record[IDS])}"
        segments: Sequence[int] = [0] * len(record[IDS])
        if _are_alike(record, IDS, SEGMENTS):
            seen.add(SEGMENTS)
            segments = record[SEGMENTS]
        for segment, places in itertools.groupby(real, key=segments.__getitem__):
            yield f"segment {segment}  {' '.join(name_of(record[IDS][place]) for place in places)}"
    if real and _are_alike(record, POSITIONS, MASKED_IDS) and _fit(record):
        seen |= {POSITIONS, MASKED_IDS, WEIGHTS}
        yield _masked_line(record, name_of)
    for name in sorted(record.keys() - seen):
        if real and _are_alike(record, IDS, name):
            yield f"{name}  {' '.join(str(record[name][place]) for place in real)}"
        else:
            yield f"{name}  {_few(record[name])}"


def _are_alike(record: Mapping[str, Sequence], one: str, other: str) -> bool:
    """Returns whether two features are whole numbers, as many of one as of the other."""
    found = [record.get(name, ()) for name in (one, other)]
    numbers = all(isinstance(value, int) for values in found for value in values)
    return numbers and len(found[0]) == len(found[1]) > 0


def _fit(record: Mapping[str, Sequence]) -> bool:
    """Returns whether the masked positions are positions, and have weights."""
    inside = all(0 <= place < len(record[IDS]) for place in record[POSITIONS])
    return inside and len(record.get(WEIGHTS, ())) == len(record[POSITIONS])


def _masked_line(record: Mapping[str, Sequence], name_of) -> str:
    masked = zip(record[POSITIONS], record[MASKED_IDS], record[WEIGHTS])
    real = [(place, number) for place, number, weight in masked if weight]
    there = ", ".join(
        f"{place} {name_of(number)} (reads {name_of(record[IDS][place])})" for place, number in real
    )
    return f"masked     {len(real)} of at most {len(record[POSITIONS])}: {there}"


def _few(found: Sequence) -> str:
    """Returns the values of a feature, the first of many."""
    texts = [
        one.decode("utf-8", "replace")
        if isinstance(one, bytes)
        else f"{np.float32(one):g}"
        if isinstance(one, float)
        else str(one)
        for one in found[:SHOWN_VALUES]
    ]
    more = f" ... ({len(found):,} values)" if len(found) > SHOWN_VALUES else ""
    return " ".join(texts) + more
