"""Checkpoints in every layout: found, read, written."""

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Optional

import numpy as np
import tensorflow.compat.v1 as tf

from bert_toolkit.checkpoints import hugging_face_names, object_based
from bert_toolkit.errors import UserError
from bert_toolkit.io import files
from optimization import EMA

SAFETENSORS = "model.safetensors"
SHARDED = f"{SAFETENSORS}.index.json"  # lists the files that weights are divided among
GOOGLE_NAME = "bert_model.ckpt"

# What only training needs, in the checkpoints of bert distill: no part of a model.
DISTILLATION = "distillation"
NOT_WEIGHTS = re.compile(
    rf"(^|/)(adam_[mv]|global_step|lamb_[mv]|{EMA})$|^{DISTILLATION}/|^_CHECKPOINTABLE|^save_counter"
)


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


def read_safetensors(path: str) -> dict[str, np.ndarray]:
    """Returns the weights of a .safetensors file, float32, under their published names.

    Of an index, the weights of all files that it lists. torch keeps the kernel of a linear layer as
    [out, in], BERT's checkpoints as [in, out].
    """
    weights: dict[str, np.ndarray] = {}
    for original, tensor in _read_tensors(path):
        name = hugging_face_names.to_published(original)
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

    Of a training that averaged its weights (--ema_decay), the averages.

    Args:
      checkpoint: as `find` returns it.
    """
    if _is_safetensors(checkpoint):
        return read_safetensors(checkpoint)
    there = shapes(checkpoint)
    reader = tf.train.load_checkpoint(checkpoint)
    if object_based.is_object_based(there):
        return object_based.read(reader, checkpoint)
    names = [name for name in there if not NOT_WEIGHTS.search(name)]
    averages = {name: f"{name}/{EMA}" for name in names if f"{name}/{EMA}" in there}
    return {name: reader.get_tensor(averages.get(name, name)) for name in names}


def _is_as_read(checkpoint: str) -> bool:
    """Whether a checkpoint has the weights that `read` returns, in the same layout and names."""
    if _is_safetensors(checkpoint):
        return False
    there = shapes(checkpoint)
    averaged = any(name.endswith(f"/{EMA}") for name in there)
    return not averaged and not object_based.is_object_based(there)


class Weights(NamedTuple):
    """A TensorFlow checkpoint to start from, and the path it is known by to the user."""

    prefix: str
    source: str


@contextlib.contextmanager
def as_tensorflow(checkpoint: Optional[str]) -> Iterator[Optional[Weights]]:
    """Yields a checkpoint of the weights that `read` returns: itself, or a copy.

    One format means one way of restoring, the one that strategies and TPUs support.
    """
    if checkpoint is None:
        yield None
    elif _is_as_read(checkpoint):
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
