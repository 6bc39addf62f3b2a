"""From a tagger's outputs for the words of a sentence to tags and entities."""

import dataclasses
from collections.abc import Sequence
from typing import Optional

import numpy as np

from bert_toolkit.results import Entity
from bert_toolkit.tasks.tagging import schemes
from bert_toolkit.tasks.tagging.crf import Chain


@dataclasses.dataclass(frozen=True)
class Decoder:
    """Turns outputs [T, L] into tags.

    Attributes:
      labels: the tags, in the order of their ids.
      chain: the CRF, if the model has one.
    """

    labels: Sequence[str]
    chain: Optional[Chain] = None

    def tag_ids(self, outputs: np.ndarray) -> np.ndarray:
        """Returns the tag of each word, [T]."""
        return self.chain.best(outputs) if self.chain else outputs.argmax(-1)

    def tags(self, outputs: np.ndarray) -> list[str]:
        """Returns the names of these."""
        return [self.labels[number] for number in self.tag_ids(outputs)]

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """Returns those of each tag, [T, L]."""
        if self.chain:
            return self.chain.probabilities(outputs)
        shifted = np.exp(outputs - outputs.max(-1, keepdims=True))
        return shifted / shifted.sum(-1, keepdims=True)

    def loss(self, outputs: np.ndarray, label_ids: np.ndarray) -> float:
        """Returns the negative log-likelihood of the true tags, a sum over words."""
        if self.chain:
            return self.chain.loss(outputs, label_ids)
        chosen = self.probabilities(outputs)[np.arange(len(label_ids)), label_ids]
        return float(-np.log(np.maximum(chosen, 1e-30)).sum())

    def entities(
        self,
        outputs: np.ndarray,
        words: Sequence[str],
        text: str = "",
        offsets: Sequence[Sequence[int]] = (),
    ) -> list[Entity]:
        """Returns the entities of a sentence; with characters where `offsets` of words are given.

        A model's labels without a prefix are types.
        """
        ids, chances = self.tag_ids(outputs), self.probabilities(outputs)
        names = (self.labels[number] for number in ids)
        tags = [name if schemes.is_tag(name) else f"I-{name}" for name in names]
        found = []
        for kind, begin, end in schemes.entities(tags):
            score = float(chances[np.arange(begin, end), ids[begin:end]].mean())
            if len(offsets):
                start, stop = int(offsets[begin][0]), int(offsets[end - 1][1])
                found.append(Entity(text[start:stop], kind, start, stop, score))
            else:
                found.append(Entity(" ".join(words[begin:end]), kind, begin, end, score))
        return found
