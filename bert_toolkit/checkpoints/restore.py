"""How weights fit a model, and how its variables get them."""

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow.compat.v1 as tf
from absl import logging

from bert_toolkit.checkpoints.checkpoint_files import NOT_WEIGHTS, Weights, read, shapes
from bert_toolkit.errors import UserError
from optimization import name_of

# A classifier's or tagger's head may have another size than the one in the checkpoint, when it was
# trained for other labels; it then starts anew. No other variable may. Of several tasks, each has
# its head in a scope of its own.
HEADS = ("output_weights", "output_bias", "crf/transitions")
_SCOPE = re.compile(r"^tasks/[^/]+/")


@dataclasses.dataclass(frozen=True)
class Fit:
    """How a checkpoint fits a model: variable names.

    Attributes:
      restored: taken from the checkpoint.
      absent: in the model only.
      resized: heads whose size differs, which start anew.
      unused: in the checkpoint only, optimizer state aside.
    """

    restored: Sequence[str]
    absent: Sequence[str]
    resized: Sequence[str]
    unused: Sequence[str]

    def text(self) -> str:
        """Returns the fit as a line to read."""
        parts = [f"restored {len(self.restored)} variables"]
        for names, what in (
            (self.absent, "new, as the checkpoint has none of that name"),
            (self.resized, "new, as the checkpoint has them for other labels"),
            (self.unused, "in the checkpoint, but not in this model"),
        ):
            if names:
                parts.append(f"{some(names)} {what}")
        return "; ".join(parts)


def origins(fitting: Fit, there: Mapping[str, Sequence[int]], variables: Sequence[Any]) -> str:
    """Returns a line for each variable: its name, its shape, where its first values come from.

    Args:
      fitting: of the checkpoint and the model.
      there: name -> shape, of the checkpoint's variables.
      variables: of the model, in their order. Those that only the checkpoint has come last.
    """
    restored = set(fitting.restored)
    shapes_here = {name_of(variable): variable.shape.as_list() for variable in variables}
    lines = [
        f"{name} {shape}: {'from the checkpoint' if name in restored else 'new'}"
        for name, shape in shapes_here.items()
    ]
    lines += [f"{name} {list(there[name])}: left out" for name in fitting.unused]
    return "\n".join(lines)


def some(names: Sequence[str], most: int = 4) -> str:
    """Returns the first of some names, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def fit(weights: Weights, variables: Sequence[Any]) -> Fit:
    """Compares a checkpoint with a model's variables, as `fit_shapes` does."""
    return fit_shapes(shapes(weights.prefix), weights.source, variables)


def fit_shapes(there: Mapping[str, Sequence[int]], source: str, variables: Sequence[Any]) -> Fit:
    """Compares the shapes of weights, which `source` has, with a model's variables.

    Raises:
      UserError: a variable other than a head has another shape there, or no variable of the
        encoder fits.
    """
    here = {name_of(variable): variable.shape.as_list() for variable in variables}
    there = {name: shape for name, shape in there.items() if not NOT_WEIGHTS.search(name)}
    common = [name for name in here if name in there]
    resized = [name for name in common if here[name] != list(there[name])]
    for name in resized:
        if _SCOPE.sub("", name) not in HEADS:
            raise UserError(
                f"{source}: {name} has shape {there[name]}, but the model's config makes it"
                f" {here[name]}; use the config that belongs to this checkpoint"
            )
    restored = [name for name in common if name not in resized]
    if not any(name.startswith("bert/") for name in restored):
        raise UserError(
            f"{source}: none of its variables belongs to a BERT encoder (it has"
            f" {some(sorted(there), 3)}); expected names such as bert/embeddings/word_embeddings"
        )
    return Fit(
        restored=restored,
        absent=[name for name in here if name not in there],
        resized=resized,
        unused=sorted(name for name in there if name not in here),
    )


ANOTHER_CHECKPOINT = "use a checkpoint that has them"


def check_complete(fitting: Fit, source: str, advice: str = ANOTHER_CHECKPOINT) -> None:
    """Raises a UserError if a network that is not trained any more has variables to start anew.

    Args:
      fitting: of the checkpoint and the network.
      source: the checkpoint.
      advice: what to do where a part is missing.
    """
    if fitting.absent:
        raise UserError(
            f"{source}: has no trained {some(fitting.absent)}, which this needs; {advice}"
        )
    if fitting.resized:
        raise UserError(
            f"{source}: its {some(fitting.resized)} are for another number of labels than there are"
            " here; expected the labels that it was trained for; give those"
        )


def restore_at_start(weights: Weights, fitting: Fit) -> None:
    """Makes the variables of the current graph that fit start with the checkpoint's values."""
    variables = {name_of(variable) for variable in tf.global_variables()}
    names = [name for name in fitting.restored if name in variables]  # the others are constants
    tf.train.init_from_checkpoint(weights.prefix, {name: name for name in names})


@contextlib.contextmanager
def frozen(weights: Weights, scope: str) -> Iterator[None]:
    """Lets a network that is built within have a checkpoint's weights, which training leaves alone.

    Its variables are named as in the checkpoint, below `scope`. They are local: every session reads
    them anew, and no checkpoint that it saves has them.
    """

    def get(getter, name, shape, dtype, **settings):
        def initial(shape, dtype, partition_info=None):
            original = name.removeprefix(f"{scope}/")
            [value] = tf.raw_ops.RestoreV2(
                prefix=weights.prefix,
                tensor_names=[original],
                shape_and_slices=[""],
                dtypes=[dtype],
            )
            return tf.ensure_shape(value, shape)

        settings |= {
            "initializer": initial,
            "trainable": False,
            "collections": [tf.GraphKeys.LOCAL_VARIABLES],
        }
        return getter(name=name, shape=shape, dtype=dtype, **settings)

    with tf.variable_scope(scope, custom_getter=get):
        yield


def load(session: Any, checkpoint: str, if_untrained: str = ANOTHER_CHECKPOINT) -> Fit:
    """Gives the trainable variables of a session's graph a checkpoint's values.

    As arrays, which is quicker than by a TensorFlow checkpoint.

    Args:
      session: of the graph.
      checkpoint: as `checkpoint_files.find` returns it.
      if_untrained: what to do where it lacks a variable.

    Raises:
      UserError: the checkpoint lacks one.
    """
    weights = read(checkpoint)
    shapes_there = {name: value.shape for name, value in weights.items()}
    fitting = fit_shapes(shapes_there, checkpoint, tf.trainable_variables())
    check_complete(fitting, checkpoint, if_untrained)
    variables = {variable.op.name: variable for variable in tf.global_variables()}
    values = {variables[name].initial_value: weights[name] for name in fitting.restored}
    session.run([variables[name].initializer for name in fitting.restored], values)
    return fitting


def check_same_model(checkpoint: str, variables: Sequence[Any]) -> None:
    """Raises a UserError if the `checkpoint` in an output directory has not these `variables`."""
    there = shapes(checkpoint)
    for variable in variables:
        name, shape = name_of(variable), variable.shape.as_list()
        if there.get(name) != shape:
            found = f"has shape {there[name]}, here {shape}" if name in there else "is not in it"
            raise UserError(
                f"{os.path.dirname(checkpoint)} holds another model: {name} {found}"
                f" ({os.path.basename(checkpoint)}); use another --output_dir, or remove that one"
            )


def warn_of_new_encoder_variables(fitting: Fit) -> None:
    """Says when a part of the encoder itself starts from random values."""
    new = [
        name
        for name in fitting.absent
        if name.startswith("bert/") and not name.startswith("bert/pooler/")
    ]
    if new:
        logging.warning(
            "%d variables of the encoder start from random values: %s", len(new), some(new)
        )
