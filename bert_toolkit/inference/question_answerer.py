"""Answers to questions from Python; see encoder.py."""

from collections.abc import Sequence
from typing import Optional

import numpy as np

from bert_toolkit.inference.encoder import InferenceSession, TextModel, arguments_named
from bert_toolkit.inference.trained import find_for
from bert_toolkit.options import ModelOptions
from bert_toolkit.problems import ANSWERING
from bert_toolkit.results import Answer
from bert_toolkit.tasks.answering import span_network
from bert_toolkit.tasks.answering.answers import Answers, Settings
from bert_toolkit.tasks.answering.spans import NBest, QuestionEncoder, best_spans, place_of

# Answers of a question that probabilities are made over, as in run_squad.py.
N_BEST = 20
# Contexts whose tokens are remembered between calls.
REMEMBERED = 64


class QuestionAnswerer(TextModel):
    """Answers questions on texts by a model of run_squad.py, or one in Hugging Face's layout."""

    def __init__(
        self,
        model_dir: str,
        max_seq_length: int = 384,
        doc_stride: int = 128,
        max_query_length: int = 64,
        max_answer_length: int = 30,
        null_score_diff_threshold: Optional[float] = None,
        version_2_with_negative: Optional[bool] = None,
        init_checkpoint: Optional[str] = None,
    ):
        """Loads the model of a directory: of an output directory the best, or the last.

        Arguments mean what those flags of run_squad.py do, and a threshold that there may be no
        answer; windows are at most as long as the model has positions.

        Raises:
          UserError: there is no such model.
        """
        with arguments_named(bert_dir="model_dir"):
            options = ModelOptions(bert_dir=model_dir, init_checkpoint=init_checkpoint)
            trained = find_for(options, [ANSWERING], "a model of run_squad.py")
            self.settings = Settings.of(trained.settings)
            if null_score_diff_threshold is not None:  # as models of other programs need it
                self.settings = Settings(True, null_score_diff_threshold)
            if version_2_with_negative is not None:
                self.settings = self.settings._replace(with_negative=version_2_with_negative)
            length = min(max_seq_length, trained.files.config.max_position_embeddings)
            self._model = InferenceSession(
                trained.files, trained.checkpoint, span_network.network, "logits", length
            )
            self._encoder = QuestionEncoder(
                self._model.tokenizer, length, max_query_length, min(doc_stride, length), REMEMBERED
            )
            self._longest = max_answer_length

    def answer(self, question: str, context: str) -> Answer:
        """Returns the answer to one question."""
        return self.answer_all([(question, context)])[0]

    def answer_all(
        self, questions: Sequence[tuple[str, str]], batch_size: Optional[int] = None
    ) -> list[Answer]:
        """Returns an answer for each pair of question and context."""
        windows = [self._encoder.windows(*pair) for pair in questions]
        flat = [window for each in windows for window in each]
        logits = iter(self._model.run_encoded([window.encoded for window in flat], batch_size))
        nbest = NBest(len(questions), N_BEST)
        for number, ((_, context), each) in enumerate(zip(questions, windows)):
            offsets = self._encoder.tokens(context).offsets
            for window, scores in zip(each, logits):
                real: np.ndarray = scores[: len(window.encoded.input_ids)]
                spans = best_spans(real, place_of(window), offsets, N_BEST, self._longest)
                nbest.add(number, context, spans, real[0])
        answers = Answers(nbest, 0.0)
        return [self._answer(answers, n, context) for n, (_, context) in enumerate(questions)]

    def _answer(self, answers: Answers, number: int, context: str) -> Answer:
        text, span, probability = answers.given(number, context, self.settings)
        return Answer(text, span.begin if span else 0, span.end if span else 0, probability)
