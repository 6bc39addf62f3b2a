"""How a network is computed; the numbers it gives are the same."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Engine:
    """Choices for the hardware at hand.

    Attributes:
      static_shapes: no shape depends on the data, as TPUs need.
      one_hot_embeddings: look words up by a matrix product, which TPUs do faster.
      remove_padding: compute nothing for padding but attention; not with static shapes.
    """

    static_shapes: bool = False
    one_hot_embeddings: bool = False
    remove_padding: bool = True

    @classmethod
    def for_device(cls, use_tpu: bool, remove_padding: bool) -> "Engine":
        """Returns the engine for a TPU, or for anything else."""
        return cls(use_tpu, use_tpu, remove_padding and not use_tpu)


DEFAULT_ENGINE = Engine()
