"""Labels of texts from Python; see encoder.py."""

import os
from collections.abc import Sequence
from typing import NamedTuple, Optional

from bert_toolkit.checkpoints import model_directory, task_file
from bert_toolkit.errors import UserError
from bert_toolkit.inference import trained as trained_models
from bert_toolkit.inference.encoder import InferenceSession, Text, arguments_named
from bert_toolkit.options import ModelOptions
from bert_toolkit.problems import KINDS, Problem
from bert_toolkit.tasks import best_model
from bert_toolkit.tasks.classification import calibration, classifier_network


class Prediction(NamedTuple):
    """What a classifier says of a text.

    Attributes:
      label: the answer: a label, labels with commas between them, a number, or "other".
      probabilities: label -> probability; empty where a number is predicted.
    """

    label: str
    probabilities: dict[str, float]


class Trained(NamedTuple):
    """A fine-tuned model: of run_classifier.py, or of Hugging Face's layout with its labels."""

    files: model_directory.ModelFiles
    checkpoint: str
    problem: Problem
    calibration: calibration.Calibration


def find(options: ModelOptions) -> Optional[Trained]:
    """Returns the best model of --bert_dir, or its last; None if it is no classifier's.

    Flags of files and of tokenization are followed, as by `model_directory.find`.
    """
    found = trained_models.find(options, KINDS)
    if found is None:
        return None
    assert options.bert_dir
    # The best model lies in a directory below; what was chosen on the dev data, beside that.
    parent, name = os.path.split(os.path.abspath(options.bert_dir))
    calibrated = calibration.read(parent if name == best_model.BEST else options.bert_dir)
    return Trained(*found, calibrated)


class TextClassifier:
    """Labels of texts, by a classifier: run_classifier.py's, or one in Hugging Face's layout."""

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
            trained = find(ModelOptions(bert_dir=model_dir, init_checkpoint=init_checkpoint))
            if trained is None:
                task_file.read([model_dir], KINDS)  # says so if it is for another task
                raise UserError(f"{model_dir}: no {task_file.NAME}; expected a trained classifier")
            self.problem = problem = trained.problem
            self._calibration = trained.calibration
            self._model = InferenceSession(
                trained.files,
                trained.checkpoint,
                lambda config: classifier_network.network(config, problem),
                "logits",
                max_seq_length,
            )

    def predict(self, texts: Sequence[Text], batch_size: int = 32) -> list[Prediction]:
        """Returns a prediction for each text; a text is a string or a pair of them."""
        logits = self._model.run(texts, batch_size)
        probabilities = self._calibration.probabilities(self.problem, logits)
        answers = self._calibration.answers(self.problem, probabilities)
        return [
            Prediction(answer, dict(zip(self.problem.labels, map(float, row))))
            for answer, row in zip(answers, probabilities)
        ]

    def close(self) -> None:
        """Frees what the model holds."""
        self._model.close()
