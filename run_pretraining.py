r"""Trains a BERT model on masked tokens and next-sentence pairs, and evaluates it.

Reads   TFRecord files made by create_pretraining_data.py, a model config, perhaps a checkpoint.
Writes  a model directory: checkpoints, config, vocabulary, TensorBoard logs; eval_results.txt
        and .json.

Training goes on where a run in the same --output_dir stopped.

Example:
  python run_pretraining.py --input_file=out/pretrain.tfrecord --output_dir=out/pretrained \
    --bert_config_file=sample_data/bert_config.json --do_train --max_seq_length=64 \
    --max_predictions_per_seq=10 --num_train_steps=400 --num_warmup_steps=40 --learning_rate=1e-3
"""

import dataclasses
import os
from typing import Any, ClassVar, Optional

import numpy as np
from absl import logging

from bert_toolkit import cli
from bert_toolkit.errors import UserError
from bert_toolkit.io import files, tfrecord
from bert_toolkit.options import (
    CheckpointOptions,
    DeviceOptions,
    ModelOptions,
    RuleOptions,
    TokenizerOptions,
    TrainingOptions,
    check,
    option,
)
from bert_toolkit.pretraining.dynamic_masks import DynamicMasks
from bert_toolkit.pretraining.schema import pretraining_schema
from bert_toolkit.text import tokenizer_config
from bert_toolkit.training import cluster, input_pipeline

# Instances among which the next one is drawn; the files were shuffled as a whole when they were
# made.
SHUFFLE_BUFFER = 10_000
PUBLISHED_EVAL_STEPS = 100


@dataclasses.dataclass(frozen=True)
class Options(ModelOptions, TrainingOptions):
    """The options of this stage."""

    output_dir: str = option("", "Directory for checkpoints and results.", required=True)
    input_file: Optional[str] = option(
        None, "TFRecord files to train on: names and patterns, comma-separated."
    )
    eval_file: Optional[str] = option(
        None, "TFRecord files to evaluate on; without it, those of --input_file."
    )
    max_seq_length: Optional[int] = option(
        None, "Longest sequence in tokens; unless given, what the data has.", lower=5
    )
    max_predictions_per_seq: Optional[int] = option(
        None, "Most masked tokens in a sequence; unless given, what the data has.", lower=1
    )
    use_next_sentence: Optional[bool] = option(
        None,
        "Learn next-sentence prediction (or sentence order, if the data was made for it) beside"
        " masked tokens; unless given, as the data was made, else true.",
    )
    do_train: bool = option(False, "Train.")
    do_eval: bool = option(False, "Evaluate; after training, if both are asked for.")
    eval_batch_size: int = option(8, "Sequences in a batch.", lower=1)
    num_train_steps: int = option(
        100000, "Steps in all, those of earlier runs in --output_dir included.", lower=1
    )
    num_warmup_steps: int = option(
        10000, "Steps over which the learning rate rises from zero.", lower=0
    )
    max_eval_steps: Optional[int] = option(
        None,
        f"Most batches to evaluate. Without it, all of --eval_file, or {PUBLISHED_EVAL_STEPS}"
        " batches of --input_file.",
        lower=1,
    )
    init_checkpoint: Optional[str] = option(
        None,
        "Weights to start from where --output_dir has no checkpoint yet: a prefix such as"
        " bert_model.ckpt, its .index file, a directory, or a Hugging Face model.safetensors."
        " Without it, random weights.",
    )

    GROUPS: ClassVar = {
        "Model": (ModelOptions, TokenizerOptions, RuleOptions),
        "Input and output": (
            "input_file",
            "eval_file",
            "output_dir",
            "max_seq_length",
            "max_predictions_per_seq",
            "use_next_sentence",
        ),
        "Training": (
            "do_train",
            TrainingOptions,
            "num_train_steps",
            "num_warmup_steps",
            CheckpointOptions,
        ),
        "Evaluation": ("do_eval", "eval_batch_size", "max_eval_steps"),
        "Device": (DeviceOptions,),
    }

    def __post_init__(self):
        conflicts = []
        if not self.do_train and not self.do_eval:
            conflicts.append("nothing to do: pass --do_train, --do_eval or both")
        if self.input_file is None and (self.do_train or self.eval_file is None):
            conflicts.append("--input_file is required")
        check(conflicts + self.training_conflicts() + self.missing_files("bert_config_file"))


@dataclasses.dataclass(frozen=True)
class Data:
    """What pretraining data is like: from the flags, else from its note, else its first record."""

    max_seq_length: int
    max_predictions_per_seq: int
    use_next_sentence: bool
    masks: Optional[DynamicMasks]  # to be chosen while training

    def schema(self) -> tfrecord.Schema:
        """Returns the features of the records."""
        return pretraining_schema(
            self.max_seq_length,
            self.max_predictions_per_seq,
            static_masks=self.masks is None,
            whole_words=self.masks is not None and self.masks.whole_words,
        )


def data_of(options: Options, path: str) -> Data:
    """Finds out what the data is like.

    Raises:
      UserError: it is not for what the flags ask.
    """
    note: dict[str, Any] = tfrecord.read_note(path) or {
        **tfrecord.lengths(path, pretraining_schema(1, 1))
    }
    pairs = note.get("use_next_sentence", True)
    if options.use_next_sentence and not pairs:
        raise UserError(
            f"--use_next_sentence=true, but {path} was made with --use_next_sentence=false: its"
            " sequences are single segments. Leave the flag out, or make the data again."
        )
    predictions = options.max_predictions_per_seq or note.get("max_predictions_per_seq", 20)
    masks = None
    if not note.get("static_masks", True):
        masks = DynamicMasks(
            max_predictions_per_seq=predictions,
            masked_lm_prob=note["masked_lm_prob"],
            **note["special_ids"],
            vocab_size=note["vocab_size"],
            whole_words=note["do_whole_word_mask"] or note["words_are_marked"],
            seed=options.seed,
        )
    return Data(
        max_seq_length=options.max_seq_length or note.get("max_seq_length", 128),
        max_predictions_per_seq=predictions,
        use_next_sentence=pairs if options.use_next_sentence is None else options.use_next_sentence,
        masks=masks,
    )


def check_alike(data: Data, path: str, other: Data, other_path: str) -> None:
    """Raises a UserError if the data to evaluate on is of another kind than that to train on."""
    for field in dataclasses.fields(Data):
        ours, theirs = getattr(data, field.name), getattr(other, field.name)
        if ours != theirs:
            name = "static_masks and masking" if field.name == "masks" else field.name
            raise UserError(
                f"{other_path} and {path} were made with other values of {name}; make one of them"
                " again with the flags of the other"
            )


def check_vocabularies(paths: list[str], model: Any, options: Options) -> None:
    """Compares the vocabulary that data was made with to that of the model.

    Raises:
      UserError: they are not the same; a model to start from may have another than --vocab_file.
    """
    import tensorflow.compat.v1 as tf

    from bert_toolkit.checkpoints import training_notes

    latest = None if options.overwrite else tf.train.latest_checkpoint(options.output_dir)
    found = training_notes.vocabularies_of_data(paths)
    given = options.vocab_file and training_notes.Vocabulary.of(options.vocab_file).digest
    for vocabulary in found:
        if given and vocabulary.digest != given:
            raise UserError(
                f"--vocab_file={options.vocab_file}: not the vocabulary that {vocabulary.source}"
                " was made with; leave the flag out, or make the data again"
            )
        checkpoint = latest or model.init_checkpoint or ""
        difference = training_notes.mismatch(checkpoint, vocabulary) if checkpoint else None
        if difference and (latest or not given or not options.do_train):
            raise UserError(difference)
        if difference:
            logging.warning("%s", difference)


def run(options: Options) -> dict[str, Any]:
    """Trains and evaluates as asked; returns the metrics of the evaluation, or {}.

    Raises:
      UserError: an input cannot be used.
    """
    check(cluster.conflicts(options))
    # TensorFlow is imported when a model is needed, so that --help and mistakes answer at once.
    from bert_toolkit.checkpoints import checkpoint_files, model_directory
    from bert_toolkit.pretraining.network import pretraining_network
    from bert_toolkit.training import model_functions, output_dir, precision
    from bert_toolkit.training.trainer import BatchSizes, Trainer

    options = precision.resolve(options)
    model = model_directory.find(options)
    train_files = _expand(options.input_file, "input_file") if options.do_train else []
    eval_files = _eval_files(options) if options.do_eval else []
    data = data_of(options, (train_files or eval_files)[0])
    first = (train_files or eval_files)[0]
    model_directory.check_length(
        data.max_seq_length, model, None if options.max_seq_length else first
    )
    lengths = ("max_seq_length", "max_predictions_per_seq")
    chosen_by = {name: first for name in lengths if getattr(options, name) is None}
    for paths in filter(None, (train_files, eval_files)):
        tfrecord.check_data(paths, data.schema(), model.config.vocab_size, chosen_by)
        check_alike(data, first, data_of(options, paths[0]), paths[0])
        check_vocabularies(paths, model, options)
    files.make_directory(options.output_dir, "output_dir")
    if options.do_train:
        output_dir.begin(options.output_dir, options.resume, options.overwrite)
    else:
        output_dir.leave_damaged(options.output_dir)

    with checkpoint_files.as_tensorflow(model.init_checkpoint) as init_checkpoint:
        if init_checkpoint and data.use_next_sentence and not options.do_train:
            check_has_head(init_checkpoint, options.output_dir)
        model_fn = model_functions.make(
            pretraining_network(model.config, data.use_next_sentence, options.compute()),
            options.output_dir,
            init_checkpoint,
            options.use_tpu,
            model_functions.Training.of(options, options.num_train_steps, options.num_warmup_steps),
        )
        trainer = Trainer(
            model_fn,
            options.output_dir,
            options,
            BatchSizes(train=options.train_batch_size, evaluate=options.eval_batch_size),
            options,
        )
        if options.do_train:
            train(trainer, train_files, data, model, options)
        if not cluster.is_chief():
            return {}  # the first of several hosts evaluates
        return evaluate(trainer, eval_files, data, options) if options.do_eval else {}


def check_has_head(weights: Any, output_dir: str) -> None:
    """Raises a UserError if a model to evaluate was not trained on next-sentence prediction.

    Args:
      weights: the checkpoint given, a checkpoint_files.Weights.
      output_dir: whose own model is evaluated if there is one.
    """
    import tensorflow.compat.v1 as tf

    from bert_toolkit.checkpoints import checkpoint_files

    head = "cls/seq_relationship/output_weights"
    if not tf.train.latest_checkpoint(output_dir) and head not in checkpoint_files.shapes(
        weights.prefix
    ):
        raise UserError(
            f"{weights.source}: has no trained {head}, which next-sentence prediction needs; pass"
            " --use_next_sentence=false to evaluate masked tokens only"
        )


def _expand(patterns: Optional[str], flag: str) -> list[str]:
    return files.expand_inputs(patterns or "", flag)


def _eval_files(options: Options) -> list[str]:
    if options.eval_file:
        return _expand(options.eval_file, "eval_file")
    logging.warning(
        "evaluating on the training data (--input_file); --eval_file names held-out data"
    )
    return _expand(options.input_file, "input_file")


def train(trainer, train_files: list[str], data: Data, model, options: Options) -> None:
    """Trains from where --output_dir stands to --num_train_steps."""
    from bert_toolkit.checkpoints import model_directory, training_notes
    from bert_toolkit.training import model_functions

    model = _with_tokenization(model, train_files)
    note = _note(train_files, model, options)
    differences = training_notes.differences(options.output_dir, note)
    step = model_functions.starting_step(
        options.output_dir, options.num_train_steps, "num_train_steps", differences
    )
    if step >= options.num_train_steps:
        return
    reading = input_pipeline.Reading(
        repeat=True,
        shuffle_buffer=SHUFFLE_BUFFER,
        seed=options.seed,
        static_shapes=options.static_shapes,
    )
    model_directory.write(options.output_dir, model)
    training_notes.write(options.output_dir, note)
    trainer.train(
        input_pipeline.RecordInput(train_files, data.schema(), reading, data.masks),
        options.num_train_steps,
    )
    logging.info(
        "trained to step %d; the model is in %s", options.num_train_steps, options.output_dir
    )


def _note(train_files: list[str], model: Any, options: Options) -> dict[str, Any]:
    """Returns what is noted of this training; data is told by names and sizes."""
    from bert_toolkit.checkpoints import training_notes

    vocabulary = next(iter(training_notes.vocabularies_of_data(train_files[:1])), None)
    if vocabulary is None and model.vocab_file:
        vocabulary = training_notes.Vocabulary.of(model.vocab_file)
    facts = training_notes.data_facts(
        train_files, ((os.path.basename(path), files.size(path)) for path in train_files)
    )
    return training_notes.make(vocabulary, facts, model.init_checkpoint, options)


def _with_tokenization(model, train_files: list[str]):
    """Returns the model's files with the vocabulary and casing that the data's note names."""
    note = tfrecord.read_note(train_files[0]) or {}
    vocab_file = model.vocab_file
    noted = note.get("vocab_file", "")
    unchanged = files.exists(noted) and files.digest(noted) == note.get("vocab_sha256")
    if vocab_file is None and unchanged:
        vocab_file = noted
    return dataclasses.replace(
        model, vocab_file=vocab_file, rules=tokenizer_config.from_note(note, model.rules)
    )


def evaluate(trainer, eval_files: list[str], data: Data, options: Options) -> dict[str, Any]:
    """Evaluates the latest checkpoint of --output_dir and writes eval_results.txt and .json."""
    from bert_toolkit.io import metrics_files

    steps = options.max_eval_steps
    if steps is None and not options.eval_file:
        steps = PUBLISHED_EVAL_STEPS
    if options.use_tpu:
        # A TPU has to be told how many batches there are.
        all_steps = -(-tfrecord.count_records(eval_files) // options.eval_batch_size)
        steps = min(steps or all_steps, all_steps)
    reading = input_pipeline.Reading(repeat=False, static_shapes=options.static_shapes)
    metrics = trainer.evaluate(
        input_pipeline.RecordInput(eval_files, data.schema(), reading, data.masks),
        "evaluating",
        steps,
    )
    metrics["masked_lm_perplexity"] = np.exp(np.float64(metrics["masked_lm_loss"]))
    metrics_files.write_metrics(os.path.join(options.output_dir, "eval_results"), metrics)
    return metrics


def entry() -> None:
    """The console command."""
    cli.run(run, Options, __doc__)


if __name__ == "__main__":
    entry()
