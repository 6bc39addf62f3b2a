"""Tagging schemes: how the tags of words stand for entities (IOB1, IOB2, BIOES)."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Optional

from bert_toolkit import problems

IOB1, IOB2, BIOES = "iob1", "iob2", "bioes"
OUTSIDE = "O"
PREFIXES = {IOB1: "BI", IOB2: "BI", BIOES: "BIES"}
# BILOU is BIOES by other letters.
_OTHER_LETTERS = {"L": "E", "U": "S"}


class Entity(NamedTuple):
    """Words [begin, end) of a sentence, and what they are."""

    type: str
    begin: int
    end: int


def split(tag: str) -> tuple[str, str]:
    """Returns prefix and type of a tag: B-PER is (B, PER), O is (O, _)."""
    return tag[:1], tag[1:].split("-", 1)[-1] or "_"


def is_tag(tag: str) -> bool:
    """Whether a tag is O, or a prefix with a type."""
    has_prefix = tag[:1] in "BIESLU" and tag[1:2] == "-" and len(tag) > 2
    return tag == OUTSIDE or (has_prefix and problems.is_one_line(tag))


def spelled(tag: str) -> str:
    """Returns a tag of BILOU as BIOES has it, another one as it is."""
    return _OTHER_LETTERS.get(tag[:1], tag[:1]) + tag[1:]


def entities(tags: Iterable[str]) -> list[Entity]:
    """Returns the entities of a sentence in any scheme, with what breaks its rules read kindly.

    These are the rules of the CoNLL-2000 evaluation, and of `seqeval` unless it is strict.
    """
    found, begin = [], 0
    before, type_before = OUTSIDE, ""
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, kind = split(tag)
        differs = kind != type_before
        if (
            before in "ES"
            or (before in "BI" and prefix in "BSO")
            or (before != OUTSIDE and differs)
        ):
            found.append(Entity(type_before, begin, place))
        if (
            prefix in "BS"
            or (before in "ESO" and prefix in "EI")
            or (prefix != OUTSIDE and differs)
        ):
            begin = place
        before, type_before = prefix, kind
    return found


# Strict reading, as `seqeval` has it: (prefix before, prefix, whether the types must be the same,
# must differ, or either) where an entity begins, and where it goes on.
_SAME, _OTHER = True, False
_BEGINS: dict[str, set[tuple[str, str, Optional[bool]]]] = {
    IOB1: {
        ("O", "I", None),
        ("I", "I", _OTHER),
        ("B", "I", None),
        ("I", "B", _SAME),
        ("B", "B", _SAME),
    },
    IOB2: {(before, "B", None) for before in "OBI"},
    BIOES: {(before, prefix, None) for before in "OBIES" for prefix in "BS"},
}
_GOES_ON = {IOB1: ("BI", "I"), IOB2: ("BI", "I"), BIOES: ("BI", "IE")}


def strict_entities(tags: Sequence[str], scheme: str) -> list[Entity]:
    """Returns the entities whose tags keep the rules of a scheme."""
    pairs = [*map(split, tags), (OUTSIDE, "_")]

    def fits(place: int, patterns: Iterable[tuple[str, str, Optional[bool]]]) -> bool:
        (before, type_before), (prefix, kind) = pairs[place - 1], pairs[place]
        return any((before, prefix, same) in patterns for same in (None, kind == type_before))

    def goes_on(place: int) -> bool:
        (before, type_before), (prefix, kind) = pairs[place - 1], pairs[place]
        first, second = _GOES_ON[scheme]
        return before in first and prefix in second and kind == type_before

    found, place = [], 0
    while place < len(tags):
        if not fits(place, _BEGINS[scheme]):
            place += 1
            continue
        end = place + 1
        while end < len(tags) and goes_on(end):
            end += 1
        if _is_end(pairs[end - 1], pairs[end], scheme):
            found.append(Entity(pairs[place][1], place, end))
            place = end
        else:
            place += 1
    return found


def _is_end(last: tuple[str, str], after: tuple[str, str], scheme: str) -> bool:
    """Whether an entity may end between two tags."""
    if scheme == BIOES:
        return last[0] in "ES"
    same = last[1] == after[1]
    if scheme == IOB1 and last[0] == "B" and after[0] == "B":
        return same
    return after[0] in "BO" or not same


def tags_of(found: Iterable[Entity], length: int, scheme: str) -> list[str]:
    """Returns the tags of a sentence of `length` words, by its entities in order."""
    tags = [OUTSIDE] * length
    before: Optional[Entity] = None
    for entity in found:
        kind, begin, end = entity
        adjacent = before is not None and (before.type, before.end) == (kind, begin)
        tags[begin:end] = [f"I-{kind}"] * (end - begin)
        if scheme != IOB1 or adjacent:
            tags[begin] = f"B-{kind}"
        if scheme == BIOES:
            tags[end - 1] = f"E-{kind}" if end - begin > 1 else f"S-{kind}"
        before = entity
    return tags


def convert(tags: Sequence[str], scheme: str) -> list[str]:
    """Returns the tags of a sentence in another scheme."""
    return tags_of(entities(tags), len(tags), scheme)


def may_follow(before: str, tag: str, scheme: str) -> bool:
    """Whether a scheme allows a tag after another; O stands for both ends of a sentence."""
    (prefix_before, type_before), (prefix, kind) = split(before), split(tag)
    inside = prefix_before in "BI" and type_before == kind
    if scheme == BIOES:
        return inside if prefix in "IE" else prefix_before not in "BI"
    needs_entity = {IOB1: "B", IOB2: "I"}[scheme]
    return prefix != needs_entity or inside


def detect(sentences: Iterable[Sequence[str]]) -> Optional[str]:
    """Returns the scheme of a file's tags: the first whose rules they keep; None if none is."""
    possible = {IOB2: True, IOB1: True, BIOES: True}
    for tags in sentences:
        pairs = list(zip([OUTSIDE, *tags], [*tags, OUTSIDE]))
        prefixes = {tag[:1] for tag in tags} - {OUTSIDE}
        for scheme, so_far in possible.items():
            possible[scheme] = (
                so_far
                and prefixes <= set(PREFIXES[scheme])
                and all(may_follow(*pair, scheme) for pair in pairs)
            )
    return next((scheme for scheme, still in possible.items() if still), None)


def of_labels(labels: Sequence[str]) -> str:
    """Returns the scheme that a model's labels speak of, where it is not noted."""
    return BIOES if {label[:2] for label in labels} & {"E-", "S-"} else IOB2


def labels(types: Iterable[str], scheme: str) -> tuple[str, ...]:
    """Returns all tags of a scheme for types of entities: O, then those of each type."""
    return (OUTSIDE, *(f"{prefix}-{kind}" for kind in types for prefix in PREFIXES[scheme]))
