"""A task: what is particular to one use of BERT. finetune.py does what all tasks share.

A task knows its examples, how they become sequences and labels, the network over BERT, how its
outputs become answers, how answers are judged, and the files that come of them. Classification is
one.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional, Protocol

import numpy as np

from bert_toolkit.compute import ComputeOptions
from bert_toolkit.io.tfrecord import Schema
from bert_toolkit.text.encoding import Encoded
from bert_toolkit.training.outputs import Head, Network
from modeling import BertConfig

# The outputs of a network for a batch: name -> [B, ...].
Batch = Mapping[str, np.ndarray]
# Returns the outputs of a checkpoint for a split, a batch after the other.
Outputs = Iterable[Batch]


@dataclasses.dataclass(frozen=True)
class Examples:
    """The examples of a run, those of splits that are not needed left out.

    Attributes:
      train: to train on; None where it is not asked for.
      dev: ending of the result files' names -> examples to evaluate on; "" for the main ones.
      test: likewise, examples to predict.
    """

    train: Optional[Sequence[Any]]
    dev: Mapping[str, Sequence[Any]]
    test: Mapping[str, Sequence[Any]]


@dataclasses.dataclass(frozen=True)
class EncodedSplit:
    """A TFRecord file of examples.

    Attributes:
      path: of the file.
      examples: in their own order.
      owners: int [records], the example that each record is of: one with windows has several.
      lengths: of the records, in tokens.
    """

    path: str
    examples: Sequence[Any]
    owners: np.ndarray
    lengths: Sequence[int]

    def of_examples(self, outputs: np.ndarray) -> np.ndarray:
        """[records, outputs] -> [examples, outputs]: means over the records of each example."""
        sums = np.zeros((len(self.examples), outputs.shape[1]))
        np.add.at(sums, self.owners, outputs)
        return sums / np.bincount(self.owners, minlength=len(self.examples))[:, None]


class Task(Protocol):
    """What BERT is fine-tuned for.

    Attributes:
      examples: of the splits that are needed.
      metric: what the task is judged by, a name that `score` returns, without "eval_".
      labels: the names of outputs, kept beside the model; empty if there are none.
      max_seq_length: longest sequence in tokens.
      train_source: the file or directory of the training data, for the note beside the model.
    """

    examples: Examples
    metric: str
    labels: tuple[str, ...]
    max_seq_length: int
    train_source: str

    def schema(self) -> Schema:
        """Returns the features of the records that `encode` makes."""

    def encode(self, example: Any) -> list[tuple[Encoded, dict[str, Any]]]:
        """Returns the sequences of an example, each with the task's own features by name."""

    def copies(self) -> Optional[Sequence[int]]:
        """Returns how many times each training example counts; None for once."""

    def facts(self) -> Iterable[Any]:
        """Yields what the training data is recognized by when a run goes on."""

    def network(self, config: BertConfig, compute: ComputeOptions) -> Network:
        """Returns the function (features, mode) -> outputs; predictions with is_real_example."""

    def head(self, config: BertConfig) -> Head:
        """Returns what that network has over BERT, in training."""

    def decode(self, outputs: Outputs, split: EncodedSplit) -> Any:
        """Returns the answers for the examples of a split, from the outputs for its records."""

    def score(self, answers: Any, split: EncodedSplit) -> dict[str, Any]:
        """Returns metrics by name, "eval_..."; the loss among them."""

    def write_evaluation(
        self, suffix: str, answers: Any, split: EncodedSplit
    ) -> Optional[Mapping[str, Any]]:
        """Writes reports of an evaluation beside the model; keeps what is chosen on dev data.

        Returns what eval_results.json says beside the metrics, if anything.
        """

    def write_predictions(self, suffix: str, answers: Any, split: EncodedSplit) -> None:
        """Writes, or prints, the answers for a split to predict."""

    def store(self, directory: str) -> None:
        """Writes beside a model what a later run has to know of the task."""
