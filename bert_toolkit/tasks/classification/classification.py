"""Classification as a task: one label of several, any number of labels, or a number."""

import os
from collections.abc import Iterator
from typing import Any, Optional

import numpy as np
from absl import logging

from bert_toolkit import problems
from bert_toolkit.compute import ComputeOptions
from bert_toolkit.errors import UserError
from bert_toolkit.io import files
from bert_toolkit.io.tfrecord import Schema
from bert_toolkit.tasks.base import EncodedSplit, Examples, Outputs
from bert_toolkit.tasks.classification import (
    calibration,
    classifier_network,
    predictions,
    scores,
    slices,
    task_data,
)
from bert_toolkit.tasks.classification.predictions import one_line
from bert_toolkit.tasks.classification.schema import schema
from bert_toolkit.tasks.classification.task_data import Data, Example
from bert_toolkit.text.encoding import Encoded, SequenceEncoder
from bert_toolkit.training.outputs import Head, Network
from modeling import BertConfig
from tokenization import FullTokenizer

# Rows of eval_top_losses.tsv.
TOP_LOSSES = 100


class Classification:
    """A data set to classify, in the sense of tasks/base.py; answers are logits, [N, outputs]."""

    def __init__(self, data: Data, options: Any, tokenizer: FullTokenizer):
        """Takes what is needed; `options` are those of run_classifier.py."""
        self.data, self.options, self.problem = data, options, data.problem
        self.examples = Examples(data.train, data.dev, data.test)
        self.metric, self.labels = data.metric, data.problem.labels
        self.max_seq_length = options.max_seq_length
        self.train_source = options.train_file or options.data_dir
        self.directory = options.output_dir
        self._encoder = SequenceEncoder(
            tokenizer, options.max_seq_length, options.truncate, options.doc_stride
        )

    def schema(self) -> Schema:
        return schema(self.problem, self.max_seq_length)

    def encode(self, example: Example) -> list[tuple[Encoded, dict[str, Any]]]:
        label = {"label_ids": self.problem.values(example.label)}
        return [(one, label) for one in self._encoder.encode(example.text_a, example.text_b)]

    def copies(self) -> Optional[list[int]]:
        return copies(self.data, self.options)

    def facts(self) -> Iterator[Any]:
        assert self.data.train is not None
        return (example[1:4] for example in self.data.train)

    def objective(self) -> classifier_network.Objective:
        """Returns what is minimised in training."""
        weights = class_weights(self.data, self.options)
        return classifier_network.Loss(weights, self.options.label_smoothing)

    def network(self, config: BertConfig, compute: ComputeOptions) -> Network:
        alpha = self.options.rdrop_alpha
        if alpha and self.problem.kind == problems.REGRESSION:
            raise UserError("--rdrop_alpha: numbers are to be predicted, not labels; leave it out")
        return classifier_network.network(config, self.problem, compute, self.objective(), alpha)

    def head(self, config: BertConfig) -> Head:
        return classifier_network.head(config, self.problem, self.objective())

    def decode(self, outputs: Outputs, split: EncodedSplit) -> np.ndarray:
        return split.of_examples(np.concatenate([batch["logits"] for batch in outputs]))

    def targets(self, split: EncodedSplit) -> np.ndarray:
        """Returns what is to be predicted: [N] ids or numbers, or [N, labels] zeros and ones."""
        values = np.array([self.problem.values(example.label) for example in split.examples])
        return values if self.problem.kind == problems.MULTI else values[:, 0]

    def score(self, answers: np.ndarray, split: EncodedSplit) -> dict[str, Any]:
        return dict(scores.score(self.problem, answers, self.targets(split)))

    def store(self, directory: str) -> None:
        task_data.store(directory, self.data)

    # --- Evaluation ---

    def write_evaluation(
        self, suffix: str, answers: np.ndarray, split: EncodedSplit
    ) -> dict[str, Any]:
        """Writes report, predictions, top losses and slices; calibrates on the main split.

        Returns the metrics of slices, and those of calibrated answers.
        """
        targets = self.targets(split)
        stem = os.path.join(self.directory, "eval_{}" + suffix)
        report = scores.report(self.problem, answers, targets)
        if report:
            files.write_text(f"{stem.format('report')}.txt", report)
        few_labels = len(self.problem.labels) <= scores.LARGEST_MATRIX
        if self.problem.kind == problems.SINGLE and few_labels:
            probabilities = self.problem.probabilities(answers)
            picture = f"{stem.format('confusion')}.png"
            scores.draw_confusion(picture, self.problem, probabilities, targets)
        predicted = os.path.join(self.directory, predictions.EVALUATED.format(suffix))
        predictions.write_evaluated(predicted, self.problem, split.examples, answers)
        for name in ("top_losses", "worst"):  # the second is its name in earlier versions
            self._write_top_losses(f"{stem.format(name)}.tsv", split, answers, targets)
        if not suffix:
            self._calibrate(answers, targets)
        details: dict[str, Any] = {}
        found = self._calibration(answers)
        if found != calibration.Calibration():
            details["calibration"] = scores.calibrated(self.problem, found, answers, targets)
            slices.log_values("calibrated", details["calibration"])
        parts = slices.parts(split.examples, self.options, self._encoder.tokenizer)
        if parts:
            details["slices"] = slices.scores_of(parts, self.problem, answers, targets)
            slices.write(f"{stem.format('slices')}.tsv", details["slices"])
        return details

    def _write_top_losses(self, path: str, split: EncodedSplit, logits, targets) -> None:
        """Lists the examples of the highest loss: wrong labels are found among them."""
        losses = self.problem.losses(logits, targets)
        answers = calibration.Calibration().answers(
            self.problem, self.problem.probabilities(logits)
        )
        lines = ["loss\tid\tline\tlabel\tprediction\ttext"]
        for number in np.argsort(-losses, kind="stable")[:TOP_LOSSES]:
            example = split.examples[number]
            label = example.label
            texts = [example.text_a, *([example.text_b] if example.text_b else [])]
            fields = [
                f"{losses[number]:.4f}",
                example.name,
                str(example.line),
                ",".join(label) if isinstance(label, tuple) else str(label),
                answers[number],
                *texts,
            ]
            lines.append("\t".join(one_line(field) for field in fields))
        files.write_text(path, "\n".join(lines) + "\n")

    def _calibrate(self, logits: np.ndarray, targets: np.ndarray) -> None:
        """Chooses on the dev data what --calibrate and --reject_below ask for, and keeps it."""
        options = self.options
        if not options.calibrate and options.reject_below is None:
            return
        found = calibration.read(self.directory)
        if options.calibrate:
            found = calibration.fit(self.problem, logits, targets)
            scaled = logits / found.temperature
            before, after = (self.problem.losses(x, targets).mean() for x in (logits, scaled))
            logging.info(
                "temperature %.3f: loss on the dev data %.4f -> %.4f",
                found.temperature,
                before,
                after,
            )
        if options.reject_below is not None:
            found = calibration.reject(found, options.reject_below, self.problem, logits)
            sure = found.probabilities(self.problem, logits).max(-1)
            answered = sure >= found.reject_below
            right = logits.argmax(-1) == targets
            logging.info(
                "below probability %.4f the answer is %s: %.1f %% of the dev data; accuracy of the"
                " rest %.4f, of all %.4f",
                found.reject_below,
                calibration.OTHER,
                100 * (1 - answered.mean()),
                right[answered].mean() if answered.any() else float("nan"),
                right.mean(),
            )
        calibration.write(self.directory, found)

    # --- Prediction ---

    def write_predictions(self, suffix: str, answers: np.ndarray, split: EncodedSplit) -> None:
        """Writes test_results.tsv and test_predictions.tsv, or prints the latter."""
        found = self._calibration(answers)
        probabilities = found.probabilities(self.problem, answers)
        names = found.answers(self.problem, probabilities)
        read_lines = bool(self.options.predict_file)
        rows = predictions.rows(self.problem, split.examples, names, probabilities, read_lines)
        if self.options.predict_file == files.STREAM:
            predictions.show(rows)
            return
        submission = self.options.task().submissions.get(suffix)
        predictions.write(self.directory, suffix, self.problem, rows, submission)

    def _calibration(self, logits: np.ndarray) -> calibration.Calibration:
        for directory in (self.directory, self.options.bert_dir or self.directory):
            if files.exists(os.path.join(directory, calibration.FILE)):
                found = calibration.read(directory)
                break
        else:
            found = calibration.Calibration()
        below = self.options.reject_below
        if below is not None and not below.endswith("%"):
            found = calibration.reject(found, below, self.problem, logits)
        return found


def class_weights(data: Data, options: Any) -> Optional[list[float]]:
    """Returns what an example of each label counts, as --class_weights says.

    Raises:
      UserError: it names labels that are not there, or not all.
    """
    wanted, problem = options.class_weights, data.problem
    if not wanted:
        return None
    if problem.kind == problems.REGRESSION:
        raise UserError("--class_weights: numbers are to be predicted, not labels; leave it out")
    if list(wanted) == ["balanced"]:
        if data.train is None:
            return None  # a matter of training only
        counts = task_data.count_labels(data.train, problem)
        total = sum(counts.values())
        return [total / (len(counts) * max(1, counts[label])) for label in problem.labels]
    try:
        weights = {label: float(weight) for label, _, weight in (w.rpartition(":") for w in wanted)}
    except ValueError:
        weights = {}
    if sorted(weights) != sorted(problem.labels):
        expected = ",".join(f"{label}:1" for label in problem.labels)
        raise UserError(
            f"--class_weights={','.join(wanted)}: expected balanced, or a weight for each label:"
            f" {expected}"
        )
    return [weights[label] for label in problem.labels]


def copies(data: Data, options: Any) -> Optional[list[int]]:
    """Returns how many times each training example counts, as --oversample says."""
    if not options.oversample or data.train is None:
        return None
    if data.problem.kind != problems.SINGLE:
        raise UserError("--oversample is for one label a text; --class_weights=balanced is for all")
    counts = task_data.count_labels(data.train, data.problem)
    most = max(counts.values())
    return [round(most / counts[example.label]) for example in data.train]
