"""What a model says of questions: the answers given, the best ones, the odds of none."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

import numpy as np

from bert_toolkit.tasks.answering.spans import NBest, Span

# The null odds of a question that no span answers.
CERTAIN = 1e4
# Settings kept beside a model; the flags have the same names.
NEGATIVE, THRESHOLD = "version_2_with_negative", "null_score_diff_threshold"


class Settings(NamedTuple):
    """How answers are given; see the flags of these names."""

    with_negative: bool = False
    threshold: Optional[float] = None  # 0, but that it was not chosen

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Settings":
        """Returns those that are kept beside a model."""
        return cls(bool(settings.get(NEGATIVE, False)), settings.get(THRESHOLD))

    def is_answered(self, null_odds: float) -> bool:
        """Whether an answer is given, rather than none."""
        return not self.with_negative or null_odds <= (self.threshold or 0.0)


class Given(NamedTuple):
    """An answer: its text, "" for none; where that stands; its probability among the best ones."""

    text: str
    span: Optional[Span]
    probability: float


class Answers(NamedTuple):
    """What a model says of questions.

    Attributes:
      nbest: their best spans and null scores.
      loss: mean over windows, where the answers are known.
    """

    nbest: NBest
    loss: float

    def null_odds(self, number: int) -> float:
        """Returns by how much the score of no answer exceeds that of the best one."""
        best = self.nbest.best(number)
        return CERTAIN if best is None else float(self.nbest.null[number].sum()) - best.score

    def n_best(self, number: int, context: str, settings: Settings) -> list[dict[str, Any]]:
        """Returns the best answers of a question, with probabilities among them, as published.

        Where there may be none, no answer ("") is one of them.
        """
        spans = self.nbest.spans(number)
        found = [(text_of(span, context), span.start_logit, span.end_logit) for span in spans]
        if settings.with_negative or not found:
            null = self.nbest.null[number]
            found.append(("", float(null[0]), float(null[1])))
            found.sort(key=lambda one: -(one[1] + one[2]))
        scores = np.array([start_logit + end_logit for _, start_logit, end_logit in found])
        shares = np.exp(scores - scores.max())
        return [
            {"text": text, "probability": float(share), "start_logit": first, "end_logit": last}
            for (text, first, last), share in zip(found, shares / shares.sum())
        ]

    def span(self, number: int, settings: Settings) -> Optional[Span]:
        """Returns the span that is given as the answer; None for no answer."""
        return self.nbest.best(number) if settings.is_answered(self.null_odds(number)) else None

    def given(self, number: int, context: str, settings: Settings) -> Given:
        """Returns the answer that is given to a question."""
        span = self.span(number, settings)
        text = text_of(span, context)
        among = self.n_best(number, context, settings)
        share = next((one["probability"] for one in among if one["text"] == text), 0.0)
        return Given(text, span, share)

    def all_null_odds(self) -> np.ndarray:
        """Returns the null odds of all questions, [N]."""
        return np.array([self.null_odds(number) for number in range(len(self.nbest.null))])


def text_of(span: Optional[Span], context: str) -> str:
    """Returns the text of a span; "" for none."""
    return context[span.begin : span.end] if span else ""
