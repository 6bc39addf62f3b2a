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
from collections.abc import Mapping
from typing import Any, Optional

from absl import flags, logging

from bert_toolkit import cli, files, records, tokenizers

# Instances among which the next one is drawn; the files were shuffled as a whole when they were
# made.
SHUFFLE_BUFFER = 10_000
PUBLISHED_EVAL_STEPS = 100


def define_flags() -> None:
    """Defines the flags of this stage."""
    with cli.group("Model"):
        cli.define_model_flags(
            "Weights to start from where --output_dir has no checkpoint yet: a prefix such as"
            " bert_model.ckpt, its .index file, a directory, or a Hugging Face model.safetensors."
            " Without it, random weights."
        )
        cli.define_tokenizer_flags()
    with cli.group("Input and output"):
        flags.DEFINE_string(
            "input_file", None, "TFRecord files to train on: names and patterns, comma-separated."
        )
        flags.DEFINE_string(
            "eval_file", None, "TFRecord files to evaluate on; without it, those of --input_file."
        )
        flags.DEFINE_string(
            "output_dir", None, "Directory for checkpoints and results.", required=True
        )
        flags.DEFINE_integer(
            "max_seq_length",
            128,
            "Longest sequence in tokens; what the data was made with.",
            lower_bound=5,
        )
        flags.DEFINE_integer(
            "max_predictions_per_seq",
            20,
            "Most masked tokens in a sequence; what the data was made with.",
            lower_bound=1,
        )
    with cli.group("Training"):
        flags.DEFINE_boolean("do_train", False, "Train.")
        flags.DEFINE_integer(
            "train_batch_size", 32, "Sequences in a step, over all devices.", lower_bound=1
        )
        flags.DEFINE_float("learning_rate", 5e-5, "Peak learning rate of AdamW.", lower_bound=0.0)
        flags.DEFINE_integer(
            "num_train_steps",
            100000,
            "Steps in all, those of earlier runs in --output_dir included.",
            lower_bound=1,
        )
        flags.DEFINE_integer(
            "num_warmup_steps",
            10000,
            "Steps over which the learning rate rises from zero.",
            lower_bound=0,
        )
        flags.DEFINE_integer(
            "save_checkpoints_steps", 1000, "Steps between checkpoints.", lower_bound=1
        )
    with cli.group("Evaluation"):
        flags.DEFINE_boolean("do_eval", False, "Evaluate; after training, if both are asked for.")
        flags.DEFINE_integer("eval_batch_size", 8, "Sequences in a batch.", lower_bound=1)
        flags.DEFINE_integer(
            "max_eval_steps",
            None,
            f"Most batches to evaluate. Without it, all of --eval_file, or {PUBLISHED_EVAL_STEPS}"
            " batches of --input_file.",
            lower_bound=1,
        )
    with cli.group("Device"):
        cli.define_device_flags()


@dataclasses.dataclass(frozen=True)
class Options(cli.ModelOptions, cli.DeviceOptions):
    """The flags of this stage, by their names."""

    output_dir: str = ""
    input_file: Optional[str] = None
    eval_file: Optional[str] = None
    max_seq_length: int = 128
    max_predictions_per_seq: int = 20
    do_train: bool = False
    do_eval: bool = False
    train_batch_size: int = 32
    eval_batch_size: int = 8
    learning_rate: float = 5e-5
    num_train_steps: int = 100000
    num_warmup_steps: int = 10000
    save_checkpoints_steps: int = 1000
    max_eval_steps: Optional[int] = None

    def __post_init__(self):
        problems = []
        if not self.do_train and not self.do_eval:
            problems.append("nothing to do: pass --do_train, --do_eval or both")
        if self.input_file is None and (self.do_train or self.eval_file is None):
            problems.append("--input_file is required")
        cli.check(problems + self.missing_files("bert_config_file"))

    def schema(self) -> records.Schema:
        """Returns the features of the data."""
        return records.pretraining_schema(self.max_seq_length, self.max_predictions_per_seq)


def run(options: Options) -> dict[str, Any]:
    """Trains and evaluates as asked; returns the metrics of the evaluation, or {}.

    Raises:
      UserError: an input cannot be used.
    """
    # TensorFlow is imported when a model is needed, so that --help and mistakes answer at once.
    from bert_toolkit import checkpoints, estimators, model_dirs, model_fns

    model = model_dirs.find(options)
    model_dirs.check_length(options.max_seq_length, model)
    train_files = (
        _data_files(options.input_file or "", "input_file", options, model)
        if options.do_train
        else []
    )
    eval_files = _eval_files(options, model) if options.do_eval else []
    files.make_directory(options.output_dir, "output_dir")

    with checkpoints.as_tensorflow(model.init_checkpoint) as init_checkpoint:
        model_fn = model_fns.make(
            network(model.config, static_shapes=options.use_tpu),
            options.output_dir,
            init_checkpoint,
            options.use_tpu,
            model_fns.Training(
                options.learning_rate, options.num_train_steps, options.num_warmup_steps
            ),
        )
        runner = estimators.Runner(
            model_fn,
            options.output_dir,
            options,
            estimators.BatchSizes(train=options.train_batch_size, evaluate=options.eval_batch_size),
            options.save_checkpoints_steps,
        )
        if options.do_train:
            train(runner, train_files, model, options)
        return evaluate(runner, eval_files, options) if options.do_eval else {}


def _data_files(patterns: str, flag: str, options: Options, model) -> list[str]:
    paths = files.expand_inputs(patterns, flag)
    records.check_data(paths, options.schema(), model.config.vocab_size)
    return paths


def _eval_files(options: Options, model) -> list[str]:
    if options.eval_file:
        return _data_files(options.eval_file, "eval_file", options, model)
    logging.warning(
        "evaluating on the training data (--input_file); --eval_file names held-out data"
    )
    return _data_files(options.input_file or "", "input_file", options, model)


def train(runner, train_files: list[str], model, options: Options) -> None:
    """Trains from where --output_dir stands to --num_train_steps."""
    from bert_toolkit import model_dirs, model_fns

    step = model_fns.starting_step(options.output_dir, options.num_train_steps)
    if step >= options.num_train_steps:
        return
    reading = records.Reading(
        repeat=True,
        shuffle_buffer=SHUFFLE_BUFFER,
        seed=options.seed + step,  # a run that goes on does not see the first instances again
        static_shapes=options.use_tpu,
    )
    model_dirs.write(options.output_dir, _with_tokenization(model, train_files))
    runner.train(
        records.RecordInput(train_files, options.schema(), reading), options.num_train_steps
    )
    logging.info(
        "trained to step %d; the model is in %s", options.num_train_steps, options.output_dir
    )


def _with_tokenization(model, train_files: list[str]):
    """Returns the model's files with the vocabulary and casing that the data's note names."""
    note = records.read_note(train_files[0]) or {}
    vocab_file = model.vocab_file
    noted = note.get("vocab_file", "")
    unchanged = files.exists(noted) and files.digest(noted) == note.get("vocab_sha256")
    if vocab_file is None and unchanged:
        vocab_file = noted
    return dataclasses.replace(
        model, vocab_file=vocab_file, rules=tokenizers.rules_from(note, model.rules)
    )


def evaluate(runner, eval_files: list[str], options: Options) -> dict[str, Any]:
    """Evaluates the latest checkpoint of --output_dir and writes eval_results.txt and .json."""
    from bert_toolkit import results

    steps = options.max_eval_steps
    if steps is None and not options.eval_file:
        steps = PUBLISHED_EVAL_STEPS
    if options.use_tpu:
        # A TPU has to be told how many batches there are.
        all_steps = -(-records.count_records(eval_files) // options.eval_batch_size)
        steps = min(steps or all_steps, all_steps)
    reading = records.Reading(repeat=False, static_shapes=options.use_tpu)
    metrics = runner.evaluate(
        records.RecordInput(eval_files, options.schema(), reading), "evaluating", steps
    )
    results.write_metrics(os.path.join(options.output_dir, "eval_results"), metrics)
    return metrics


# --- The network ---


def network(config, static_shapes: bool = False):
    """Returns the function (features, mode) -> Outputs: BERT with both pretraining heads.

    Args:
      config: sizes of the model.
      static_shapes: predict at all of max_predictions_per_seq positions, as TPUs need; otherwise
        only at real ones.
    """
    import tensorflow.compat.v1 as tf

    import modeling
    from bert_toolkit import metrics, model_fns

    def build(features: Mapping[str, tf.Tensor], mode: str) -> model_fns.Outputs:
        model = model_fns.encoder(config, features, mode, static_shapes)
        positions, masked_ids, weights = masked_tokens(features, static_shapes)
        masked_logits = modeling.masked_lm_logits(model, config, positions)  # [M, V]
        masked_losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=masked_ids, logits=masked_logits
        )
        masked_loss = tf.reduce_sum(weights * masked_losses) / (tf.reduce_sum(weights) + 1e-5)

        next_labels = features["next_sentence_labels"][:, 0]  # [B]
        next_logits = modeling.next_sentence_logits(model, config)  # [B, 2]
        next_losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=next_labels, logits=next_logits
        )
        next_loss = tf.reduce_mean(next_losses)

        masked_best, next_best = tf.argmax(masked_logits, -1), tf.argmax(next_logits, -1)
        is_real = tf.cast(
            features["input_mask"][:, 0], tf.float32
        )  # [B]; filling has no token at all
        return model_fns.Outputs(
            predictions={},
            loss=masked_loss + next_loss,
            metrics=(
                metrics.pretraining,
                [
                    masked_losses,
                    masked_best,
                    masked_ids,
                    weights,
                    next_losses,
                    next_best,
                    next_labels,
                    is_real,
                ],
            ),
            shown={
                "masked_lm_loss": masked_loss,
                "next_sentence_loss": next_loss,
                "masked_lm_accuracy": metrics.share_equal(masked_best, masked_ids),
                "next_sentence_accuracy": metrics.share_equal(next_best, next_labels),
            },
        )

    return build


def masked_tokens(features: Mapping[str, Any], static_shapes: bool) -> tuple[Any, Any, Any]:
    """Returns where tokens are to be predicted in a batch, and which.

    Args:
      features: of pretraining, [B, P] those named masked_lm_*.
      static_shapes: return all M = B * P slots, with weight 0 where they are filling, rather than
        the M that are real.

    Returns:
      int32 [M, 2], row in the batch and position in the sequence; int32 [M], the tokens that stood
      there; float32 [M], their weights.
    """
    import tensorflow.compat.v1 as tf

    import modeling

    weights = features["masked_lm_weights"]
    batch_size, slots = modeling.get_shape_list(weights)
    rows = tf.broadcast_to(tf.range(batch_size)[:, None], [batch_size, slots])
    columns = [rows, features["masked_lm_positions"], features["masked_lm_ids"], weights]
    if static_shapes:
        columns = [tf.reshape(column, [-1]) for column in columns]
    else:
        columns = [tf.boolean_mask(column, weights > 0) for column in columns]
    rows, positions, ids, weights = columns
    return tf.stack([rows, positions], axis=1), ids, weights


def main(values: Any) -> None:
    """Runs the stage with the parsed flags."""
    run(cli.options_from_flags(Options, values))


def entry() -> None:
    """The console command."""
    cli.run(main, __doc__, define_flags)


if __name__ == "__main__":
    entry()
