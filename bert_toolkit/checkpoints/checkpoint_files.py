"""Checkpoints: finding them, reading Hugging Face's, starting a model from one, telling the fit."""

import contextlib
import dataclasses
import glob
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Optional

import numpy as np
import tensorflow.compat.v1 as tf
from absl import logging

from bert_toolkit.checkpoints import object_based
from bert_toolkit.errors import UserError
from bert_toolkit.io import files
from bert_toolkit.training import cluster

SAFETENSORS = "model.safetensors"
SHARDED = f"{SAFETENSORS}.index.json"  # lists the files that weights are divided among
GOOGLE_NAME = "bert_model.ckpt"

# A classifier's head may have another size than the one in the checkpoint, when it was trained for
# other labels; it then starts anew. No other variable may.
HEADS = ("output_weights", "output_bias")

_NOT_WEIGHTS = re.compile(r"(^|/)(adam_[mv]|global_step|lamb_[mv])$|^_CHECKPOINTABLE|^save_counter")


# --- Finding ---


def find(path: str, flag: str) -> str:
    """Returns the checkpoint that `path` means: a prefix, a V1 file, .safetensors or their index.

    Args:
      path: a directory, a prefix, an .index or .data file, a V1 file, a .safetensors file or its
        index.
      flag: the flag it was given with, for messages.

    Raises:
      UserError: there is no checkpoint of a kind that can be read.
    """
    if files.is_directory(path):
        return _find_in_directory(path, flag)
    prefix = re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", path)
    if files.exists(f"{prefix}.index"):
        return prefix
    if not files.exists(path):
        raise UserError(
            f"--{flag}={path}: no checkpoint there; expected a prefix such as bert_model.ckpt, its"
            " .index file, a directory or a model.safetensors"
        )
    if path.endswith(_PICKLES):
        raise UserError(f"--{flag}={path}: {_about_pickle(path)}")
    index = os.path.join(os.path.dirname(path), SHARDED)
    if re.search(r"-\d+-of-\d+\.safetensors$", path) and files.exists(index):
        return index
    return path


_PICKLES = (".bin", ".pt", ".pth")


def _about_pickle(path: str) -> str:
    """Returns why weights in a pickle are not read, and the command that makes them readable."""
    directory = os.path.dirname(path) or "."
    # Of several files that the weights are divided among, all.
    pattern = re.sub(r"-\d+-of-(\d+)(\.\w+)$", r"-*-of-\1\2", path)
    command = (
        "import glob, torch, safetensors.torch as s; s.save_file({k: v.clone().contiguous() for f"
        f" in glob.glob('{pattern}') for k, v in torch.load(f, map_location='cpu',"
        f" weights_only=True).items()}}, '{os.path.join(directory, SAFETENSORS)}')"
    )
    return (
        "a pickle, which can run any code when read; expected safetensors; where torch is"
        f' installed, this command makes them of it: python -c "{command}"'
    )


def _find_in_directory(directory: str, flag: str) -> str:
    latest = tf.train.latest_checkpoint(directory)
    if latest:
        return latest
    for name in (GOOGLE_NAME, SAFETENSORS, SHARDED):
        candidate = os.path.join(directory, name)
        if files.exists(candidate) or files.exists(f"{candidate}.index"):
            return candidate
    prefixes = sorted(
        name[: -len(".index")] for name in tf.io.gfile.listdir(directory) if name.endswith(".index")
    )
    if len(prefixes) == 1:
        return os.path.join(directory, prefixes[0])
    if prefixes:
        named = f"--{'init_checkpoint' if flag == 'bert_dir' else flag}"
        raise UserError(
            f"--{flag}={directory}: several checkpoints ({', '.join(prefixes)}) in it; expected"
            f" one; name it, {named}={os.path.join(directory, prefixes[-1])} say, or leave only"
            " that one there"
        )
    names = sorted(name.strip("/") for name in tf.io.gfile.listdir(directory))
    pickles = [name for name in names if name.endswith(_PICKLES) and name not in _NO_WEIGHTS]
    if pickles:
        raise UserError(
            f"--{flag}={directory}: {pickles[0]} in it is"
            f" {_about_pickle(os.path.join(directory, pickles[0]))}"
        )
    others = [name for name in names if name in _OTHER_FORMATS]
    found = f"no checkpoint but {', '.join(others)}" if others else "no checkpoint"
    raise UserError(
        f"--{flag}={directory}: {found} in it; expected {GOOGLE_NAME}, {SAFETENSORS} or a training"
        " output; copy the model's weights there"
    )


# Pickles that lie beside a model's weights, and weights that are not read.
_NO_WEIGHTS = ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt")
_OTHER_FORMATS = ("tf_model.h5", "flax_model.msgpack", "model.onnx")


def shapes(checkpoint: str) -> dict[str, list[int]]:
    """Returns variable name -> shape of a TensorFlow checkpoint."""
    try:
        return tf.train.load_checkpoint(checkpoint).get_variable_to_shape_map()
    except Exception as error:
        raise UserError(
            f"{checkpoint}: cannot be read as a checkpoint ({_first_line(error)})"
        ) from None


def shapes_and_types(checkpoint: str) -> dict[str, tuple[list[int], np.dtype]]:
    """Returns shape and type of every variable, those of training and copies too, by their names.

    Args:
      checkpoint: as `find` returns it.
    """
    if _is_safetensors(checkpoint):
        tensors = _read_tensors(checkpoint)
        return {name: (list(value.shape), value.dtype) for name, value in tensors}
    reader = tf.train.load_checkpoint(checkpoint)
    types = reader.get_variable_to_dtype_map()
    return {
        name: (shape, np.dtype(types[name].as_numpy_dtype))
        for name, shape in reader.get_variable_to_shape_map().items()
    }


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


# What training writes to its directory, beside the model's files.
_TRAINED = (
    "checkpoint",
    "model.ckpt-*",
    "input.ckpt-*",
    "graph.pbtxt",
    "events.out.tfevents.*",
    "training_log.jsonl",
    "best/*",
    "calibration.json",
)


def begin(directory: str, resume: bool, overwrite: bool) -> None:
    """Makes a directory ready for training: to go on, or to start anew.

    Raises:
      UserError: it holds a checkpoint, and neither going on nor overwriting is wanted.
    """
    if overwrite:
        paths = [
            path
            for pattern in _TRAINED
            for path in tf.io.gfile.glob(os.path.join(glob.escape(directory), pattern))
        ]
        for path in paths:
            tf.io.gfile.remove(path)
        if paths:
            logging.info("%s: %d files of an earlier run removed", directory, len(paths))
        return
    leave_damaged(directory)
    latest = tf.train.latest_checkpoint(directory)
    if latest and not resume:
        raise UserError(
            f"--noresume, but {latest} is there; pass --resume to go on from it, or"
            f" {to_begin_anew()}"
        )


def to_begin_anew() -> str:
    """Returns what to do for a new start, in words."""
    if cluster.size() > 1:  # where --overwrite is refused
        return "use another --output_dir to begin anew"
    return "pass --overwrite to begin anew (another --output_dir keeps both)"


def leave_damaged(directory: str) -> None:
    """Makes the last checkpoint of an output directory that can be read the latest one.

    A machine that goes down may leave the last one incomplete; the one before is as good a place to
    go on from.
    """
    state = tf.train.get_checkpoint_state(directory)
    prefixes = list(state.all_model_checkpoint_paths) if state else []
    for index in reversed(range(len(prefixes))):
        damage = _damage(prefixes[index])
        if damage is None:
            if index < len(prefixes) - 1:
                tf.train.update_checkpoint_state(directory, prefixes[index], prefixes[: index + 1])
            return
        logging.warning("%s cannot be read (%s); taking the one before", prefixes[index], damage)
    if prefixes:
        raise UserError(
            f"{directory}: none of its checkpoints can be read; remove it, or use another"
            " --output_dir"
        )


def _damage(prefix: str) -> Optional[str]:
    """Returns what is wrong with a checkpoint, reading all of it; None if nothing is."""
    try:
        reader = tf.train.load_checkpoint(prefix)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except Exception as error:
        return _first_line(error)
    return None


# --- Hugging Face's names ---

# Copies of the word embeddings and the output bias, and a constant.
_HUGGING_FACE_COPIES = re.compile(r"cls\.predictions\.decoder\.|embeddings\.position_ids$")

# What the last part of a name becomes; the first ending that fits is taken.
_HUGGING_FACE_ENDINGS = (
    ("LayerNorm.weight", "LayerNorm.gamma"),
    ("LayerNorm.bias", "LayerNorm.beta"),
    ("_embeddings.weight", "_embeddings"),
    ("cls.predictions.bias", "cls.predictions.output_bias"),
    ("seq_relationship.weight", "seq_relationship.output_weights"),
    ("seq_relationship.bias", "seq_relationship.output_bias"),
    ("classifier.weight", "output_weights"),
    ("classifier.bias", "output_bias"),
    (".weight", ".kernel"),
)


def name_from_hugging_face(name: str) -> Optional[str]:
    """Returns the published name of one of Hugging Face's weights; None for copies and constants.

    For example bert.encoder.layer.0.attention.self.query.weight, or the same without "bert.", is
    bert/encoder/layer_0/attention/self/query/kernel.
    """
    if _HUGGING_FACE_COPIES.search(name):
        return None
    name = name.removeprefix("bert.")
    if name.startswith(("embeddings.", "encoder.", "pooler.")):
        name = f"bert.{name}"
    name = re.sub(r"\.layer\.(\d+)\.", r".layer_\1.", name)
    for ending, published in _HUGGING_FACE_ENDINGS:
        if name.endswith(ending):
            name = name.removesuffix(ending) + published
            break
    return name.replace(".", "/")


def read_safetensors(path: str) -> dict[str, np.ndarray]:
    """Returns the weights of a .safetensors file, float32, under their published names.

    Of an index, the weights of all files that it lists. torch keeps the kernel of a linear layer as
    [out, in], BERT's checkpoints as [in, out].
    """
    weights: dict[str, np.ndarray] = {}
    for original, tensor in _read_tensors(path):
        name = name_from_hugging_face(original)
        if name is not None:
            value = tensor.astype(np.float32)
            weights[name] = value.T if name.endswith("/kernel") else value
    return weights


def _is_safetensors(checkpoint: str) -> bool:
    return checkpoint.endswith((".safetensors", ".safetensors.index.json"))


def _read_tensors(path: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yields names and values of a .safetensors file, or of all that an index lists."""
    import safetensors

    for part in _parts(path):
        try:
            with safetensors.safe_open(part, framework="np") as reader:
                for name in reader.keys():  # noqa: SIM118 (this reader is no dict)
                    yield name, reader.get_tensor(name)
        except (OSError, safetensors.SafetensorError) as error:
            raise UserError(
                f"{part}: cannot be read as safetensors ({_first_line(error)})"
            ) from None


def _parts(path: str) -> list[str]:
    """Returns the .safetensors files of a checkpoint."""
    if not path.endswith(".json"):
        return [path]
    try:
        names = sorted(set(json.loads(files.read_text(path))["weight_map"].values()))
        parts = [os.path.join(os.path.dirname(path), name) for name in names]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{path}: no weight_map in it; expected the index of a model's .safetensors files"
        ) from None
    for part in parts:
        if not files.exists(part):
            raise UserError(
                f"{path} lists {os.path.basename(part)}, which is not there; copy all files of the"
                " model"
            )
    return parts


def read(checkpoint: str) -> dict[str, np.ndarray]:
    """Returns the weights of a checkpoint by their published names, without optimizer state.

    Args:
      checkpoint: as `find` returns it.
    """
    if _is_safetensors(checkpoint):
        return read_safetensors(checkpoint)
    there = shapes(checkpoint)
    reader = tf.train.load_checkpoint(checkpoint)
    if object_based.is_object_based(there):
        return object_based.read(reader, checkpoint)
    names = [name for name in there if not _NOT_WEIGHTS.search(name)]
    return {name: reader.get_tensor(name) for name in names}


class Weights(NamedTuple):
    """A TensorFlow checkpoint to start from, and the path it is known by to the user."""

    prefix: str
    source: str


@contextlib.contextmanager
def as_tensorflow(checkpoint: Optional[str]) -> Iterator[Optional[Weights]]:
    """Yields a checkpoint of the same weights with the published names: itself, or a copy.

    One format means one way of restoring, the one that strategies and TPUs support.
    """
    if checkpoint is None:
        yield None
    elif not _is_safetensors(checkpoint) and not object_based.is_object_based(shapes(checkpoint)):
        yield Weights(checkpoint, checkpoint)
    else:
        with tempfile.TemporaryDirectory(prefix="bert-toolkit-") as directory:
            prefix = os.path.join(directory, GOOGLE_NAME)
            save(prefix, read(checkpoint))
            yield Weights(prefix, checkpoint)


def save(prefix: str, weights: Mapping[str, np.ndarray]) -> None:
    """Writes a TensorFlow checkpoint of arrays by name."""
    os.makedirs(os.path.dirname(prefix), exist_ok=True)
    names = sorted(weights)
    with files.io_errors(prefix), tf.Graph().as_default(), tf.Session() as session:
        values = [tf.placeholder(weights[name].dtype, weights[name].shape) for name in names]
        operation = tf.raw_ops.SaveV2(
            prefix=prefix, tensor_names=names, shape_and_slices=[""] * len(names), tensors=values
        )
        session.run(operation, {value: weights[name] for value, name in zip(values, names)})


# --- Initialising ---


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
    here = {variable.op.name: variable.shape.as_list() for variable in variables}
    common = [name for name in here if name in there]
    resized = [name for name in common if here[name] != list(there[name])]
    for name in resized:
        if name not in HEADS:
            raise UserError(
                f"{source}: {name} has shape {there[name]}, but the model's config makes it"
                f" {here[name]}; use the config that belongs to this checkpoint"
            )
    restored = [name for name in common if name not in resized]
    if not any(name.startswith("bert/") for name in restored):
        found = sorted(name for name in there if not _NOT_WEIGHTS.search(name))
        raise UserError(
            f"{source}: none of its variables belongs to a BERT encoder (it has"
            f" {some(found, 3)}); expected names such as bert/embeddings/word_embeddings"
        )
    return Fit(
        restored=restored,
        absent=[name for name in here if name not in there],
        resized=resized,
        unused=sorted(name for name in there if name not in here and not _NOT_WEIGHTS.search(name)),
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
    tf.train.init_from_checkpoint(weights.prefix, {name: name for name in fitting.restored})


def assign(session: Any, weights: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
    """Initialises variables of a session's graph with arrays; quicker than by a checkpoint."""
    variables = {variable.op.name: variable for variable in tf.global_variables()}
    values = {variables[name].initial_value: weights[name] for name in names}
    session.run([variables[name].initializer for name in names], values)


def check_same_model(checkpoint: str, variables: Sequence[Any]) -> None:
    """Raises a UserError if the `checkpoint` in an output directory has not these `variables`."""
    there = shapes(checkpoint)
    for variable in variables:
        name, shape = variable.op.name, variable.shape.as_list()
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
