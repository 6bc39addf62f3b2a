"""Models as Hugging Face's transformers have them: config.json, model.safetensors."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from bert_toolkit.checkpoints import hugging_face_names
from bert_toolkit.errors import UserError
from bert_toolkit.io import files
from bert_toolkit.problems import ANSWERING, MULTI, REGRESSION, SINGLE, TAGGING, Problem
from bert_toolkit.text import tokenizer_config
from bert_toolkit.text.tokenizer_rules import Rules

if TYPE_CHECKING:  # it imports TensorFlow
    from modeling import BertConfig

CONFIG, WEIGHTS, VOCABULARY = "config.json", "model.safetensors", "vocab.txt"
TOKENIZER = "tokenizer_config.json"

_ACTIVATIONS = {"gelu_tanh": "gelu_new"}
_PROBLEMS = {
    SINGLE: "single_label_classification",
    MULTI: "multi_label_classification",
    REGRESSION: "regression",
}


_CLASSIFIER, _TAGGER = "BertForSequenceClassification", "BertForTokenClassification"
_ANSWERER = "BertForQuestionAnswering"
# Under task_specific_params, which transformers leaves alone.
_SETTINGS = "bert_toolkit"
# The name of a label that nobody has named.
UNNAMED = re.compile(r"LABEL_\d+")


def problem_of(path: str) -> Optional[Problem]:
    """Returns what the model of a config.json predicts; None if it has no head for a task.

    Raises:
      UserError: the file is damaged, or says what cannot be.
    """
    try:
        config = dict(json.loads(files.read_text(path)))
        architectures = config.get("architectures") or ()
        if _ANSWERER in architectures:
            return Problem(ANSWERING)
        if _CLASSIFIER not in architectures and _TAGGER not in architectures:
            return None
        names = {int(number): str(label) for number, label in config.get("id2label", {}).items()}
    except (ValueError, TypeError, AttributeError):
        raise UserError(f"{path}: not a model's config with labels by their numbers") from None
    labels = tuple(names[number] for number in sorted(names)) or ("LABEL_0", "LABEL_1")
    if sorted(names) != list(range(len(names))) or len(set(labels)) < len(labels):
        raise UserError(
            f"{path}: id2label has the labels {names}; expected one for each number from 0, each"
            " once; mend it"
        )
    if _TAGGER in architectures:
        return Problem(TAGGING, labels)
    kinds = {theirs: ours for ours, theirs in _PROBLEMS.items()}
    kind = config.get("problem_type")
    if kind is None:
        kind = _PROBLEMS[REGRESSION if len(labels) == 1 else SINGLE]
    if kind not in kinds:
        raise UserError(
            f"{path}: problem_type is {kind!r}; expected one of {', '.join(kinds)}; mend it"
        )
    if kinds[kind] == REGRESSION and len(labels) > 1:
        raise UserError(
            f"{path}: {len(labels)} numbers are predicted of a text; expected one; use another"
            " model"
        )
    return Problem(kinds[kind], () if kinds[kind] == REGRESSION else labels)


def settings_of(path: str) -> dict[str, Any]:
    """Returns the settings of a task that `write` put into a config.json, if any."""
    try:
        return dict(json.loads(files.read_text(path))["task_specific_params"][_SETTINGS])
    except (ValueError, TypeError, KeyError):
        return {}


def architecture(names: Sequence[str], problem: Optional[Problem] = None) -> str:
    """Returns the class of transformers that has the heads of a model."""
    if "cls/squad/output_weights" in names:
        return _ANSWERER
    if "output_weights" in names:
        return _TAGGER if problem and problem.kind == TAGGING else _CLASSIFIER
    if "cls/seq_relationship/output_weights" in names:
        return "BertForPreTraining"
    if "cls/predictions/output_bias" in names:
        return "BertForMaskedLM"
    return "BertModel"


def write(
    directory: str,
    config: "BertConfig",
    weights: Mapping[str, np.ndarray],
    vocab_file: Optional[str],
    rules: Rules,
    problem: Optional[Problem] = None,
    task_settings: Optional[Mapping[str, Any]] = None,
) -> None:
    """Writes a model directory.

    Args:
      directory: to write to.
      config: sizes of the model.
      weights: by their published names, in the type to store.
      vocab_file: to copy.
      rules: of the tokenizer.
      problem: what the model predicts, if it is known.
      task_settings: what else its task has to know in predicting.

    Raises:
      UserError: it is another network than BERT, which transformers has no class for.
    """
    config.check_is_bert()
    from safetensors.numpy import save

    theirs = architecture(list(weights), problem)
    tensors = {}
    for name, value in weights.items():
        new = hugging_face_names.to_hugging_face(name)
        if theirs == "BertModel":
            new = new.removeprefix("bert.")
        # torch keeps the kernel of a linear layer as [out, in].
        tensors[new] = np.ascontiguousarray(value.T if name.endswith("/kernel") else value)
    dtype = next(iter(weights.values())).dtype.name
    settings = _config(config, theirs, dtype, problem)
    if task_settings:
        settings["task_specific_params"] = {_SETTINGS: dict(task_settings)}
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
    config: "BertConfig",
    theirs: str,
    dtype: str,
    problem: Optional[Problem],
) -> dict[str, Any]:
    settings = config.to_dict()
    activation = settings["hidden_act"]
    settings.update(
        model_type="bert",
        architectures=[theirs],
        torch_dtype=dtype,
        hidden_act=_ACTIVATIONS.get(activation, activation),
    )
    if theirs == _CLASSIFIER:
        settings["problem_type"] = _PROBLEMS[problem.kind if problem else SINGLE]
    if theirs in (_CLASSIFIER, _TAGGER):
        named = (problem.labels if problem else ()) or ("LABEL_0",)
        settings["id2label"] = {str(number): label for number, label in enumerate(named)}
        settings["label2id"] = {label: number for number, label in enumerate(named)}
    return settings


def _tokenizer(config: "BertConfig", rules: Rules) -> dict[str, Any]:
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
