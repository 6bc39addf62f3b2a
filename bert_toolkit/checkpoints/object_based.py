"""TensorFlow 2's object-based checkpoints of BERT, as tensorflow/models writes them.

Variables are called by the way to them through Python objects, which is another for each version
of that project; attention weights are kept by head.
"""

import re
from collections.abc import Iterable
from typing import Any, Optional

import numpy as np

from bert_toolkit.errors import UserError

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"

# An encoder built from Keras layers in their order: embeddings are 0 to 3, then come the layers,
# then the pooler. The later kind has names instead.
_FIRST_LAYER = 4
_BY_ORDER = re.compile(r"(?:.*/)?layer_with_weights-(\d+)/(.+)")
_BY_NAME = re.compile(r"(?:.*/)?_transformer_layers/(\d+)/(.+)")

_EMBEDDINGS = (
    (r"(layer_with_weights-0|_embedding_layer)/embeddings$", "word_embeddings"),
    (r"masked_lm/embedding_table$", "word_embeddings"),  # the same variable
    (r"(layer_with_weights-1|_position_embedding_layer)/embeddings$", "position_embeddings"),
    (r"(layer_with_weights-2|_type_embedding_layer)/embeddings$", "token_type_embeddings"),
    (r"(layer_with_weights-3|_embedding_norm_layer)/(beta|gamma)$", r"LayerNorm/\2"),
)
_LAYER = (
    (r"_attention_layer/_(query|key|value)_dense/", r"attention/self/\1/"),
    (r"_attention_layer/_output_dense/", "attention/output/dense/"),
    (r"_attention_layer_norm/", "attention/output/LayerNorm/"),
    (r"_intermediate_dense/", "intermediate/dense/"),
    (r"_output_dense/", "output/dense/"),
    (r"_output_layer_norm/", "output/LayerNorm/"),
)
_HEADS = (
    (r"(^|/)_pooler_layer/(kernel|bias)$", r"bert/pooler/dense/\2"),
    (r"(^|/)masked_lm/dense/(kernel|bias)$", r"cls/predictions/transform/dense/\2"),
    (r"(^|/)masked_lm/layer_norm/(beta|gamma)$", r"cls/predictions/transform/LayerNorm/\2"),
    (r"(^|/)masked_lm/output_bias\.Sbias$", "cls/predictions/output_bias"),
    (r"^model/layer_with_weights-1/out_proj/kernel$", "output_weights"),
    (r"^model/layer_with_weights-1/out_proj/bias$", "output_bias"),
)


def is_object_based(names: Iterable[str]) -> bool:
    """Whether a checkpoint with variables of these names is of that kind."""
    return OBJECT_GRAPH in names


def published_name(name: str) -> Optional[str]:
    """Returns the name that a variable has in the published checkpoints; None if it has none."""
    if not name.endswith(_VALUE) or "/.OPTIMIZER_SLOT/" in name:
        return None
    path = name.removesuffix(_VALUE)
    for pattern, target in _HEADS:
        if found := re.search(pattern, path):
            return found.expand(target)
    for pattern, target in _EMBEDDINGS:
        if found := re.search(f"(?:^|/){pattern}", path):
            return f"bert/embeddings/{found.expand(target)}"
    by_name, by_order = _BY_NAME.fullmatch(path), _BY_ORDER.fullmatch(path)
    found, first = (by_name, 0) if by_name else (by_order, _FIRST_LAYER)
    if found is None or int(found[1]) < first:
        return None
    if found[2] in ("kernel", "bias"):
        return f"bert/pooler/dense/{found[2]}"
    for pattern, target in _LAYER:
        part = re.sub(f"^{pattern}", target, found[2])
        if part != found[2]:
            return f"bert/encoder/layer_{int(found[1]) - first}/{part}"
    return None


def read(reader: Any, source: str) -> dict[str, np.ndarray]:
    """Returns the weights of a checkpoint by their published names and in their shapes.

    Args:
      reader: what tf.train.load_checkpoint gives.
      source: its path, for messages.

    Raises:
      UserError: no part of it is known, or two are the same.
    """
    weights: dict[str, np.ndarray] = {}
    for name in sorted(reader.get_variable_to_shape_map()):
        published = published_name(name)
        if published is None:
            continue
        if published in weights:
            raise UserError(f"{source}: {published} is in it twice; expected one BERT encoder")
        weights[published] = _as_published(published, reader.get_tensor(name))
    if not any(name.startswith("bert/encoder/") for name in weights):
        raise UserError(
            f"{source}: an object-based checkpoint, but not of a BERT encoder as tensorflow/models"
            " writes it"
        )
    return weights


def _as_published(name: str, value: np.ndarray) -> np.ndarray:
    """Joins heads: [H, N, D] -> [H, N * D], [N, D, H] -> [N * D, H], [N, D] -> [N * D]."""
    if "/attention/self/" in name:
        return value.reshape(value.shape[0], -1) if name.endswith("kernel") else value.reshape(-1)
    if name.endswith("attention/output/dense/kernel"):
        return value.reshape(-1, value.shape[-1])
    return np.ascontiguousarray(value.T) if name == "output_weights" else value
