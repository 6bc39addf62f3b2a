"""What a student begins with: parts of its teacher, or a model of its own."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from bert_toolkit.errors import UserError
from bert_toolkit.io import files
from bert_toolkit.options import spelled
from bert_toolkit.tasks.distillation_options import BILSTM
from bert_toolkit.training import cluster

# Directories below --output_dir.
START, LOGITS = "start", "teacher_logits"
# The names of weights, or how they begin.
WORD_EMBEDDINGS = "bert/embeddings/word_embeddings"
LAYER = "bert/encoder/layer_"


def with_student(options: Any, trained: Any) -> Any:
    """Returns the options with the student's files, the teacher's where it has none of its own.

    Raises:
      UserError: the teacher has no such layer, or there are several hosts.
    """
    if cluster.size() > 1:
        raise UserError(
            "TF_CONFIG: its cluster has several hosts, but distillation runs on one; run it without"
            " TF_CONFIG"
        )
    files.make_directory(options.output_dir, "output_dir")
    options = dataclasses.replace(options, logits_dir=os.path.join(options.output_dir, LOGITS))
    if options.bert_dir:
        return options
    if options.bert_config_file:
        vocab_file = options.vocab_file or trained.files.vocab_file
        return dataclasses.replace(options, vocab_file=vocab_file)
    directory = os.path.join(options.output_dir, START)
    write_student(directory, options, trained)
    return dataclasses.replace(options, bert_dir=directory)


def write_student(directory: str, options: Any, trained: Any) -> None:
    """Writes a student that is made of a teacher; none if its training has begun."""
    import tensorflow.compat.v1 as tf

    from bert_toolkit.checkpoints import checkpoint_files, model_directory
    from bert_toolkit.tasks.classification import bilstm

    prefix = os.path.join(directory, checkpoint_files.GOOGLE_NAME)
    directories = [options.output_dir, os.path.join(options.output_dir, "run_1")]
    begun = any(map(tf.train.latest_checkpoint, directories)) and not options.overwrite
    if begun and files.exists(f"{prefix}.index"):
        _check_same_layers(directories, options.teacher_layers)
        return
    weights = checkpoint_files.read(trained.checkpoint)
    config = trained.files.config
    if options.student == BILSTM:
        config = bilstm.config_of(config, options.lstm_size)
        weights = {name: value for name, value in weights.items() if name == WORD_EMBEDDINGS}
    else:
        layers = [int(layer) for layer in options.teacher_layers or ()]
        check_layers(layers, config)
        settings = config.to_dict() | {"num_hidden_layers": len(layers)}
        config = type(config).from_dict(settings)
        weights = with_layers(weights, layers)
    files.make_directory(directory)
    student = dataclasses.replace(trained.files, config=config)
    model_directory.write(directory, student)
    checkpoint_files.save(prefix, weights)


def _check_same_layers(directories: Sequence[str], layers: Optional[Sequence[str]]) -> None:
    """Raises a UserError if a student whose training has begun was made of other layers."""
    from bert_toolkit.checkpoints import training_notes

    for directory in directories:
        noted = training_notes.read(directory).get("flags", {}).get("teacher_layers")
        if noted and list(layers or ()) != noted:
            raise UserError(
                f"--teacher_layers={spelled(layers or ())}: the student in {directory} was made of"
                f" layers {spelled(noted)} and has begun to learn; pass these, another"
                " --output_dir, or --overwrite to begin anew"
            )


def check_layers(layers: Sequence[int], config: Any) -> None:
    """Raises a UserError unless a teacher of that config has these layers."""
    config.check_is_bert()
    for layer in layers:
        if layer >= config.num_hidden_layers:
            raise UserError(
                f"--teacher_layers={','.join(map(str, layers))}: no layer {layer}; the teacher has"
                f" {config.num_hidden_layers}, numbered 0 to {config.num_hidden_layers - 1}"
            )


def with_layers(weights: Mapping[str, Any], layers: Sequence[int]) -> dict[str, Any]:
    """Returns the weights of a model with some layers of another; all else stays as it is."""
    found = {name: value for name, value in weights.items() if not name.startswith(LAYER)}
    for new, old in enumerate(layers):
        prefix = f"{LAYER}{old}/"
        for name, value in weights.items():
            if name.startswith(prefix):
                found[f"{LAYER}{new}/{name.removeprefix(prefix)}"] = value
    return found
