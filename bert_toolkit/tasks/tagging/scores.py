"""What taggers are judged by: precision, recall and F1 of entities, as `seqeval` has them.

An entity is right if its words and its type are. That package is not needed: tests compare.
"""

import collections
from collections.abc import Callable, Sequence
from typing import NamedTuple

from bert_toolkit.tasks.tagging import schemes
from bert_toolkit.tasks.tagging.schemes import Entity

Tags = Sequence[Sequence[str]]  # of sentences, of their words


class Score(NamedTuple):
    """Precision, recall and F1, and how many entities there are in the true tags."""

    precision: float
    recall: float
    f1: float
    support: int


def entity_scores(true: Tags, predicted: Tags, strict_scheme: str = "") -> dict[str, Score]:
    """Returns the score of each type, in order, and "micro" and "macro" over all.

    Args:
      true: tags of each sentence.
      predicted: likewise.
      strict_scheme: count only entities whose tags keep the rules of this scheme; all if empty.
    """

    def read(tags: Sequence[str]) -> list[Entity]:
        if strict_scheme:
            return schemes.strict_entities(tags, strict_scheme)
        return schemes.entities(tags)

    return _scores(true, predicted, read)


def _scores(
    true: Tags, predicted: Tags, read: Callable[[Sequence[str]], list[Entity]]
) -> dict[str, Score]:
    # type -> right, predicted, true
    counts: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0, 0])
    for sentence, answer in zip(true, predicted):
        there, found = set(read(sentence)), set(read(answer))
        for column, entities in enumerate((there & found, found, there)):
            for entity in entities:
                counts[entity.type][column] += 1
    by_type = {kind: _score(*counts[kind]) for kind in sorted(counts)}
    micro = _score(*(sum(column) for column in zip(*counts.values()))) if counts else _score()
    number = max(1, len(by_type))
    macro = Score(
        sum(score.precision for score in by_type.values()) / number,
        sum(score.recall for score in by_type.values()) / number,
        sum(score.f1 for score in by_type.values()) / number,
        micro.support,
    )
    return {**by_type, "micro": micro, "macro": macro}


def _score(right: int = 0, predicted: int = 0, true: int = 0) -> Score:
    both = predicted + true
    return Score(
        right / predicted if predicted else 0.0,
        right / true if true else 0.0,
        2 * right / both if both else 0.0,
        true,
    )


def accuracy(true: Tags, predicted: Tags) -> float:
    """Returns the share of words whose tag is right."""
    pairs = [pair for sentences in zip(true, predicted) for pair in zip(*sentences)]
    return sum(one == other for one, other in pairs) / max(1, len(pairs))


def report(true: Tags, predicted: Tags, scheme: str) -> str:
    """Returns the scores of each type, read kindly and strictly, as text."""
    lines = []
    for title, strict in (("all entities", ""), (f"those that keep to {scheme}", scheme)):
        found = entity_scores(true, predicted, strict)
        width = max(len(title), *map(len, found)) + 2
        lines.append(f"{title:<{width}}{'precision':>10}{'recall':>10}{'f1':>10}{'entities':>10}")
        for name, score in found.items():
            numbers = "".join(f"{value:>10.4f}" for value in score[:3])
            lines.append(f"{name:<{width}}{numbers}{score.support:>10}")
        lines.append("")
    return "\n".join(lines)
