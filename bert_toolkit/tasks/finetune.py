"""Fine-tuning, the same for every task: train, keep the best, go on, evaluate, predict."""

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional

import tensorflow.compat.v1 as tf
from absl import logging

from bert_toolkit.checkpoints import checkpoint_files, constants, model_directory, training_notes
from bert_toolkit.errors import UserError
from bert_toolkit.io import files, metrics_files
from bert_toolkit.io.progress import Progress
from bert_toolkit.tasks import best_model, encoded
from bert_toolkit.tasks.base import Batch, EncodedSplit, Task
from bert_toolkit.tasks.best_model import BestModelKeeper, OnEvaluation
from bert_toolkit.text import batches
from bert_toolkit.training import (
    cluster,
    input_pipeline,
    model_functions,
    output_dir,
    precision,
)
from bert_toolkit.training.mixed_input import TrainingInput
from bert_toolkit.training.outputs import Network
from bert_toolkit.training.trainer import BatchSizes, Trainer
from modeling import BERT


@dataclasses.dataclass(frozen=True)
class Actions:
    """What a run does."""

    train: bool
    evaluate: bool
    predict: bool


def begin(options: Any) -> tuple[Actions, model_directory.ModelFiles]:
    """Returns what a run does and the model it starts from; makes the output directory.

    Raises:
      UserError: the model's files are not there, or it is too small for --max_seq_length.
    """
    model = model_directory.find(options)
    model_directory.check_length(options.max_seq_length, model)
    files.make_directory(options.output_dir, "output_dir")
    return Actions(*options.actions()), model


def run(
    task: Task,
    model: model_directory.ModelFiles,
    options: Any,
    actions: Actions,
    on_evaluation: Optional[OnEvaluation] = None,
) -> dict[str, Any]:
    """Trains, evaluates and predicts as asked; returns the metrics on the main dev split, or {}.

    Args:
      task: with the examples of the splits that are needed.
      model: to start from, or to use.
      options: FinetuneOptions, with output_dir, bert_dir and TrainingOptions beside them.
      actions: what to do.
      on_evaluation: called with step and score after each evaluation while training; training ends
        where it returns True.

    Raises:
      UserError: the model does not fit the task, or there is none to use.
    """
    model_directory.check_labels(options.output_dir, task.labels)
    if actions.train:
        output_dir.begin(options.output_dir, options.resume, options.overwrite)
    else:
        output_dir.leave_damaged(options.output_dir)
    finetuning = Finetuning(task, model, precision.resolve(options), on_evaluation)
    finetuning.check_vocabulary(actions.train)
    train, dev, test = finetuning.encode()
    if train:
        finetuning.train(train, dev.get(""))
    if not cluster.is_chief():
        return {}  # the first of several hosts evaluates and predicts
    found = {}
    if actions.evaluate:
        found = {suffix: finetuning.evaluate(split, suffix) for suffix, split in dev.items()}
    for suffix, split in test.items():
        finetuning.predict(split, suffix)
    return found.get("", {})


class ModelTraining:
    """A model that is trained in an output directory; subclasses know for what."""

    def __init__(self, model: model_directory.ModelFiles, options: Any):
        """Takes the model to start from, and FinetuneOptions as `run` has them."""
        self.model, self.options = model, options
        self.directory = options.output_dir
        self._vocabulary = training_notes.Vocabulary.of(model.vocab_file or "")

    def note(self) -> dict[str, Any]:
        """Returns what is noted of this training."""
        raise NotImplementedError

    def store(self, note: Mapping[str, Any]) -> None:
        """Writes what lies beside the model's weights, with what is noted of the training."""
        raise NotImplementedError

    def _keepers(self, rows: int, dev: Any) -> list[BestModelKeeper]:
        """Returns what evaluates on `dev` while training and keeps the best; none if not asked."""
        raise NotImplementedError

    def _train(self, rows: int, network: Network, data: TrainingInput, dev: Any) -> None:
        """Trains on data of so many rows, from where the output directory stands."""
        options = self.options
        steps = options.train_steps(rows)
        if not steps:
            raise UserError(
                f"nothing to train: {rows} rows and --num_train_epochs="
                f"{options.num_train_epochs:g} make no step of"
                f" --train_batch_size={options.train_batch_size}"
            )
        note = self.note()
        differences = training_notes.differences(self.directory, note)
        step = model_functions.starting_step(self.directory, steps, "num_train_epochs", differences)
        if step >= steps:
            return
        keepers = self._keepers(rows, dev)
        if any(keeper.is_over() for keeper in keepers):
            logging.warning(
                "nothing to train: the run was stopped early before; raise"
                " --early_stopping_patience to train on, or %s",
                output_dir.to_begin_anew(),
            )
            return
        self.store(note)
        self._warn_of_layers_not_reached(steps, rows)
        with checkpoint_files.as_tensorflow(self.model.init_checkpoint) as init_checkpoint:
            training = model_functions.Training.of_finetuning(options, steps, rows)
            model_fn = model_functions.make(
                network, self.directory, init_checkpoint, options.use_tpu, training
            )
            sizes = BatchSizes(train=options.train_batch_size)
            saving = self._checkpoint_options(rows)
            trainer = Trainer(model_fn, self.directory, options, sizes, saving)
            trainer.train(data, steps, keepers)
        logging.info("trained; the model is in %s", self.directory)

    def _warn_of_layers_not_reached(self, steps: int, rows: int) -> None:
        """Says when training ends before --unfreeze_schedule has come to the embeddings."""
        every, layers = self.options.steps_between_layers(rows), self.model.config.num_hidden_layers
        if not every or self.options.freeze or self.model.config.network_type != BERT:
            return
        reached = (steps - 1) // every
        if reached <= layers:
            logging.warning(
                "--unfreeze_schedule=%s: of %d layers the upper %d are trained in %d steps, and not"
                " the embeddings; a layer more every %d steps would train all",
                self.options.unfreeze_schedule,
                layers,
                reached,
                steps,
                max(1, (steps - 1) // (layers + 1)),
            )

    def _checkpoint_options(self, rows: int):
        every = self.options.steps_between_evaluations(rows)
        if not every:
            return self.options
        return dataclasses.replace(self.options, save_checkpoints_steps=every)

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


class Finetuning(ModelTraining):
    """A model that is fine-tuned for a task, in an output directory."""

    def __init__(
        self,
        task: Task,
        model: model_directory.ModelFiles,
        options: Any,
        on_evaluation: Optional[OnEvaluation] = None,
    ):
        """Takes what is needed; see `run`."""
        super().__init__(model, options)
        self.task, self._on_evaluation = task, on_evaluation
        self._tokenizer = model.tokenizer()
        self._network = task.network(model.config_with(options.dropout()), options.compute())

    def encode(
        self,
    ) -> tuple[Optional[EncodedSplit], dict[str, EncodedSplit], dict[str, EncodedSplit]]:
        """Writes the records of all splits: train, dev and test."""
        examples = self.task.examples

        def write(file: str, what: str, rows: Sequence[Any], **more: Any) -> EncodedSplit:
            path = os.path.join(self.directory, f"{file}.tf_record")
            more["shown"] = self.options.show_examples
            return encoded.write(path, what, self.task, rows, self._tokenizer, **more)

        train = None
        if examples.train is not None:
            copies = self.task.copies()
            train = write("train", "train", examples.train, by_length=False, copies=copies)
        dev = {
            suffix: write(f"eval{suffix}", f"dev{suffix}", rows, by_length=True)
            for suffix, rows in examples.dev.items()
        }
        test = {
            suffix: write(f"predict{suffix}", f"test{suffix}", rows, by_length=True)
            for suffix, rows in examples.test.items()
        }
        return train, dev, test

    # --- Training ---

    def train(self, train: EncodedSplit, dev: Optional[EncodedSplit]) -> None:
        """Trains from where the output directory stands to --num_train_epochs."""
        self._train(len(train.owners), self._network, self.training_input(train), dev)

    def training_input(self, train: EncodedSplit) -> input_pipeline.RecordInput:
        """Returns the records to train on, shuffled, without end."""
        reading = input_pipeline.Reading(
            repeat=True,
            shuffle_buffer=len(train.owners),
            seed=self.options.seed,
            static_shapes=self.options.static_shapes,
        )
        return input_pipeline.RecordInput([train.path], self.task.schema(), reading)

    def store(self, note: Mapping[str, Any]) -> None:
        model_directory.write(self.directory, self.model, self.task.labels)
        training_notes.write(self.directory, note)
        self.task.store(self.directory)

    def note(self) -> dict[str, Any]:
        data = training_notes.data_facts([self.task.train_source], self.task.facts())
        return training_notes.make(self._vocabulary, data, self.model.init_checkpoint, self.options)

    def _keepers(self, rows: int, dev: Optional[EncodedSplit]) -> list[BestModelKeeper]:
        options = self.options
        every = options.steps_between_evaluations(rows)
        if not every:
            return []
        if dev is None:
            other = " or --eval_split" if hasattr(options, "eval_split") else ""
            raise UserError(f"--evaluate_every: nothing to evaluate on; pass --eval_file{other}")
        split = dev

        def evaluate() -> dict[str, Any]:
            return self.score(split, tf.train.latest_checkpoint(self.directory))

        metric = options.best_metric or self.task.metric
        patience = options.early_stopping_patience
        return [
            BestModelKeeper(self.directory, metric, every, patience, evaluate, self._on_evaluation)
        ]

    # --- Evaluation and prediction ---

    def score(self, split: EncodedSplit, checkpoint: str) -> dict[str, Any]:
        """Returns the metrics of a checkpoint on a dev split; writes nothing."""
        answers = self._answers(split, checkpoint, self.options.eval_batch_size, "evaluating")
        return self.task.score(answers, split)

    def evaluate(self, split: EncodedSplit, suffix: str) -> dict[str, Any]:
        """Evaluates on a dev split; writes eval_results and what the task reports."""
        checkpoint = self._checkpoint()
        answers = self._answers(split, checkpoint, self.options.eval_batch_size, "evaluating")
        found: dict[str, Any] = dict(self.task.score(answers, split))
        found["loss"] = found["eval_loss"]
        step = re.search(r"ckpt-(\d+)$", checkpoint)
        if step:
            found["global_step"] = int(step[1])
        details = self.task.write_evaluation(suffix, answers, split)
        stem = os.path.join(self.directory, f"eval_results{suffix}")
        metrics_files.write_metrics(stem, found, details)
        return found

    def predict(self, split: EncodedSplit, suffix: str) -> None:
        """Predicts a test split; the task writes or prints the answers."""
        checkpoint = self._checkpoint()
        answers = self._answers(split, checkpoint, self.options.predict_batch_size, "predicting")
        self.task.write_predictions(suffix, answers, split)

    # --- Running the model ---

    def _answers(self, split: EncodedSplit, checkpoint: str, batch_size: int, what: str) -> Any:
        """Returns what the task makes of a checkpoint's outputs for a split."""
        with Progress(what, "rows", len(split.owners)) as progress:
            return self.task.decode(self._outputs(split, checkpoint, batch_size, progress), split)

    def _outputs(
        self, split: EncodedSplit, checkpoint: str, batch_size: int, progress: Progress
    ) -> Iterator[Batch]:
        """Yields the outputs of a checkpoint for the records of a split, without filling.

        Raises:
          UserError: at the end, if there are more or less than records.
        """
        options = self.options
        reading = input_pipeline.Reading(repeat=False, static_shapes=options.static_shapes)
        count = 0
        with checkpoint_files.as_tensorflow(checkpoint) as weights:
            assert weights
            model_fn = model_functions.make(
                self._network,
                None,
                weights,
                options.use_tpu,
                constant_kernels=constants.precision(options, len(split.owners)),
            )
            sizes = BatchSizes(predict=batch_size)
            trainer = Trainer(model_fn, None, options, sizes, quiet=True)
            data = input_pipeline.RecordInput(
                [split.path],
                self.task.schema(),
                reading,
                batch_sizes=self._batch_sizes(split, batch_size),
            )
            for batch in trainer.predict(data):
                is_real = batch.pop("is_real_example") == 1
                yield {name: values[is_real] for name, values in batch.items()}
                count += int(is_real.sum())
                progress.update(int(is_real.sum()))
        if count != len(split.owners):
            raise UserError(f"{split.path}: {count} predictions for {len(split.owners)} rows")

    def _batch_sizes(self, split: EncodedSplit, batch_size: int) -> Sequence[int]:
        """Returns how many records each batch has; () where all are to have `batch_size`."""
        options = self.options
        if options.static_shapes or not options.batch_tokens:
            return ()
        grouped = batches.grouped(split.lengths, int, batch_size, options.batch_tokens)
        return [len(batch) for batch in grouped]
