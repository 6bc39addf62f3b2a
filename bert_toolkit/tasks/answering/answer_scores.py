"""Exact match and F1 of answers, as the official evaluations define them.

SQuAD 1.1: Rajpurkar et al., 2016 (https://arxiv.org/abs/1606.05250), section 6.1; 2.0: Rajpurkar et
al., 2018 (https://arxiv.org/abs/1806.03822); characters: Cui et al., 2019, CMRC 2018
(https://arxiv.org/abs/1810.07366), section 4.
"""

import collections
import re
import string
from collections.abc import Sequence
from typing import Any, Callable, Optional

import numpy as np

WORDS, CHARACTERS = "words", "characters"

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)

# (prediction, true answer) -> (exact match, F1), 0 to 1
Measure = Callable[[str, str], tuple[float, float]]


def normalize(text: str) -> str:
    """Returns an answer in lower case without punctuation, articles and extra white space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)).split())


def by_words(prediction: str, answer: str) -> tuple[float, float]:
    """Compares answers as SQuAD 2.0 does: F1 of the words that they share, however often.

    Version 1.1 differs only where both are nothing but articles and punctuation: F1 is 0 there.
    """
    first, second = normalize(prediction), normalize(answer)
    exact = float(first == second)
    words, expected = first.split(), second.split()
    if not words or not expected:
        return exact, exact  # no answer is right where there is none
    shared = sum((collections.Counter(words) & collections.Counter(expected)).values())
    return exact, _f1(shared, len(words), len(expected))


def by_characters(prediction: str, answer: str) -> tuple[float, float]:
    """Compares answers as CMRC 2018 does: F1 of the longest run of characters that they share.

    Words and numbers of other scripts than Chinese are one unit.
    """
    texts = [text.lower().strip().translate(_WITHOUT_CHINESE) for text in (prediction, answer)]
    exact = float(texts[0] == texts[1])
    first, second = map(_UNIT.findall, texts)
    if not first or not second:
        return exact, exact
    return exact, _f1(_longest_run(first, second), len(first), len(second))


def _f1(shared: int, predicted: int, expected: int) -> float:
    if not shared:
        return 0.0
    precision, recall = shared / predicted, shared / expected
    return 2 * precision * recall / (precision + recall)


# What CMRC's evaluation leaves out; points, commas and signs of percent stay.
_WITHOUT_CHINESE = str.maketrans("", "", "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
_UNIT = re.compile(r"[\u4e00-\u9fa5]|\d+(?:[.,]\d+)*|[^\W\d\u4e00-\u9fa5]+|[^\w\s]")


def _longest_run(first: Sequence[str], second: Sequence[str]) -> int:
    """Returns how long the longest part is that both have."""
    longest, row = 0, [0] * (len(second) + 1)
    for one in first:
        row = [0, *(row[j] + 1 if one == other else 0 for j, other in enumerate(second))]
        longest = max(longest, *row)
    return longest


def best_of(measure: Measure, prediction: str, answers: Sequence[str]) -> tuple[float, float]:
    """Returns the best exact match and the best F1 with a true answer; with "" if there is none."""
    # Those that are nothing but articles and punctuation do not count, as in SQuAD 2.0.
    true = [answer for answer in answers if normalize(answer)] or [""]
    found = [measure(prediction, answer) for answer in true]
    return max(exact for exact, _ in found), max(f1 for _, f1 in found)


def summary(
    exact: np.ndarray, f1: np.ndarray, has_answer: np.ndarray, with_negative: bool
) -> dict[str, Any]:
    """Returns the means in percent; of version 2 also those with and without an answer.

    Args:
      exact: float [N], of each question, 0 to 1.
      f1: likewise.
      has_answer: bool [N].
      with_negative: whether some questions may have no answer.
    """

    def mean(values: np.ndarray) -> float:
        return 100 * float(values.mean())

    found: dict[str, Any] = {"exact": mean(exact), "f1": mean(f1), "total": len(exact)}
    if with_negative:
        for name, chosen in (("HasAns", has_answer), ("NoAns", ~has_answer)):
            if chosen.any():
                found[f"{name}_exact"] = mean(exact[chosen])
                found[f"{name}_f1"] = mean(f1[chosen])
                found[f"{name}_total"] = int(chosen.sum())
    return found


def with_margin(threshold: float, null_odds: np.ndarray) -> float:
    """Returns a threshold that answers the same questions, half-way to the next null odds.

    The official one is the null odds of a question itself, which rounding alone may pass.
    """
    above = null_odds[null_odds > threshold]
    return (threshold + float(above.min())) / 2 if len(above) else threshold + 1.0


def best_threshold(
    scores: np.ndarray, null_odds: np.ndarray, has_answer: np.ndarray, answered: np.ndarray
) -> tuple[float, Optional[float]]:
    """Returns the best mean score in percent that a null threshold gives, and the threshold.

    A question is answered where its null odds are not above the threshold; where none should be,
    the threshold is None.

    Args:
      scores: float [N], what each answer is worth, 0 to 1, if it is given.
      null_odds: float [N], how much likelier no answer is.
      has_answer: bool [N], whether there is one.
      answered: bool [N], whether there is an answer to give.
    """
    gains = np.where(has_answer, scores, np.where(answered, -1.0, 0.0))
    order = np.argsort(null_odds, kind="stable")
    reached = (~has_answer).sum() + np.cumsum(gains[order])
    best = int(np.argmax(reached)) if len(reached) else 0
    nothing = float((~has_answer).sum())
    if not len(reached) or reached[best] <= nothing:
        return 100 * nothing / max(1, len(scores)), None
    return 100 * float(reached[best]) / len(scores), float(null_odds[order[best]])
