"""Training, evaluating and predicting with a classifier, and the files that come of it."""

import dataclasses
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, Optional

import numpy as np
import tensorflow.compat.v1 as tf
from absl import logging

from bert_toolkit import problems
from bert_toolkit.checkpoints import checkpoint_files, model_directory, training_notes
from bert_toolkit.errors import UserError
from bert_toolkit.io import files, metrics_files
from bert_toolkit.io.progress import Progress
from bert_toolkit.tasks import best_model
from bert_toolkit.tasks.classification import (
    calibration,
    classifier_network,
    encoded,
    scores,
    task_data,
)
from bert_toolkit.tasks.classification.encoded import EncodedSplit
from bert_toolkit.tasks.classification.task_data import Data
from bert_toolkit.training import input_pipeline, model_functions, output_dir, trainer

# Rows of eval_worst.tsv.
WORST = 100


class Classifier:
    """A model for a data set, in an output directory."""

    def __init__(
        self,
        model: model_directory.ModelFiles,
        vocabulary: training_notes.Vocabulary,
        data: Data,
        options: Any,
    ):
        """Takes what is needed; `options` are those of run_classifier.py."""
        self.model, self.data, self.options = model, data, options
        self._vocabulary = vocabulary
        self.problem = data.problem
        self.directory = options.output_dir
        loss = classifier_network.Loss(class_weights(data, options), options.label_smoothing)
        self._network = classifier_network.network(
            model.config, self.problem, options.engine(), loss
        )
        self._schema = encoded.schema(self.problem, options.max_seq_length)

    # --- Training ---

    def train(self, train: EncodedSplit, dev: Optional[EncodedSplit]) -> None:
        """Trains from where the output directory stands to --num_train_epochs."""
        options, rows = self.options, len(train.owners)
        steps = options.train_steps(rows)
        if not steps:
            raise UserError(
                f"nothing to train: {rows} rows and --num_train_epochs="
                f"{options.num_train_epochs:g} make no step of"
                f" --train_batch_size={options.train_batch_size}"
            )
        note = self._note()
        differences = training_notes.differences(self.directory, note)
        if (
            model_functions.starting_step(self.directory, steps, "num_train_epochs", differences)
            >= steps
        ):
            return
        listeners = self._selection(rows, dev)
        if any(listener.is_over() for listener in listeners):
            logging.warning(
                "nothing to train: the run was stopped early before; raise"
                " --early_stopping_patience to train on, or %s",
                output_dir.to_begin_anew(),
            )
            return
        model_directory.write(self.directory, self.model, self.problem.labels)
        training_notes.write(self.directory, note)
        task_data.store(self.directory, self.data)
        self._optimise(train, steps, listeners)
        logging.info("trained; the model is in %s", self.directory)

    def _note(self) -> dict[str, Any]:
        """Returns what is noted of this training."""
        assert self.data.train is not None
        data = training_notes.data_facts(
            [self.options.train_file or self.options.data_dir],
            (example[1:4] for example in self.data.train),
        )
        return training_notes.make(self._vocabulary, data, self.model.init_checkpoint, self.options)

    def _optimise(self, train: EncodedSplit, steps: int, listeners: Sequence) -> None:
        options = self.options
        reading = input_pipeline.Reading(
            repeat=True,
            shuffle_buffer=len(train.owners),
            seed=options.seed,
            static_shapes=options.static_shapes,
        )
        with checkpoint_files.as_tensorflow(self.model.init_checkpoint) as init_checkpoint:
            warmup = int(steps * options.warmup_proportion)
            training = model_functions.Training.of(options, steps, warmup)
            model_fn = model_functions.make(
                self._network, self.directory, init_checkpoint, options.use_tpu, training
            )
            runner = trainer.Runner(
                model_fn,
                self.directory,
                options,
                trainer.BatchSizes(train=options.train_batch_size),
                self._checkpoint_options(len(train.owners)),
            )
            data = input_pipeline.RecordInput([train.path], self._schema, reading)
            runner.train(data, steps, listeners)

    def _checkpoint_options(self, rows: int):
        every = self.options.steps_between_evaluations(rows)
        if not every:
            return self.options
        return dataclasses.replace(self.options, save_checkpoints_steps=every)

    def _selection(self, rows: int, dev: Optional[EncodedSplit]) -> list[best_model.Selection]:
        options = self.options
        every = options.steps_between_evaluations(rows)
        if not every:
            return []
        if dev is None:
            raise UserError(
                "--evaluate_every: nothing to evaluate on; pass --eval_file or --eval_split"
            )
        split = dev

        def evaluate(checkpoint: str) -> dict[str, float]:
            logits = self._logits(split, checkpoint, options.eval_batch_size, "evaluating")
            return scores.score(self.problem, logits, split.targets(self.problem))

        metric = options.best_metric or self.data.metric
        patience = options.early_stopping_patience
        return [best_model.Selection(self.directory, metric, every, patience, evaluate)]

    # --- Evaluation ---

    def evaluate(self, split: EncodedSplit, suffix: str) -> dict[str, Any]:
        """Evaluates on a dev split; writes metrics, a report, and the worst errors."""
        checkpoint = self._checkpoint()
        logits = self._logits(split, checkpoint, self.options.eval_batch_size, "evaluating")
        targets = split.targets(self.problem)
        found: dict[str, Any] = scores.score(self.problem, logits, targets)
        found["loss"] = found["eval_loss"]
        step = re.search(r"ckpt-(\d+)$", checkpoint)
        if step:
            found["global_step"] = int(step[1])
        stem = os.path.join(self.directory, "eval_{}" + suffix)
        metrics_files.write_metrics(stem.format("results"), found)
        report = scores.report(self.problem, logits, targets)
        if report:
            files.write_text(f"{stem.format('report')}.txt", report)
        if (
            self.problem.kind == problems.SINGLE
            and len(self.problem.labels) <= scores.LARGEST_MATRIX
        ):
            probabilities = self.problem.probabilities(logits)
            picture = f"{stem.format('confusion')}.png"
            scores.draw_confusion(picture, self.problem, probabilities, targets)
        self._write_worst(f"{stem.format('worst')}.tsv", split, logits, targets)
        if not suffix:
            self._calibrate(logits, targets)
        return found

    def _write_worst(self, path: str, split: EncodedSplit, logits, targets) -> None:
        """Lists the examples of the highest loss: wrong labels are found among them."""
        losses = self.problem.losses(logits, targets)
        answers = calibration.Calibration().answers(
            self.problem, self.problem.probabilities(logits)
        )
        lines = ["loss\tid\tline\tlabel\tprediction\ttext"]
        for number in np.argsort(-losses, kind="stable")[:WORST]:
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
            lines.append("\t".join(_one_line(field) for field in fields))
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

    def predict(self, split: EncodedSplit, suffix: str, submission: Optional[str]) -> None:
        """Predicts a test split; writes test_results.tsv and test_predictions.tsv, or prints."""
        checkpoint = self._checkpoint()
        logits = self._logits(split, checkpoint, self.options.predict_batch_size, "predicting")
        found = self._calibration(logits)
        probabilities = found.probabilities(self.problem, logits)
        answers = found.answers(self.problem, probabilities)
        rows = []
        for example, answer, numbers in zip(split.examples, answers, probabilities):
            cells = [answer, *map(str, numbers), *_margin(self.problem, numbers)]
            if self.options.predict_file and example.is_blank:
                cells = [""] * len(cells)
            rows.append([_one_line(example.name), *cells])
        if self.options.predict_file == files.STREAM:
            sys.stdout.writelines("\t".join(row) + "\n" for row in rows)
            return
        header = ["index", "prediction"]
        if self.problem.kind != problems.REGRESSION:
            header += [f"probability_{label}" for label in self.problem.labels]
        header += ["margin"] if self.problem.kind == problems.SINGLE else []
        texts = {
            f"test_results{suffix}.tsv": [row[2 : 2 + probabilities.shape[1]] for row in rows],
            f"test_predictions{suffix}.tsv": [header, *(row[: len(header)] for row in rows)],
        }
        if submission:
            texts[submission] = [["index", "prediction"], *(row[:2] for row in rows)]
        for name, lines in texts.items():
            text = "".join("\t".join(line) + "\n" for line in lines)
            files.write_text(os.path.join(self.directory, name), text)
        paths = " and ".join(os.path.join(self.directory, name) for name in texts)
        logging.info("%s rows predicted: %s", f"{len(rows):,}", paths)

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

    # --- Running the model ---

    def _checkpoint(self) -> str:
        found = best_model.find(self.directory, self.options.checkpoint, self.model.init_checkpoint)
        training_notes.check_vocabulary(found, self._vocabulary)
        return found

    def check_vocabulary(self, trains: bool) -> None:
        """Compares the vocabulary with that of the model to start from, or to use.

        Raises:
          UserError: the model in the output directory, or the one to use, has another one.
        """
        latest = tf.train.latest_checkpoint(self.directory)
        if not trains:
            self._checkpoint()
        elif latest:
            training_notes.check_vocabulary(latest, self._vocabulary)
        elif self.model.init_checkpoint:
            found = training_notes.mismatch(self.model.init_checkpoint, self._vocabulary)
            if found:
                logging.warning("%s", found)

    def _logits(
        self, split: EncodedSplit, checkpoint: str, batch_size: int, what: str
    ) -> np.ndarray:
        """Returns the outputs of a checkpoint for the examples of a split, [N, outputs]."""
        options = self.options
        reading = input_pipeline.Reading(repeat=False, static_shapes=options.static_shapes)
        with checkpoint_files.as_tensorflow(checkpoint) as weights:
            assert weights
            model_fn = model_functions.make(self._network, None, weights, options.use_tpu)
            sizes = trainer.BatchSizes(predict=batch_size)
            runner = trainer.Runner(model_fn, None, options, sizes, quiet=True)
            data = input_pipeline.RecordInput([split.path], self._schema, reading)
            with Progress(what, "rows", len(split.owners)) as progress:
                batches = []
                for batch in runner.predict(data):
                    batches.append(batch["logits"][batch["is_real_example"] == 1])
                    progress.update(len(batches[-1]))
        outputs = np.concatenate(batches)
        if len(outputs) != len(split.owners):
            raise UserError(
                f"{split.path}: {len(outputs)} predictions for {len(split.owners)} rows"
            )
        return split.of_examples(outputs)


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


def _margin(problem: problems.Problem, probabilities: np.ndarray) -> list[str]:
    """Returns how far the first label is before the second."""
    if problem.kind != problems.SINGLE:
        return []
    second, first = np.sort(probabilities)[-2:]
    return [str(first - second)]


def _one_line(text: str) -> str:
    return " ".join(text.split()) if any(c in text for c in "\t\n\r") else text
