"""What a student learns from: texts with a teacher's answers, and changed copies of them."""

import dataclasses
import random
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bert_toolkit.tasks.classification.task_data import Example

MASK = "[MASK]"


class Lesson(NamedTuple):
    """An example to learn from.

    Attributes:
      example: with its label, or None.
      logits: the teacher's, [outputs].
    """

    example: Example
    logits: np.ndarray


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How copies of texts are made of which the teacher says something else.

    Attributes:
      copies: of each text, at most.
      mask_probability: that a word becomes [MASK].
      ngram_probability: that only 1 to 5 consecutive words of a copy are kept.
    """

    copies: int
    mask_probability: float
    ngram_probability: float


LONGEST_NGRAM = 5
# Chinese characters are words of their own.
_WORD = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]|[^\s\u3400-\u9fff\uf900-\ufaff]+")


def augment(examples: Sequence[Example], how: Augmentation, seed: int) -> list[Example]:
    """Returns changed copies of texts, without labels, which may not be theirs any more.

    Tang et al., 2019, https://arxiv.org/abs/1903.12136, section 3.3, without the exchange of words
    by part of speech. Of a pair the first text is changed in one copy, the second in the next, both
    in the third, and so on. Copies that are the text itself, or each other, count once.
    """
    chance = random.Random(seed)
    made = []
    for example in examples:
        seen = {(example.text_a, example.text_b)}
        for number in range(how.copies):
            first, second = example.text_a, example.text_b
            if second is None or number % 3 != 1:
                first = _changed(first, how, chance)
            if second is not None and number % 3 != 0:
                second = _changed(second, how, chance)
            if (first, second) not in seen:
                seen.add((first, second))
                made.append(Example(example.name, first, second, None, example.line))
    return made


def _changed(text: str, how: Augmentation, chance: random.Random) -> str:
    """Returns the text with words masked, or some words in a row of that."""
    words = _WORD.findall(text)
    if not words:
        return text
    changed = [MASK if chance.random() < how.mask_probability else word for word in words]
    if chance.random() < how.ngram_probability:
        length = min(chance.randint(1, LONGEST_NGRAM), len(words))
        start = chance.randint(0, len(words) - length)
        changed = changed[start : start + length]
    return text if all(word == MASK for word in changed) else " ".join(changed)
