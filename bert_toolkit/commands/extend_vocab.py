r"""Adds words to the vocabulary of a model, so that they are tokens of their own.

Reads   a model directory, and words, one a line, or text to find them in.
Writes  a complete model directory for --bert_dir of the other stages.

A new word's embedding (and its output bias) starts as the mean of those of the pieces that the word
was cut into before. New words take the place of [unused] entries first; when those are used up,
the vocabulary and the matrices grow.

Example:
  bert extend-vocab --bert_dir=uncased_L-12_H-768_A-12 --words_file=terms.txt \
    --output_dir=out/with_terms
"""

import collections
import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Optional

import numpy as np
from absl import logging

from bert_toolkit import cli
from bert_toolkit.errors import UserError
from bert_toolkit.io import files
from bert_toolkit.io.progress import Progress
from bert_toolkit.options import ModelOptions, RuleOptions, TokenizerOptions, check, option
from tokenization import UNKNOWN, FullTokenizer

EMBEDDINGS, OUTPUT_BIAS = "bert/embeddings/word_embeddings", "cls/predictions/output_bias"
UNUSED = re.compile(r"\[unused\d+\]")


@dataclasses.dataclass(frozen=True)
class Options(ModelOptions):
    """The options of this stage."""

    words_file: Optional[str] = option(None, "Words to add, one a line.")
    input_file: Optional[str] = option(
        None,
        "Text to find words in: the most frequent that are cut into --min_pieces or more. Files"
        " and glob patterns, separated by commas.",
    )
    num_words: int = option(500, "Most words to add from --input_file.", lower=1)
    min_frequency: int = option(10, "How often a word must occur in --input_file.", lower=1)
    min_pieces: int = option(3, "Into how many pieces a word is cut so far.", lower=2)
    output_dir: str = option("", "Model directory to write.", required=True)
    fill_unused: bool = option(True, "Put words in the place of [unused] entries first.")
    init_checkpoint: Optional[str] = option(None, "The model's weights (or use --bert_dir).")

    GROUPS: ClassVar = {
        "Model": (ModelOptions, TokenizerOptions, RuleOptions),
        "Words": ("words_file", "input_file", "num_words", "min_frequency", "min_pieces"),
        "Output": ("output_dir", "fill_unused"),
    }

    def __post_init__(self):
        conflicts = self.missing_files("bert_config_file", "vocab_file", "init_checkpoint")
        if (self.words_file is None) == (self.input_file is None):
            conflicts.append("pass --words_file or --input_file, and one of them only")
        check(conflicts)


@dataclasses.dataclass(frozen=True)
class Extension:
    """A vocabulary with words added.

    Attributes:
      tokens: all entries in their order.
      pieces: id of each new word -> the ids of the pieces it was cut into before.
    """

    tokens: list[str]
    pieces: dict[int, list[int]]


def run(options: Options) -> Extension:
    """Writes the extended model; returns the vocabulary.

    Raises:
      UserError: an input cannot be used, or there is no word to add.
    """
    from bert_toolkit.checkpoints import checkpoint_files, model_directory, training_notes

    model = model_directory.find(options)
    tokenizer = model.tokenizer()
    vocabulary = training_notes.Vocabulary.of(model.vocab_file or "")
    training_notes.check_vocabulary(model.init_checkpoint or "", vocabulary)
    words = find_words(options, tokenizer)
    extension = extend(tokenizer, words, options.fill_unused)
    if not extension.pieces:
        raise UserError("no word to add: every one is in the vocabulary, or cannot be one token")
    weights = checkpoint_files.read(model.init_checkpoint or "")
    if EMBEDDINGS not in weights:
        raise UserError(f"{model.init_checkpoint}: no {EMBEDDINGS}; expected a BERT model")
    size = max(model.config.vocab_size, len(extension.tokens))
    for name in (EMBEDDINGS, OUTPUT_BIAS):
        if name in weights:
            weights[name] = with_new_rows(weights[name], extension.pieces, size)
    config = model.config.to_dict() | {"vocab_size": size}
    model_directory.write_complete(options.output_dir, model, config, extension.tokens, weights)
    grown = size - model.config.vocab_size
    logging.info(
        "added %d words, %d of them in new rows; the model is in %s",
        len(extension.pieces),
        max(0, grown),
        options.output_dir,
    )
    return extension


def find_words(options: Options, tokenizer: FullTokenizer) -> list[str]:
    """Returns the words of --words_file, or frequent ones of --input_file that are cut to bits."""
    if options.words_file:
        files.check_input(options.words_file, "words_file")
        return [line.strip() for line in files.read_lines(options.words_file) if line.strip()]
    counts: collections.Counter[str] = collections.Counter()
    with Progress("reading", "lines") as progress:
        for name in files.expand_inputs(options.input_file or "", "input_file"):
            for line in files.read_lines(name):
                counts.update(tokenizer.basic_tokenizer.tokenize(line))
                progress.update()
    words: list[str] = []
    for word, count in counts.most_common():
        if count < options.min_frequency or len(words) == options.num_words:
            break
        if len(tokenizer.wordpiece_tokenizer.tokenize(word)) >= options.min_pieces:
            words.append(word)
    return words


def extend(tokenizer: FullTokenizer, words: Iterable[str], fill_unused: bool = True) -> Extension:
    """Finds a place for every word that can be one token and is none yet.

    Args:
      tokenizer: of the model.
      words: to add, in the order of their importance.
      fill_unused: whether [unused] entries may be replaced.
    """
    last = max(tokenizer.vocab.values())
    tokens = [tokenizer.inv_vocab.get(index, "") for index in range(last + 1)]
    kept = tokenizer.basic_tokenizer.whole_tokens  # some models use [unused] entries so
    places = [
        index for index, token in enumerate(tokens) if UNUSED.fullmatch(token) and token not in kept
    ]
    places = list(reversed(places)) if fill_unused else []
    pieces: dict[int, list[int]] = {}
    there = set(tokens)
    for word in words:
        parts = tokenizer.basic_tokenizer.tokenize(word)
        if len(parts) != 1:
            logging.warning("%s: left out, as it is cut at punctuation or spaces", word)
            continue
        (token,) = parts
        if token in there:
            logging.info("%s: in the vocabulary already", word)
            continue
        there.add(token)
        place = places.pop() if places else len(tokens)
        tokens[place : place + 1] = [token]
        pieces[place] = tokenizer.convert_tokens_to_ids(
            tokenizer.wordpiece_tokenizer.tokenize(token)
        )
    unknown = sum(ids == [tokenizer.vocab[UNKNOWN]] for ids in pieces.values())
    if unknown:
        logging.warning("%d words were [UNK] as a whole so far, and start as it", unknown)
    return Extension(tokens, pieces)


def with_new_rows(rows: np.ndarray, pieces: Mapping[int, Sequence[int]], size: int) -> np.ndarray:
    """Returns `rows` with those of new words put in: the mean of the rows of their old pieces.

    Args:
      rows: [V, H] or [V].
      pieces: place of each new row -> places of old rows.
      size: rows of the result.
    """
    grown = np.zeros((size, *rows.shape[1:]), rows.dtype)
    grown[: len(rows)] = rows
    for place, parts in pieces.items():
        grown[place] = rows[list(parts)].mean(axis=0)
    return grown


def entry() -> None:
    """The console command."""
    cli.run(run, Options, __doc__)


if __name__ == "__main__":
    entry()
