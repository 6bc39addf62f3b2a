"""Entities of texts from Python; see encoder.py.

from bert_toolkit import TokenClassifier

with TokenClassifier("out/tags") as tagger:
    [[entity]] = tagger.tag(["The train to Norby is late."])
    print(entity.text, entity.type, entity.start, entity.end)
"""

from collections.abc import Sequence
from typing import Any, Optional, Union

from bert_toolkit.checkpoints import checkpoint_files
from bert_toolkit.inference.encoder import InferenceSession, TextModel, arguments_named
from bert_toolkit.inference.trained import Trained, find_for
from bert_toolkit.options import ModelOptions
from bert_toolkit.problems import TAGGING
from bert_toolkit.results import Entity
from bert_toolkit.tasks.tagging import crf, data, formats, network
from bert_toolkit.tasks.tagging.answers import Decoder
from bert_toolkit.tasks.tagging.words import WordEncoder, join

TextOrWords = Union[str, Sequence[str]]


def model_of(trained: Trained) -> data.Model:
    """Returns what a trained tagger predicts."""
    return data.model_of(trained.problem, trained.settings)


class TokenClassifier(TextModel):
    """Finds entities by a tagger: run_token_classifier.py's, or one in Hugging Face's layout."""

    def __init__(
        self,
        model_dir: str,
        max_seq_length: int = 128,
        doc_stride: int = 0,
        init_checkpoint: Optional[str] = None,
    ):
        """Loads the model of a directory: of an output directory the best, or the last.

        Raises:
          UserError: there is none, or it is for another task.
        """
        with arguments_named(bert_dir="model_dir"):
            options = ModelOptions(bert_dir=model_dir, init_checkpoint=init_checkpoint)
            trained = find_for(options, [TAGGING], "a trained tagger")
            model = model_of(trained)
            self.labels = model.problem.labels
            self._model = InferenceSession(
                trained.files,
                trained.checkpoint,
                lambda config: network.network(config, self.labels, model.crf_scheme),
                "logits",
                max_seq_length,
            )
        chain = None
        if model.crf:
            weights = checkpoint_files.read(trained.checkpoint)
            chain = crf.Chain(weights[crf.VARIABLE], crf.Rules.of(self.labels, model.scheme))
        self._decoder = Decoder(self.labels, chain)
        self._encoder = WordEncoder(self._model.tokenizer, max_seq_length, doc_stride)

    def tag(
        self, texts: Sequence[TextOrWords], batch_size: Optional[int] = None
    ) -> list[list[Entity]]:
        """Returns the entities of each text; a text is a string, or a list of its words."""
        if isinstance(texts, str):
            raise TypeError("expected a list of texts, not one text")
        found: list[tuple[list[str], str, Any]] = []  # words, text, their characters in it
        for text in texts:
            if isinstance(text, str):
                its_words = formats.text_words(self._model.tokenizer, text)
                found.append((its_words.texts, text, its_words.offsets))
            else:
                found.append((list(text), "", ()))
        outputs = self._outputs([words for words, _, _ in found], batch_size)
        return [
            self._decoder.entities(values, words, text, offsets)
            for values, (words, text, offsets) in zip(outputs, found)
        ]

    def tags(
        self, sentences: Sequence[Sequence[str]], batch_size: Optional[int] = None
    ) -> list[list[str]]:
        """Returns the tag of each word of sentences, which are lists of words."""
        return [self._decoder.tags(values) for values in self._outputs(sentences, batch_size)]

    def _outputs(self, sentences: Sequence[Sequence[str]], batch_size: Optional[int]) -> list:
        """Returns the outputs for the words of each sentence, [T, L]."""
        parts = [self._encoder.encode(words) for words in sentences]
        encoded = [part.encoded for of_one in parts for part in of_one]
        states = iter(self._model.run_encoded(encoded, batch_size))
        return [
            join(
                [(part.first_word, next(states)[part.places]) for part in of_one],
                len(words),
                len(self.labels),
            )
            for words, of_one in zip(sentences, parts)
        ]
