"""Labels of texts from Python; see encoder.py."""

import os
from collections.abc import Callable, Sequence
from typing import Optional

import numpy as np

from bert_toolkit.inference.encoder import InferenceSession, Text, TextModel, arguments_named
from bert_toolkit.inference.trained import find_for
from bert_toolkit.options import ModelOptions
from bert_toolkit.problems import KINDS
from bert_toolkit.results import Prediction
from bert_toolkit.tasks import best_model
from bert_toolkit.tasks.classification import calibration, classifier_network
from bert_toolkit.training.outputs import Network


def calibration_of(model_dir: str) -> calibration.Calibration:
    """Returns what was chosen on the dev data; it lies beside the directory of the best model."""
    parent, name = os.path.split(os.path.abspath(model_dir))
    return calibration.read(parent if name == best_model.BEST else model_dir)


class TextClassifier(TextModel):
    """Labels of texts, by a classifier: run_classifier.py's, or one in Hugging Face's layout.

    Attributes:
      problem: what it predicts.
      calibration: how its logits become answers.
    """

    # (config, problem) -> the network, one of whose predictions is "logits".
    _network: Callable[..., Network] = staticmethod(classifier_network.network)

    def __init__(
        self,
        model_dir: str,
        max_seq_length: Optional[int] = 128,
        init_checkpoint: Optional[str] = None,
    ):
        """Loads the model of a directory: of an output directory the best, or the last.

        Raises:
          UserError: there is none, or its labels are not known.
        """
        with arguments_named(bert_dir="model_dir"):
            options = ModelOptions(bert_dir=model_dir, init_checkpoint=init_checkpoint)
            self._load(options, max_seq_length)

    def _load(self, options: ModelOptions, max_seq_length: Optional[int]) -> None:
        trained = find_for(options, KINDS, "a trained classifier")
        self.problem = problem = trained.problem
        self.calibration = calibration_of(options.bert_dir or "")
        self._model = InferenceSession(
            trained.files,
            trained.checkpoint,
            lambda config: self._network(config, problem),
            "logits",
            max_seq_length,
        )

    def predict(self, texts: Sequence[Text], batch_size: Optional[int] = None) -> list[Prediction]:
        """Returns a prediction for each text; a text is a string or a pair of them."""
        return self._predictions(self.logits(texts, batch_size))

    def logits(self, texts: Sequence[Text], batch_size: Optional[int] = None) -> np.ndarray:
        """Returns the outputs for texts before any calibration, float32 [texts, outputs]."""
        return self._model.run(texts, batch_size)

    def _predictions(self, logits: np.ndarray) -> list[Prediction]:
        """[texts, outputs] -> a prediction for each text."""
        probabilities = self.calibration.probabilities(self.problem, logits)
        answers = self.calibration.answers(self.problem, probabilities)
        return [
            Prediction(answer, dict(zip(self.problem.labels, map(float, row))))
            for answer, row in zip(answers, probabilities)
        ]
