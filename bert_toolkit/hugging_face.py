"""Writing models as Hugging Face's transformers load them: config.json, model.safetensors."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np

from bert_toolkit import files, tokenizer_config
from bert_toolkit.errors import UserError
from bert_toolkit.problems import MULTI, REGRESSION, SINGLE
from bert_toolkit.tokenizers import Rules
from modeling import BertConfig

CONFIG, WEIGHTS, VOCABULARY = "config.json", "model.safetensors", "vocab.txt"
TOKENIZER = "tokenizer_config.json"

# What the last part of a published name becomes.
_ENDINGS = (
    ("cls/predictions/output_bias", "cls/predictions/bias"),
    ("seq_relationship/output_weights", "seq_relationship/weight"),
    ("seq_relationship/output_bias", "seq_relationship/bias"),
    ("output_weights", "classifier/weight"),
    ("output_bias", "classifier/bias"),
    ("LayerNorm/gamma", "LayerNorm/weight"),
    ("LayerNorm/beta", "LayerNorm/bias"),
    ("_embeddings", "_embeddings/weight"),
    ("/kernel", "/weight"),
)
_ACTIVATIONS = {"gelu_tanh": "gelu_new"}
_PROBLEMS = {
    SINGLE: "single_label_classification",
    MULTI: "multi_label_classification",
    REGRESSION: "regression",
}


def name_of(published: str) -> str:
    """Returns Hugging Face's name of a weight; checkpoints.name_from_hugging_face inverts it."""
    name = published
    for ending, theirs in _ENDINGS:
        if name.endswith(ending):
            name = name.removesuffix(ending) + theirs
            break
    return re.sub(r"/layer_(\d+)/", r"/layer/\1/", name).replace("/", ".")


def architecture(names: Sequence[str]) -> str:
    """Returns the class of transformers that has the heads of a model."""
    if "output_weights" in names:
        return "BertForSequenceClassification"
    if "cls/seq_relationship/output_weights" in names:
        return "BertForPreTraining"
    if "cls/predictions/output_bias" in names:
        return "BertForMaskedLM"
    return "BertModel"


def write(
    directory: str,
    config: BertConfig,
    weights: Mapping[str, np.ndarray],
    vocab_file: Optional[str],
    rules: Rules,
    labels: Sequence[str] = (),
    problem_kind: Optional[str] = None,
) -> None:
    """Writes a model directory.

    Args:
      directory: to write to.
      config: sizes of the model.
      weights: by their published names, in the type to store.
      vocab_file: to copy.
      rules: of the tokenizer.
      labels: of a classifier, by id.
      problem_kind: of a classifier, one of problems.KINDS.
    """
    from safetensors.numpy import save

    theirs = architecture(list(weights))
    tensors = {}
    for name, value in weights.items():
        new = name_of(name)
        if theirs == "BertModel":
            new = new.removeprefix("bert.")
        # torch keeps the kernel of a linear layer as [out, in].
        tensors[new] = np.ascontiguousarray(value.T if name.endswith("/kernel") else value)
    dtype = next(iter(weights.values())).dtype.name
    settings = _config(config, theirs, dtype, labels, problem_kind)
    texts = {
        CONFIG: json.dumps(settings, indent=2, sort_keys=True) + "\n",
        TOKENIZER: json.dumps(_tokenizer(config, rules), indent=2) + "\n",
    }
    for name, text in texts.items():
        files.write_text(os.path.join(directory, name), text)
    if vocab_file:
        tokenizer_config.write_vocabulary(vocab_file, os.path.join(directory, VOCABULARY))
    with files.replacing([os.path.join(directory, WEIGHTS)]) as [unfinished]:
        with files.open_binary(unfinished, "wb") as writer:
            writer.write(save(tensors, metadata={"format": "pt"}))


def _config(
    config: BertConfig,
    theirs: str,
    dtype: str,
    labels: Sequence[str],
    problem_kind: Optional[str],
) -> dict[str, Any]:
    settings = config.to_dict()
    activation = settings["hidden_act"]
    settings.update(
        model_type="bert",
        architectures=[theirs],
        torch_dtype=dtype,
        hidden_act=_ACTIVATIONS.get(activation, activation),
    )
    if theirs == "BertForSequenceClassification":
        settings["problem_type"] = _PROBLEMS[problem_kind or SINGLE]
        named = labels or ["LABEL_0"]
        settings["id2label"] = {str(number): label for number, label in enumerate(named)}
        settings["label2id"] = {label: number for number, label in enumerate(named)}
    return settings


def _tokenizer(config: BertConfig, rules: Rules) -> dict[str, Any]:
    return {
        "tokenizer_class": "BertTokenizer",
        "model_max_length": config.max_position_embeddings,
        **rules.to_dict(),
    }


def stored_as(weights: Mapping[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    """Returns weights in another type.

    Raises:
      UserError: a weight is too large for it.
    """
    import tensorflow as tf

    types = {name: tf.as_dtype(name).as_numpy_dtype for name in ("float32", "float16", "bfloat16")}
    with np.errstate(over="ignore"):  # told below
        converted = {name: value.astype(types[dtype]) for name, value in weights.items()}
    for name, value in converted.items():
        if not np.isfinite(value.astype(np.float32)).all():
            raise UserError(f"--dtype={dtype}: {name} has numbers that are too large for it")
    return converted
