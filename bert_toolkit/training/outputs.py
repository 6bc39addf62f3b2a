"""What a stage's network gives for a batch."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Optional

import tensorflow.compat.v1 as tf


class Mean(NamedTuple):
    """A weighted mean of a batch, in a form that adds up over parts of it: total / weight.

    `weight` depends on the data only, not on the model.
    """

    total: tf.Tensor
    weight: tf.Tensor

    def value(self) -> tf.Tensor:
        """Returns the mean, float32."""
        return tf.cast(self.total, tf.float32) / tf.cast(self.weight, tf.float32)


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What a network computes of a batch.

    Attributes:
      predictions: name -> tensor, batch first.
      losses: name -> part of the loss to minimise, which is their sum; empty in prediction.
      metrics: a function and the tensors (batch first) that it makes evaluation metrics of.
      shown: name -> what is shown beside the loss while training.
      trained: the beginning of names of variables -> bool scalar, whether this batch trains them;
        all others are always trained.
    """

    predictions: Mapping[str, tf.Tensor]
    losses: Mapping[str, Mean] = dataclasses.field(default_factory=dict)
    metrics: Optional[tuple[Callable[..., dict], list]] = None
    shown: Mapping[str, Mean] = dataclasses.field(default_factory=dict)
    trained: Mapping[str, tf.Tensor] = dataclasses.field(default_factory=dict)

    @property
    def loss(self) -> Optional[tf.Tensor]:
        """The loss of this batch: a scalar, or None in prediction."""
        if not self.losses:
            return None
        return tf.add_n([mean.value() for mean in self.losses.values()])


# (features, mode) -> Outputs
Network = Callable[[Mapping[str, tf.Tensor], str], Outputs]


class Head(NamedTuple):
    """What a task computes of BERT's outputs.

    Attributes:
      build: (model, features, mode) -> Outputs; of the model get_pooled_output or
        get_sequence_output is called.
      with_pooler: whether it is the pooled output.
    """

    build: Callable[[Any, Mapping[str, tf.Tensor], str], Outputs]
    with_pooler: bool
