"""A pretrained model with one of its heads in a session, from Python; see encoder.py."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, NamedTuple, Optional

import modeling
from bert_toolkit.checkpoints import model_directory
from bert_toolkit.errors import UserError
from bert_toolkit.inference.encoder import InferenceSession, TextModel, arguments_named
from bert_toolkit.options import ModelOptions
from bert_toolkit.pretraining import network
from bert_toolkit.training.outputs import Network


class Head(NamedTuple):
    """A head, and what is asked of it.

    Attributes:
      name: for messages.
      network: from a model's config to its network.
      output: the prediction that is wanted.
      more_inputs: features beside those of a sequence.
    """

    name: str
    network: Callable[[modeling.BertConfig], Network]
    output: str
    more_inputs: tuple[str, ...] = ()


def masked_lm(output: str, *more_inputs: str) -> Head:
    """Returns the head for masked tokens; `output` as `network.masked_lm_network` names it."""
    return Head("masked-LM", _masked_lm_network, output, ("masked_lm_positions", *more_inputs))


def _masked_lm_network(config: modeling.BertConfig) -> Network:
    if getattr(config, "tie_word_embeddings", True) is False:
        raise UserError(
            "the model's config: tie_word_embeddings is false; expected a masked-LM head that"
            " shares its weights with the word embeddings, as BERT's does; use another model"
        )
    return network.masked_lm_network(config)


NEXT_SENTENCE = Head("next-sentence", network.next_sentence_network, "probabilities")


class PretrainedModel(TextModel):
    """A model with the head HEAD; WHOLE are tokens that stay whole in text."""

    HEAD: ClassVar[Head]
    WHOLE: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        bert_dir: str,
        max_seq_length: Optional[int] = None,
        init_checkpoint: Optional[str] = None,
    ):
        """Loads a model directory of any layout.

        Args:
          bert_dir: the directory.
          max_seq_length: longest sequence in tokens; None for as many as the model has positions.
          init_checkpoint: other weights than those in the directory.

        Raises:
          UserError: a file is missing or does not fit, or the weights lack the head.
        """
        with arguments_named():
            options = ModelOptions(bert_dir=bert_dir, init_checkpoint=init_checkpoint)
            self._load(options, max_seq_length)

    def _load(self, options: ModelOptions, max_seq_length: Optional[int]) -> None:
        files = model_directory.find(options)
        checkpoint = files.init_checkpoint
        assert checkpoint
        whole = tuple(dict.fromkeys((*files.rules.never_split, *self.WHOLE)))
        files = dataclasses.replace(
            files, rules=dataclasses.replace(files.rules, never_split=whole)
        )
        self._model = InferenceSession(
            files,
            checkpoint,
            self.HEAD.network,
            self.HEAD.output,
            max_seq_length,
            self.HEAD.more_inputs,
            f"use a model with the {self.HEAD.name} head, such as run_pretraining.py and the"
            " published checkpoints have it",
        )
        self._check(checkpoint)

    def _check(self, checkpoint: str) -> None:
        """Raises a UserError if the head is there, but cannot be used."""
