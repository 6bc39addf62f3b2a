"""Numbers of layers, as --layers names them."""

import re

from bert_toolkit.errors import UserError

LAST_FOUR = "-4..-1"


def parse_layers(text: str, num_layers: int) -> list[int]:
    """Returns the layer numbers in --layers, in its order.

    Raises:
      UserError: not a list of numbers of layers that the model has.
    """
    if text == "all":
        return list(range(num_layers))
    layers: list[int] = []
    for part in text.replace("last-four", LAST_FOUR).split(","):
        found = re.fullmatch(r" *(-?\d+)(?:\.\.(-?\d+))? *", part)
        if found is None:
            raise UserError(
                f"--layers={text}: expected numbers separated by commas, such as -1,-2, ranges such"
                " as 0..5, last-four, or all"
            )
        first, last = int(found[1]), int(found[2] or found[1])
        layers += range(first, last + 1)
        if last < first:
            raise UserError(f"--layers={text}: the range {part} ends before it begins")
    for layer in layers:
        if layers.count(layer) > 1:
            raise UserError(f"--layers={text}: layer {layer} is named twice")
        if not -num_layers <= layer < num_layers:
            raise UserError(
                f"--layers={text}: no layer {layer}; the model has {num_layers}, numbered 0 to"
                f" {num_layers - 1} or -{num_layers} to -1"
            )
    return layers
