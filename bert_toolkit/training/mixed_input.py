"""Batches of several inputs, of one at a time: which, is drawn by chance."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Union

import numpy as np

from bert_toolkit.training.input_pipeline import RecordInput

# The feature that says which of the inputs a batch is of: int32 [B], alike in all rows.
NUMBER = "input_number"
# The features that all inputs have alike.
COMMON = ("input_ids", "input_mask", "segment_ids", "is_real_example")


@dataclasses.dataclass(frozen=True)
class MixedInput:
    """An Estimator's input function that takes each batch from one of several.

    COMMON features keep their names; others become `name/feature`, and have no rows in a batch of
    another input.

    Attributes:
      inputs: by name; each repeats.
      shares: of each, the probability that a batch is of it.
      seed: of what is drawn.
      steps: how many are drawn.
      skip: records to leave out at the start; a multiple of the batch size.
    """

    inputs: Mapping[str, RecordInput]
    shares: Sequence[float]
    seed: int
    steps: int
    skip: int = 0

    @property
    def paths(self) -> list[str]:
        """The files of all inputs."""
        return [path for one in self.inputs.values() for path in one.paths]

    def reseeded(self, offset: int) -> "MixedInput":
        """Returns the same input in another order."""
        inputs = {name: one.reseeded(offset) for name, one in self.inputs.items()}
        return dataclasses.replace(self, inputs=inputs, seed=self.seed + offset)

    def skipping(self, records: int) -> "MixedInput":
        """Returns the same input without its first records."""
        return dataclasses.replace(self, skip=records)

    def fingerprint(self, batch_size: int) -> str:
        """Returns a name for what is read and how, whatever the number of steps."""
        of_inputs = {name: one.fingerprint(batch_size) for name, one in self.inputs.items()}
        how = [list(of_inputs.items()), list(self.shares), self.seed, self.skip]
        return hashlib.sha256(json.dumps(how).encode()).hexdigest()[:12]

    def earlier_fingerprint(self, batch_size: int) -> str:
        """Returns the same name; there was none in version 0.1.0."""
        return self.fingerprint(batch_size)

    def draws(self) -> np.ndarray:
        """Returns which input each step is of, int64 [steps]; more steps begin with the same."""
        chance = np.random.default_rng(self.seed)
        return chance.choice(len(self.inputs), size=self.steps, p=self.shares).astype(np.int64)

    def __call__(self, params: Mapping[str, Any], input_context: Any = None) -> Any:
        """Returns a tf.data.Dataset of batches: features by name, each [B, ...] or [0, ...]."""
        import tensorflow.compat.v1 as tf

        def batches(number: int, one: RecordInput) -> Any:
            return one(params, input_context).map(lambda features: self._widen(features, number))

        of_inputs = [batches(number, one) for number, one in enumerate(self.inputs.values())]
        replicas = input_context.num_replicas_in_sync if input_context is not None else 1
        # All devices take the same task in a step.
        draws = tf.data.Dataset.from_tensor_slices(np.repeat(self.draws(), replicas))
        mixed = tf.data.Dataset.choose_from_datasets(of_inputs, draws, stop_on_empty_dataset=False)
        return mixed.skip(self.skip // params["batch_size"])

    def _widen(self, features: Mapping[str, Any], number: int) -> dict[str, Any]:
        """Returns the features of a batch of one input, and those of the others without rows."""
        import tensorflow.compat.v1 as tf

        rows, length = tf.unstack(tf.shape(features["input_ids"]))
        found = {name: features[name] for name in COMMON}
        found[NUMBER] = tf.fill([rows], number)
        for place, (name, one) in enumerate(self.inputs.items()):
            for field in one.schema.fields:
                if field.name in COMMON:
                    continue
                shape = [0] if field.scalar else [0, length if field.per_position else field.length]
                dtype = tf.float32 if field.dtype == "float32" else tf.int32
                nothing = tf.zeros(shape, dtype)
                found[f"{name}/{field.name}"] = features[field.name] if place == number else nothing
        return found


# What a Trainer trains on.
TrainingInput = Union[RecordInput, MixedInput]
