"""Trained networks as files that programs load without this project: SavedModel and TFLite."""

import copy
import dataclasses
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence

import tensorflow.compat.v1 as tf
from absl import logging

import modeling
from bert_toolkit.checkpoints import model_directory, restore
from bert_toolkit.compute import DEFAULT_COMPUTE, ComputeOptions
from bert_toolkit.features import vectors
from bert_toolkit.features.layers import Layer
from bert_toolkit.io import files
from bert_toolkit.problems import MULTI, SINGLE, Problem
from bert_toolkit.tasks.answering import span_network
from bert_toolkit.tasks.classification import calibration, classifier_network
from bert_toolkit.tasks.tagging import network as tagger_network
from bert_toolkit.tasks.tagging.data import Model as TaggingModel
from bert_toolkit.text import in_graph, tokenizer_config
from bert_toolkit.training.estimator_api import PREDICT

INPUTS = ("input_ids", "input_mask", "segment_ids")

# (features, compute) -> output by name, batch first
Answers = Callable[[Mapping[str, tf.Tensor], ComputeOptions], dict[str, tf.Tensor]]


@dataclasses.dataclass(frozen=True)
class Exported:
    """What is exported: a network with its weights, and what it reads.

    Attributes:
      files: config, vocabulary and tokenizer rules.
      checkpoint: the weights, as `checkpoint_files.find` returns it.
      answers: builds the network.
      labels: of a classifier or a tagger.
      takes_text: whether answers say something of a text, rather than of its tokens.
    """

    files: model_directory.ModelFiles
    checkpoint: str
    answers: Answers
    labels: Sequence[str] = ()
    takes_text: bool = True


def classifier(
    config: modeling.BertConfig, problem: Problem, calibrated: calibration.Calibration
) -> Answers:
    """Returns what builds a classifier: logits, calibrated probabilities, and the label.

    Outputs are "logits" and "probabilities" [B, labels] with "label", string [B], of one label;
    "predicted", bool [B, labels], of several ("given" in earlier versions); or "value" [B].
    """

    def build(features: Mapping[str, tf.Tensor], compute: ComputeOptions) -> dict[str, tf.Tensor]:
        network = classifier_network.network(config, problem, compute)
        logits = network(features, PREDICT).predictions["logits"]  # [B, outputs]
        scaled = logits / calibrated.temperature
        if problem.kind == MULTI:
            probabilities = tf.sigmoid(scaled)
            thresholds = 0.5 if calibrated.thresholds is None else calibrated.thresholds
            predicted = probabilities >= tf.constant(thresholds, tf.float32)
            found = {"logits": logits, "probabilities": probabilities, "predicted": predicted}
            return {**found, "given": tf.identity(predicted)}
        if problem.kind == SINGLE:
            probabilities = tf.nn.softmax(scaled)
            label = tf.gather(tf.constant(problem.labels), tf.argmax(probabilities, -1))
            sure = tf.reduce_max(probabilities, -1) >= calibrated.reject_below
            label = tf.where_v2(sure, label, calibration.OTHER)
            return {"logits": logits, "probabilities": probabilities, "label": label}
        return {"value": logits[:, 0]}

    return build


def answerer(config: modeling.BertConfig) -> Answers:
    """Returns what builds a network that answers questions.

    Outputs are "start_logits" and "end_logits" [B, S]; question and text are one sequence.
    """

    def build(features: Mapping[str, tf.Tensor], compute: ComputeOptions) -> dict[str, tf.Tensor]:
        logits = span_network.network(config, compute)(features, PREDICT).predictions["logits"]
        return {"start_logits": logits[:, :, 0], "end_logits": logits[:, :, 1]}

    return build


def tagger(config: modeling.BertConfig, model: TaggingModel) -> Answers:
    """Returns what builds a tagger: "logits" and "probabilities" [B, S, L], "label_ids" [B, S].

    With a CRF also its "transitions" [B, L, L], the same for each sequence; the others are of each
    token by itself, without them.
    """

    def build(features: Mapping[str, tf.Tensor], compute: ComputeOptions) -> dict[str, tf.Tensor]:
        network = tagger_network.network(config, model.problem.labels, model.crf_scheme, compute)
        found = dict(network(features, PREDICT).predictions)
        found["probabilities"] = tf.nn.softmax(found["logits"])
        found["label_ids"] = tf.argmax(found["logits"], -1, output_type=tf.int32)
        return found

    return build


def encoder(
    config: modeling.BertConfig, layers: Sequence[Layer], made_of: vectors.Vectors
) -> Answers:
    """Returns what builds an encoder: "vector" [B, D] or "states" [B, S, D]."""

    def build(features: Mapping[str, tf.Tensor], compute: ComputeOptions) -> dict[str, tf.Tensor]:
        network = vectors.network(config, layers, compute, made_of)
        found = network(features, PREDICT).predictions
        if made_of.pooling != "none":
            return {"vector": found["vector"]}
        return {"states": found["combined"]}

    return build


def write_saved_model(
    exported: Exported, output_dir: str, with_text: bool, max_seq_length: int
) -> str:
    """Writes the next version of a SavedModel, OUTPUT_DIR/1 and so on; returns its directory.

    Signatures: "serving_default" of token ids; with text also "text" and "text_pair". The directory
    appears as a whole, as TensorFlow Serving looks into it.
    """
    version = next_version(output_dir)
    unfinished = os.path.join(output_dir, f"unfinished-{version}")
    directory = os.path.join(output_dir, str(version))
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        _save(exported, unfinished, with_text, max_seq_length)
        os.rename(unfinished, directory)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return directory


def _save(exported: Exported, directory: str, with_text: bool, max_seq_length: int) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="bert-toolkit-") as made,
        tf.Graph().as_default(),
        tf.Session() as session,
    ):
        assets = write_assets(exported, made)
        signatures = {"serving_default": _token_signature(exported.answers, DEFAULT_COMPUTE)}
        if with_text:
            signatures |= _text_signatures(exported, max_seq_length, made)
        _load_weights(session, exported)
        session.run(tf.tables_initializer())
        _add_assets(assets)
        builder = tf.saved_model.builder.SavedModelBuilder(directory)
        builder.add_meta_graph_and_variables(
            session,
            [tf.saved_model.SERVING],
            signature_def_map={
                name: tf.saved_model.signature_def_utils.predict_signature_def(*signature)
                for name, signature in signatures.items()
            },
            assets_collection=tf.get_collection(tf.GraphKeys.ASSET_FILEPATHS),
            main_op=tf.tables_initializer(),
            strip_default_attrs=True,
        )
        with files.io_errors(directory):
            builder.save()


Signature = tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]


def _token_signature(answers: Answers, compute: ComputeOptions) -> Signature:
    inputs = {name: tf.placeholder(tf.int32, [None, None], name) for name in INPUTS}
    with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
        return inputs, answers(inputs, compute)


def _text_signatures(exported: Exported, max_seq_length: int, assets: str) -> dict[str, Signature]:
    vocab_file = os.path.join(assets, model_directory.VOCABULARY)
    tokenizer = in_graph.GraphTokenizer(vocab_file, exported.files.rules)
    text, first, second = (
        tf.placeholder(tf.string, [None], name) for name in ("text", "text_a", "text_b")
    )
    signatures = {}
    for name, inputs, features in (
        ("text", {"text": text}, tokenizer.features(text, None, max_seq_length)),
        (
            "text_pair",
            {"text_a": first, "text_b": second},
            tokenizer.features(first, second, max_seq_length),
        ),
    ):
        with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
            signatures[name] = (inputs, exported.answers(features, DEFAULT_COMPUTE))
    return signatures


def _load_weights(session: tf.Session, exported: Exported) -> None:
    """Gives the variables of the graph their trained values.

    Raises:
      UserError: the checkpoint lacks one.
    """
    fitting = restore.load(session, exported.checkpoint)
    if set(fitting.unused) & set(restore.HEADS):
        logging.warning(
            "%s: has a classifier's head, but no task.json says what it predicts; its vectors are"
            " exported",
            exported.checkpoint,
        )


def _add_assets(paths: Sequence[str]) -> None:
    """Files that go with the model: its vocabulary, and labels by their lines."""
    there = tf.get_collection(tf.GraphKeys.ASSET_FILEPATHS)  # the table's vocabulary
    for path in paths:
        if not there or os.path.basename(path) != model_directory.VOCABULARY:
            tf.add_to_collection(tf.GraphKeys.ASSET_FILEPATHS, tf.constant(path))


def next_version(output_dir: str) -> int:
    """Returns 1 more than the newest version in a directory."""
    names = tf.io.gfile.listdir(output_dir) if files.exists(output_dir) else []
    versions = [int(name.strip("/")) for name in names if re.fullmatch(r"\d+/?", name)]
    return max(versions, default=0) + 1


def write_serving_config(output_dir: str, name: str) -> str:
    """Writes what TensorFlow Serving takes as --model_config_file; returns its path."""
    path = os.path.join(output_dir, "models.config")
    base = output_dir if "://" in output_dir else os.path.abspath(output_dir)
    lines = ["model_config_list {", "  config {", f'    name: "{name}"', f'    base_path: "{base}"']
    lines += ['    model_platform: "tensorflow"', "  }", "}"]
    files.write_text(path, "\n".join(lines) + "\n")
    return path


def for_tflite(config: modeling.BertConfig) -> modeling.BertConfig:
    """Returns the config with gelu in the form that TFLite has an operation for."""
    if str(config.hidden_act).lower() != "gelu":
        return config
    config = copy.copy(config)
    config.hidden_act = lambda x: 0.5 * x * (1.0 + tf.math.erf(x * math.sqrt(0.5)))  # type: ignore[assignment]
    return config


def write_tflite(exported: Exported, path: str, dtype: str) -> None:
    """Writes a TFLite model of the token-id signature, with a batch and a length of any size.

    Weights are stored as "float32", as "float16", or by dynamic-range quantization as "int8"
    (Jacob et al., 2018, https://arxiv.org/abs/1712.05877): activations stay float32 between
    matrix products.
    """

    # Strings are for people; other programs have the labels file.
    def answers(features: Mapping[str, tf.Tensor], compute: ComputeOptions) -> dict[str, tf.Tensor]:
        found = exported.answers(features, compute)
        return {name: value for name, value in found.items() if value.dtype != tf.string}

    with tf.Graph().as_default(), tf.Session() as session:
        inputs, outputs = _token_signature(answers, ComputeOptions(remove_padding=False))
        _load_weights(session, exported)
        frozen = tf.graph_util.convert_variables_to_constants(
            session, session.graph_def, [output.op.name for output in outputs.values()]
        )
        del session
    with tf.Graph().as_default(), tf.Session() as session:
        names = [tensor.name for tensor in (*inputs.values(), *outputs.values())]
        tensors = tf.import_graph_def(frozen, return_elements=names, name="")
        converter = tf.lite.TFLiteConverter.from_session(
            session, tensors[: len(inputs)], tensors[len(inputs) :]
        )
        if dtype != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if dtype == "float16":
            converter.target_spec.supported_types = [tf.float16]
        data = converter.convert()
    with files.replacing([path]) as [name], files.open_binary(name, "wb") as writer:
        writer.write(data)


def write_assets(exported: Exported, directory: str) -> list[str]:
    """Writes the files that go with a model, vocabulary and labels; returns their paths."""
    paths = []
    if exported.files.vocab_file:
        paths.append(os.path.join(directory, model_directory.VOCABULARY))
        tokenizer_config.write_vocabulary(exported.files.vocab_file, paths[0])
    if exported.labels:
        paths.append(os.path.join(directory, model_directory.LABELS))
        files.write_text(paths[-1], "".join(f"{label}\n" for label in exported.labels))
    return paths
