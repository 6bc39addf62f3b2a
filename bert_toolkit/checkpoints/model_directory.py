"""A model's files: finding them in a directory or by flags, checking that they fit, writing them.

A directory is one of Google's (bert_config.json, vocab.txt, bert_model.ckpt), one of Hugging Face's
(config.json, vocab.txt or tokenizer.json, model.safetensors), or the output of a stage, which looks
like Google's with an Estimator's checkpoints in it and a tokenizer_config.json with the tokenizer's
rules.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np
import tensorflow.compat.v1 as tf
from absl import logging

from bert_toolkit.checkpoints import checkpoint_files, task_file, training_notes
from bert_toolkit.errors import UserError
from bert_toolkit.io import files
from bert_toolkit.options import ModelOptions
from bert_toolkit.text import tokenizer_config, tokenizer_rules
from modeling import BertConfig
from tokenization import FullTokenizer, validate_case_matches_checkpoint

CONFIG, VOCABULARY, LABELS = "bert_config.json", "vocab.txt", "labels.txt"
# What lies beside the checkpoints of a complete model.
FILES = (CONFIG, VOCABULARY, tokenizer_rules.RULES_FILE, LABELS, training_notes.FILE)

# Vocabularies are sometimes padded with unused rows, to a multiple of 8 or 64 that hardware likes.
LARGEST_VOCABULARY_PADDING = 128


@dataclasses.dataclass(frozen=True)
class ModelFiles:
    """What a stage needs to know of a model before it builds it."""

    config_file: str
    config: BertConfig
    vocab_file: Optional[str]
    init_checkpoint: Optional[str]
    rules: tokenizer_rules.Rules

    def tokenizer(self) -> FullTokenizer:
        """Loads the tokenizer; a UserError if there is none or it does not fit the config."""
        if self.vocab_file is None:
            names = " or ".join(tokenizer_config.VOCABULARIES)
            raise UserError(
                f"{os.path.dirname(self.config_file) or '.'}: no {names} in it; expected the"
                " model's own vocabulary; copy it there"
            )
        tokenizer = tokenizer_rules.load(self.vocab_file, self.rules)
        entries, expected = max(tokenizer.vocab.values()) + 1, self.config.vocab_size
        found = f"{self.vocab_file} has {entries:,} entries, {self.config_file} says {expected:,}"
        if not 0 <= expected - entries < LARGEST_VOCABULARY_PADDING:
            less_or_more = "less" if entries < expected else "more"
            raise UserError(
                f"{found}: {abs(expected - entries):,} {less_or_more}. Use this model's own"
                " vocabulary."
            )
        if entries != expected:
            logging.warning(
                "%s; the last %d rows of the model are unused", found, expected - entries
            )
        return tokenizer

    def config_with(self, settings: Mapping[str, Any]) -> BertConfig:
        """Returns the config with other settings, such as the dropout of this training."""
        return BertConfig.from_dict({**self.config.to_dict(), **settings})


def find(options: ModelOptions) -> ModelFiles:
    """Finds and checks the files of the model that the flags name.

    Raises:
      UserError: a file is missing or they do not belong together.
    """
    config_file, vocab_file, checkpoint = (
        options.bert_config_file,
        options.vocab_file,
        options.init_checkpoint,
    )
    if options.bert_dir:
        if not files.is_directory(options.bert_dir):
            raise UserError(f"--bert_dir={options.bert_dir}: no such directory")
        config_file = config_file or _in_directory(options.bert_dir, CONFIG, "config.json")
        vocab_file = vocab_file or _in_directory(options.bert_dir, *tokenizer_config.VOCABULARIES)
        checkpoint = checkpoint or options.bert_dir
        if config_file is None:
            raise UserError(f"--bert_dir={options.bert_dir}: no {CONFIG} or config.json in it")
    if config_file is None:
        raise UserError("--bert_config_file is required (or --bert_dir)")
    files.check_input(config_file, "bert_config_file")
    rules = tokenizer_rules.rules(options, vocab_file)
    if checkpoint:
        validate_case_matches_checkpoint(rules.do_lower_case, checkpoint)
        checkpoint = checkpoint_files.find(
            checkpoint, "bert_dir" if checkpoint == options.bert_dir else "init_checkpoint"
        )
    config = BertConfig.from_json_file(config_file)
    return ModelFiles(config_file, config, vocab_file, checkpoint, rules)


def _in_directory(directory: str, *names: str) -> Optional[str]:
    paths = [os.path.join(directory, name) for name in names]
    return next(filter(files.exists, paths), None)


def check_length(max_seq_length: int, model: ModelFiles, data: Optional[str] = None) -> None:
    """Raises a UserError if sequences may be longer than the model has positions.

    `data` is where the length was taken from, if it was not given.
    """
    positions = model.config.max_position_embeddings
    if max_seq_length <= positions:
        return
    says = f"{model.config_file} says max_position_embeddings {positions}"
    if data:
        raise UserError(
            f"{data}: sequences of {max_seq_length} tokens, but {says}; make the data again with"
            f" --max_seq_length={positions} or less"
        )
    raise UserError(
        f"--max_seq_length={max_seq_length}, but {says}; pass --max_seq_length={positions} or less"
    )


def write(directory: str, model: ModelFiles, labels: Sequence[str] = ()) -> None:
    """Puts config, vocabulary, casing and labels into an output directory, beside its checkpoints.

    Where there are checkpoints, the files beside them belong to them and stay.
    """
    texts = {
        CONFIG: model.config.to_json_string(),
        tokenizer_rules.RULES_FILE: model.rules.to_json(),
    }
    if labels:
        texts[LABELS] = "".join(f"{label}\n" for label in labels)
    fresh = tf.train.latest_checkpoint(directory) is None
    for name, text in texts.items():
        path = os.path.join(directory, name)
        if fresh or not files.exists(path):
            files.write_text(path, text)
    vocab_copy = os.path.join(directory, VOCABULARY)
    if model.vocab_file and (fresh or not files.exists(vocab_copy)):
        tokenizer_config.write_vocabulary(model.vocab_file, vocab_copy)


def write_complete(
    directory: str,
    model: ModelFiles,
    config: Mapping[str, Any],
    tokens: Sequence[str],
    weights: Mapping[str, np.ndarray],
) -> None:
    """Writes a model directory with another config, vocabulary and weights than `model` has.

    Raises:
      UserError: there is a model in it already.
    """
    files.make_directory(directory, "output_dir")
    prefix = os.path.join(directory, checkpoint_files.GOOGLE_NAME)
    if tf.train.latest_checkpoint(directory) or files.exists(f"{prefix}.index"):
        raise UserError(f"--output_dir={directory}: holds a model already; use another directory")
    files.write_text(
        os.path.join(directory, CONFIG), BertConfig.from_dict(dict(config)).to_json_string()
    )
    files.write_text(os.path.join(directory, tokenizer_rules.RULES_FILE), model.rules.to_json())
    text = "".join(f"{token}\n" for token in tokens)
    files.write_text(os.path.join(directory, VOCABULARY), text)
    origin = os.path.dirname(model.init_checkpoint or "")
    problem = task_file.read([origin])
    if problem:
        task_file.write(directory, problem, settings=task_file.settings([origin]))
        labels = "".join(f"{label}\n" for label in problem.labels)
        files.write_text(os.path.join(directory, LABELS), labels)
    elif files.exists(os.path.join(origin, LABELS)):
        files.copy(os.path.join(origin, LABELS), os.path.join(directory, LABELS))
    checkpoint_files.save(prefix, weights)


def check_labels(directory: str, labels: Sequence[str]) -> None:
    """Raises a UserError if an output directory holds a model for other labels."""
    path = os.path.join(directory, LABELS)
    if not files.exists(path) or tf.train.latest_checkpoint(directory) is None:
        return
    there = files.read_text(path).split("\n")[:-1]
    if there != list(labels):
        raise UserError(
            f"{directory} holds a model for the labels {', '.join(there)}, but the task has"
            f" {', '.join(labels)}; use another --output_dir, or remove that one"
        )
