"""How a network is computed; the numbers it gives are the same."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class ComputeOptions:
    """Choices for the hardware at hand.

    Attributes:
      static_shapes: no shape depends on the data, as TPUs and XLA need.
      one_hot_embeddings: look words up by a matrix product, which TPUs do faster.
      remove_padding: compute nothing for padding but attention; not with static shapes.
      precision: type that layers compute in: float32, bfloat16 or float16.
      recompute: compute layers again for their gradients, rather than keep what they computed.
    """

    static_shapes: bool = False
    one_hot_embeddings: bool = False
    remove_padding: bool = True
    precision: str = "float32"
    recompute: bool = False


DEFAULT_COMPUTE = ComputeOptions()
TPU_COMPUTE = ComputeOptions(static_shapes=True, one_hot_embeddings=True, remove_padding=False)
