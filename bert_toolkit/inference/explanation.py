"""The shares of words in a prediction, as explainer.py finds them and commands show them."""

from typing import NamedTuple, Optional, Union

INTEGRATED_GRADIENTS, OCCLUSION, BOTH = "integrated_gradients", "occlusion", "both"
METHODS = (BOTH, INTEGRATED_GRADIENTS, OCCLUSION)
STEPS = 50


class WordShare(NamedTuple):
    """A word and its share in the logit that is explained: above 0 it speaks for, below 0 against.

    Attributes:
      text: the word as the text has it.
      part: 0, or 1 if it is of the second text of a pair.
      start: its first character in its text.
      end: the character after its last.
      integrated_gradients: its share by them; None if that was not asked for.
      occlusion: how much larger the logit is with it than without; None likewise.
    """

    text: str
    part: int
    start: int
    end: int
    integrated_gradients: Optional[float]
    occlusion: Optional[float]


class Explanation(NamedTuple):
    """The shares of the words of a text in a prediction.

    Attributes:
      text: a string or a pair of them.
      predicted: the answer, as `Prediction.label`.
      probabilities: label -> probability; empty where a number is predicted.
      label: whose logit is explained; "" where a number is predicted, which is explained then.
      logit: of that label, before any calibration.
      baseline_logit: the same with [MASK] for every word; None without integrated gradients.
      words: those of the text that the model reads, which may be too long for it.
      cut: how many tokens it does not read.
    """

    text: Union[str, tuple[str, str]]
    predicted: str
    probabilities: dict[str, float]
    label: str
    logit: float
    baseline_logit: Optional[float]
    words: list[WordShare]
    cut: int

    @property
    def total(self) -> float:
        """The sum of the shares by integrated gradients."""
        return sum(word.integrated_gradients or 0.0 for word in self.words)

    @property
    def error(self) -> float:
        """How far `total` is from the difference of the two logits, as a share of it.

        Integrated gradients are complete: with steps enough, it is 0. Where shares for and against
        make the difference nearly nothing, it is compared with a hundredth of their sizes.
        0 without integrated gradients.
        """
        if self.baseline_logit is None:
            return 0.0
        difference = self.logit - self.baseline_logit
        sizes = sum(abs(word.integrated_gradients or 0.0) for word in self.words)
        return abs(self.total - difference) / max(abs(difference), 0.01 * sizes, 1e-3)
