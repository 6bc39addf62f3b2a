"""Layers, as --layers names them: numbers, and the embeddings below the first."""

import re
from typing import Union

from bert_toolkit.errors import UserError

LAST_FOUR = "-4..-1"
EMBEDDINGS = "embeddings"

# The number of a layer, or EMBEDDINGS.
Layer = Union[int, str]


def parse_layers(text: str, num_layers: int) -> list[Layer]:
    """Returns the layers in --layers, in its order.

    Raises:
      UserError: not a list of numbers of layers that the model has.
    """
    if text == "all":
        return list(range(num_layers))
    layers: list[Layer] = []
    for part in text.replace("last-four", LAST_FOUR).split(","):
        if part.strip() == EMBEDDINGS:
            layers.append(EMBEDDINGS)
            continue
        found = re.fullmatch(r" *(-?\d+)(?:\.\.(-?\d+))? *", part)
        if found is None:
            raise UserError(
                f"--layers={text}: expected numbers separated by commas, such as -1,-2, ranges such"
                " as 0..5, last-four, all, or embeddings"
            )
        first, last = int(found[1]), int(found[2] or found[1])
        layers += range(first, last + 1)
        if last < first:
            raise UserError(f"--layers={text}: the range {part} ends before it begins")
    for layer in layers:
        if layers.count(layer) > 1:
            name = layer if layer == EMBEDDINGS else f"layer {layer}"
            raise UserError(f"--layers={text}: {name} is named twice")
        if isinstance(layer, int) and not -num_layers <= layer < num_layers:
            raise UserError(
                f"--layers={text}: no layer {layer}; the model has {num_layers}, numbered 0 to"
                f" {num_layers - 1} or -{num_layers} to -1"
            )
    return layers
