"""Kernels as constants of a graph, for prediction in half precision on a CPU.

A variable in float32 is cast in every batch, and arranged for oneDNN's product; a constant of the
graph once (docs/performance.md).
"""

import contextlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Optional

import numpy as np
import tensorflow.compat.v1 as tf

from bert_toolkit.options import DeviceOptions

# TensorFlow holds some ten copies of constants while it rewrites a graph: gigabytes, of kernels
# larger than these. BERT-base's are 170 MB in bfloat16.
MOST_BYTES = 256 * 2**20
# Below so many sequences the second that TensorFlow takes longer to start is more than they gain.
LEAST_SEQUENCES = 2000
# What layers compute in their precision; the rest of a network is small, or in float32.
_KERNEL = re.compile(r"^bert/encoder/.*/kernel$")


def precision(device: DeviceOptions, sequences: Optional[int]) -> Optional[str]:
    """Returns the type of the constants where they are quicker for so many sequences, else None.

    An unknown number of sequences is None. In float32 constants gain a tenth of a batch's time, too
    little for their memory.
    """
    is_long = sequences is not None and sequences >= LEAST_SEQUENCES
    pays = is_long and device.precision != "float32" and not device.static_shapes
    return device.precision if pays else None


@contextlib.contextmanager
def kernels(
    shapes: Mapping[str, Sequence[int]],
    read: Callable[[str], np.ndarray],
    precision: str,
) -> Iterator[list[tf.Tensor]]:
    """Lets a network that is built within have the encoder's kernels as constants.

    Args:
      shapes: name -> shape, of the weights there are.
      read: from a name to that weight.
      precision: type that layers compute in, which the constants have.

    Yields:
      A list, to which each constant is added. It has the name of the variable it stands for. None
      is made on a GPU, of more than `MOST_BYTES`, or of another shape than the network's.
    """
    made: list[tf.Tensor] = []
    dtype = tf.as_dtype(precision)
    names = {name for name in shapes if _KERNEL.search(name)}
    size = sum(math.prod(shapes[name]) for name in names) * dtype.size
    if size > MOST_BYTES or tf.config.list_physical_devices("GPU"):
        yield made
        return

    def get(getter, name, shape, **settings):
        if name not in names or list(shapes[name]) != tf.TensorShape(shape).as_list():
            return getter(name=name, shape=shape, **settings)
        value = read(name).astype(dtype.as_numpy_dtype)
        with tf.name_scope(None):  # the name in full
            made.append(tf.constant(value, name=name))
        return made[-1]

    scope = tf.get_variable_scope()
    with tf.variable_scope(scope, custom_getter=get, auxiliary_name_scope=False):
        yield made
