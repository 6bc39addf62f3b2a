r"""Fine-tunes BERT to classify texts or pairs of texts, evaluates it, and predicts.

Reads   the data set of a task (tab-separated files in --data_dir) and a pretrained model.
Writes  a model directory: checkpoints, config, vocabulary, labels; eval_results.txt and .json;
        test_results.tsv (probabilities), test_predictions.tsv (row, label, named probabilities).

Training goes on where a run in the same --output_dir stopped. Without --do_train, the model of
--output_dir is used, or, if it has none, the one given.

Example:
  python run_classifier.py --task_name=sst-2 --data_dir=sample_data/reviews \
    --bert_dir=out/pretrained --output_dir=out/reviews --do_train --do_eval --do_predict \
    --max_seq_length=64 --num_train_epochs=8 --learning_rate=3e-4
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import Any

from absl import flags, logging

from bert_toolkit import cli, cluster, features, files, records, tasks
from bert_toolkit.engine import DEFAULT_ENGINE, Engine
from bert_toolkit.errors import UserError
from bert_toolkit.progress import Progress


def define_flags() -> None:
    """Defines the flags of this stage."""
    with cli.group("Task"):
        flags.DEFINE_string("task_name", None, f"One of {', '.join(tasks.TASKS)}.", required=True)
        flags.DEFINE_string(
            "data_dir", None, "Directory with the files of the task.", required=True
        )
        flags.DEFINE_string(
            "output_dir", None, "Directory for the model and the results.", required=True
        )
        flags.DEFINE_boolean("do_train", False, "Train on the training files.")
        flags.DEFINE_boolean("do_eval", False, "Evaluate on the dev files.")
        flags.DEFINE_boolean("do_predict", False, "Predict the labels of the test files.")
    with cli.group("Model"):
        cli.define_model_flags(
            "Weights to start from where --output_dir has no checkpoint yet: a prefix such as"
            " bert_model.ckpt, its .index file, a directory, or a Hugging Face model.safetensors."
        )
        cli.define_tokenizer_flags()
        flags.DEFINE_integer(
            "max_seq_length",
            128,
            "Longest sequence in tokens, [CLS] and [SEP] included; longer texts are cut.",
            lower_bound=4,
        )
    with cli.group("Training"):
        cli.define_training_flags()
        flags.DEFINE_integer(
            "eval_batch_size", 8, "Examples in a batch of evaluation.", lower_bound=1
        )
        flags.DEFINE_integer(
            "predict_batch_size", 8, "Examples in a batch of prediction.", lower_bound=1
        )
        flags.DEFINE_float(
            "num_train_epochs",
            3.0,
            "Passes over the training data; may be a fraction.",
            lower_bound=0.0,
        )
        flags.DEFINE_float(
            "warmup_proportion",
            0.1,
            "Share of the steps over which the learning rate rises from zero.",
            lower_bound=0.0,
            upper_bound=1.0,
        )
        cli.define_checkpoint_flags()
    with cli.group("Device"):
        cli.define_device_flags()


@dataclasses.dataclass(frozen=True)
class Options(cli.ModelOptions, cli.TrainingOptions):
    """The flags of this stage, by their names."""

    task_name: str = ""
    data_dir: str = ""
    output_dir: str = ""
    do_train: bool = False
    do_eval: bool = False
    do_predict: bool = False
    max_seq_length: int = 128
    eval_batch_size: int = 8
    predict_batch_size: int = 8
    num_train_epochs: float = 3.0
    warmup_proportion: float = 0.1

    def __post_init__(self):
        problems = []
        if not (self.do_train or self.do_eval or self.do_predict):
            problems.append("nothing to do: pass --do_train, --do_eval or --do_predict")
        files_missing = self.missing_files("bert_config_file", "vocab_file")
        cli.check(problems + self.training_problems() + files_missing)

    def schema(self) -> records.Schema:
        """Returns the features of the data."""
        return records.classification_schema(self.max_seq_length)

    def train_steps(self, num_examples: int) -> int:
        """Returns the training steps that --num_train_epochs make, as published."""
        return int(num_examples / self.train_batch_size * self.num_train_epochs)


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A split as the model reads it: a TFRecord file, and the names of its rows."""

    path: str
    names: list[str]


def run(options: Options) -> dict[str, Any]:
    """Trains, evaluates and predicts as asked; returns the metrics on the main dev file, or {}.

    Raises:
      UserError: an input cannot be used.
    """
    # TensorFlow is imported when a model is needed, so that --help and mistakes answer at once.
    from bert_toolkit import checkpoints, estimators, model_dirs, model_fns

    task = tasks.find(options.task_name)
    model = model_dirs.find(options)
    model_dirs.check_length(options.max_seq_length, model)
    tokenizer = model.tokenizer()
    model_dirs.check_labels(options.output_dir, task.labels)
    files.make_directory(options.output_dir, "output_dir")
    if options.do_train:
        checkpoints.begin(options.output_dir, options.resume, options.overwrite)
    else:
        checkpoints.leave_damaged(options.output_dir)

    # All files are read first: a bad row in the last one should not be found after hours of
    # training.
    train_data = (
        encode_split(task.train, "train", task, tokenizer, options) if options.do_train else None
    )
    dev_data = encode_splits(task.dev, "eval", task, tokenizer, options) if options.do_eval else {}
    test_data = (
        encode_splits(task.test, "predict", task, tokenizer, options) if options.do_predict else {}
    )
    train_steps = options.train_steps(len(train_data.names)) if train_data else 0

    with checkpoints.as_tensorflow(model.init_checkpoint) as init_checkpoint:
        model_fn = model_fns.make(
            network(model.config, len(task.labels), options.engine()),
            options.output_dir,
            init_checkpoint,
            options.use_tpu,
            model_fns.Training.of(
                options, train_steps, int(train_steps * options.warmup_proportion)
            ),
        )
        runner = estimators.Runner(
            model_fn,
            options.output_dir,
            options,
            estimators.BatchSizes(
                options.train_batch_size, options.eval_batch_size, options.predict_batch_size
            ),
            options,
        )
        if train_data:
            train(runner, train_data, train_steps, model, task, options)
        if not cluster.is_chief():
            return {}  # the first of several hosts evaluates and predicts
        metrics = {
            suffix: evaluate(runner, data, suffix, options) for suffix, data in dev_data.items()
        }
        for suffix, data in test_data.items():
            predict(runner, data, suffix, task, options)
    return metrics.get("", {})


# --- Data ---


def encode_splits(
    splits: Mapping[str, tasks.Split], stem: str, task, tokenizer, options: Options
) -> dict[str, Encoded]:
    """Encodes the splits that are there; the main one has to be."""
    there = {
        suffix: split
        for suffix, split in splits.items()
        if not suffix or files.exists(os.path.join(options.data_dir, split.file))
    }
    return {
        suffix: encode_split(split, stem + suffix, task, tokenizer, options)
        for suffix, split in there.items()
    }


def encode_split(split: tasks.Split, stem: str, task, tokenizer, options: Options) -> Encoded:
    """Writes a split to `stem`.tf_record in the output directory and says what it is made of."""
    path = os.path.join(options.output_dir, f"{stem}.tf_record")
    schema = options.schema()
    names: list[str] = []
    tokens = cut = 0
    with (
        files.replacing([path]) as [unfinished],
        Progress(f"reading {split.file}", "rows") as progress,
    ):
        writer = records.RecordWriter(unfinished)
        for example in tasks.read_examples(options.data_dir, split, task):
            encoded = features.encode(
                tokenizer, example.text_a, example.text_b, options.max_seq_length
            )
            writer.write(
                schema.encode(
                    record_values(encoded, task.labels.index(example.label or task.labels[0]))
                )
            )
            names.append(example.name)
            tokens += len(encoded.input_ids)
            cut += encoded.cut > 0
            progress.update()
        writer.close()
    logging.info(
        "%s: %s rows, %.1f tokens on average, %.1f %% cut to %d",
        split.file,
        f"{len(names):,}",
        tokens / len(names),
        100 * cut / len(names),
        options.max_seq_length,
    )
    return Encoded(path, names)


def record_values(encoded: features.Encoded, label_id: int) -> dict[str, Any]:
    """Returns the features of an example by name, unpadded."""
    return {
        "input_ids": encoded.input_ids,
        "input_mask": [1] * len(encoded.input_ids),
        "segment_ids": encoded.segment_ids,
        "label_ids": [label_id],
        "is_real_example": [1],
    }


# --- The three things to do ---


def train(
    runner, data: Encoded, train_steps: int, model, task: tasks.Task, options: Options
) -> None:
    """Trains from where --output_dir stands to `train_steps`."""
    from bert_toolkit import model_dirs, model_fns

    if not train_steps:
        raise UserError(
            f"nothing to train: {len(data.names)} rows and"
            f" --num_train_epochs={options.num_train_epochs:g} make no"
            f" step of --train_batch_size={options.train_batch_size}"
        )
    step = model_fns.starting_step(options.output_dir, train_steps)
    if step >= train_steps:
        return
    model_dirs.write(options.output_dir, model, task.labels)
    reading = records.Reading(
        repeat=True,
        shuffle_buffer=len(data.names),
        seed=options.seed,
        static_shapes=options.static_shapes,
    )
    runner.train(records.RecordInput([data.path], options.schema(), reading), train_steps)
    logging.info("trained to step %d; the model is in %s", train_steps, options.output_dir)


def evaluate(runner, data: Encoded, suffix: str, options: Options) -> dict[str, Any]:
    """Evaluates on a dev split and writes eval_results.txt and .json."""
    from bert_toolkit import results

    # A TPU has to be told how many batches there are.
    steps = -(-len(data.names) // options.eval_batch_size) if options.use_tpu else None
    reading = records.Reading(repeat=False, static_shapes=options.static_shapes)
    metrics = runner.evaluate(
        records.RecordInput([data.path], options.schema(), reading),
        f"evaluating{suffix.replace('_', ' ')}",
        steps,
    )
    results.write_metrics(os.path.join(options.output_dir, f"eval_results{suffix}"), metrics)
    return metrics


def predict(runner, data: Encoded, suffix: str, task: tasks.Task, options: Options) -> None:
    """Predicts a test split and writes test_results.tsv and test_predictions.tsv."""
    reading = records.Reading(repeat=False, static_shapes=options.static_shapes)
    batches = runner.predict(records.RecordInput([data.path], options.schema(), reading))
    paths = [
        os.path.join(options.output_dir, f"test_{what}{suffix}.tsv")
        for what in ("results", "predictions")
    ]
    with (
        files.replacing(paths) as names,
        Progress("predicting", "rows", len(data.names)) as progress,
    ):
        with (
            files.open_binary(names[0], "wb") as results,
            files.open_binary(names[1], "wb") as predictions,
        ):
            header = ["index", "prediction", *(f"probability_{label}" for label in task.labels)]
            predictions.write(("\t".join(header) + "\n").encode())
            for name, probabilities in zip(data.names, _real_rows(batches)):
                numbers = "\t".join(map(str, probabilities))
                results.write(f"{numbers}\n".encode())
                predictions.write(
                    f"{name}\t{task.labels[probabilities.argmax()]}\t{numbers}\n".encode()
                )
                progress.update()
    if progress.done != len(data.names):
        raise UserError(f"{data.path}: {progress.done} predictions for {len(data.names)} rows")
    logging.info("%s rows predicted: %s", f"{progress.done:,}", " and ".join(paths))


def _real_rows(batches: Iterable[Mapping[str, Any]]) -> Iterable[Any]:
    """Yields the probabilities of each row, [labels], without those that fill a batch."""
    for batch in batches:
        yield from batch["probabilities"][batch["is_real_example"] == 1]


# --- The network ---


def network(config, num_labels: int, engine: Engine = DEFAULT_ENGINE):
    """Returns the function (features, mode) -> Outputs: BERT with a linear layer over [CLS]."""
    import tensorflow.compat.v1 as tf

    import modeling
    from bert_toolkit import metrics, model_fns
    from bert_toolkit.outputs import Mean, Outputs

    def build(features: Mapping[str, tf.Tensor], mode: str) -> Outputs:
        training = mode == tf.estimator.ModeKeys.TRAIN
        model = model_fns.encoder(config, features, mode, engine)
        pooled = modeling.dropout(
            model.get_pooled_output(), config.hidden_dropout_prob if training else 0.0
        )  # [B, H]
        logits = modeling.output_layer(
            pooled, num_labels, modeling.create_initializer()
        )  # [B, labels]
        is_real, labels = features["is_real_example"], features["label_ids"]  # [B]
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)  # [B]
        best = tf.argmax(logits, -1)
        return Outputs(
            predictions={"probabilities": tf.nn.softmax(logits), "is_real_example": is_real},
            losses={"loss": Mean(tf.reduce_sum(losses), tf.size(labels))},
            metrics=(metrics.classification, [losses, labels, best, tf.cast(is_real, tf.float32)]),
            shown={"accuracy": metrics.share_equal(best, labels)},
        )

    return build


def main(values: Any) -> None:
    """Runs the stage with the parsed flags."""
    run(cli.options_from_flags(Options, values))


def entry() -> None:
    """The console command."""
    cli.run(main, __doc__, define_flags)


if __name__ == "__main__":
    entry()
