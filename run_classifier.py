r"""Fine-tunes BERT to classify texts or pairs of texts, evaluates it, and predicts.

Reads   your own .tsv, .csv or .jsonl files (--train_file, --eval_file, --predict_file), or the
        published files of a task (--task_name, --data_dir); and a pretrained model (--bert_dir).
Writes  to --output_dir a model: checkpoints, config, vocabulary, labels; eval_results.txt and
        .json, eval_report.txt, eval_worst.tsv; test_results.tsv (probabilities),
        test_predictions.tsv (id, label, named probabilities, margin).

Training goes on where a run in the same --output_dir stopped. Without training, the model of
--output_dir is used, or, if it has none, the one given.

Examples:
  python run_classifier.py --train_file=sample_data/reviews/train.tsv --eval_split=0.1 \
    --bert_dir=out/pretrained --output_dir=out/own --max_seq_length=64 --num_train_epochs=3

  cut -f2 sample_data/reviews/test.tsv | python run_classifier.py --output_dir=out/own \
    --predict_file=- --max_seq_length=64

  python run_classifier.py --task_name=sst-2 --data_dir=sample_data/reviews \
    --bert_dir=out/pretrained --output_dir=out/reviews --do_train --do_eval --do_predict \
    --max_seq_length=64 --num_train_epochs=8 --learning_rate=3e-4
"""

import dataclasses
import functools
import os
from typing import Any, ClassVar, Optional

from absl import logging

from bert_toolkit import cli
from bert_toolkit.io import files
from bert_toolkit.options import (
    CheckpointOptions,
    DeviceOptions,
    ModelOptions,
    RuleOptions,
    TokenizerOptions,
    TrainingOptions,
    WindowOptions,
    check,
    option,
    window_option,
)
from bert_toolkit.tasks.classification.data_options import DataOptions
from bert_toolkit.text import encoding
from bert_toolkit.training import cluster


@dataclasses.dataclass(frozen=True)
class Options(DataOptions, ModelOptions, WindowOptions, TrainingOptions):
    """The options of this stage."""

    do_train: bool = option(
        False,
        "Train. If no --do_... is given with files of your own, all that they are for is done.",
    )
    do_eval: bool = option(False, "Evaluate.")
    do_predict: bool = option(False, "Predict.")
    truncate: str = option(
        encoding.HEAD,
        "What to keep of longer texts: the beginning, the end, or a quarter and the end.",
        choices=[encoding.HEAD, encoding.TAIL, encoding.HEAD_TAIL],
    )
    num_train_epochs: float = option(
        3.0, "Passes over the training data; may be a fraction.", lower=0.0
    )
    warmup_proportion: float = option(
        0.1,
        "Share of the steps over which the learning rate rises from zero.",
        lower=0.0,
        upper=1.0,
    )
    class_weights: Optional[list[str]] = option(
        None, "What examples count in the loss: balanced (rare labels more), or label:weight,..."
    )
    oversample: bool = option(False, "Repeat examples of rare labels.")
    label_smoothing: float = option(
        0.0, "Share of a label's probability that is spread over all labels.", lower=0.0, upper=0.9
    )
    evaluate_every: Optional[str] = option(
        None,
        "Evaluate while training, every so many steps or every epoch, and keep the best model in"
        " best/ below --output_dir.",
    )
    best_metric: Optional[str] = option(
        None,
        "What decides which is best: a metric of eval_results.txt without eval_; without it,"
        " what the task is judged by (accuracy, f1_micro, spearman).",
    )
    early_stopping_patience: int = option(
        0, "Stop after so many evaluations without a better one; 0 for never.", lower=0
    )
    num_runs: int = option(
        1,
        "Train so many times with seeds --seed, --seed + 1, ... in run_1/, run_2/, ...; the best"
        " model is kept in best/, runs.tsv compares them.",
        lower=1,
    )
    checkpoint: Optional[str] = option(
        None,
        "The model to evaluate and predict with: best, last, or a path; without it, the best if"
        " there is one.",
    )
    eval_batch_size: int = option(8, "Examples in a batch of evaluation.", lower=1)
    predict_batch_size: int = option(8, "Examples in a batch of prediction.", lower=1)
    calibrate: bool = option(
        False,
        "Choose on the dev data a temperature that makes probabilities true, and, where there may"
        " be several labels, their thresholds; kept in calibration.json and used in predicting.",
    )
    reject_below: Optional[str] = option(
        None,
        "Answer 'other' below this probability, 0.8 say, or for that share of the dev data, 10%"
        " say; kept in calibration.json.",
    )
    output_dir: str = option("", "Directory for the model and the results.", required=True)
    max_seq_length: int = option(
        128, "Longest sequence in tokens, [CLS] and [SEP] included.", lower=4
    )
    init_checkpoint: Optional[str] = option(
        None,
        "Weights to start from where --output_dir has no checkpoint yet: a prefix such as"
        " bert_model.ckpt, its .index file, a directory, or a Hugging Face model.safetensors.",
    )
    doc_stride: int = window_option(
        "each is trained on with the label of its text, and the mean of their outputs is the"
        " prediction."
    )

    GROUPS: ClassVar = {
        "Data": (DataOptions,),
        "What to do": ("output_dir", "do_train", "do_eval", "do_predict"),
        "Model": (
            ModelOptions,
            TokenizerOptions,
            RuleOptions,
            "max_seq_length",
            "truncate",
            "doc_stride",
        ),
        "Training": (
            "num_train_epochs",
            "warmup_proportion",
            "class_weights",
            "oversample",
            "label_smoothing",
            TrainingOptions,
            CheckpointOptions,
        ),
        "Choosing the best model": (
            "evaluate_every",
            "best_metric",
            "early_stopping_patience",
            "num_runs",
        ),
        "Evaluation and prediction": (
            "checkpoint",
            "eval_batch_size",
            "predict_batch_size",
            "calibrate",
            "reject_below",
        ),
        "Device": (DeviceOptions,),
    }

    def __post_init__(self):
        conflicts = self.data_conflicts()
        if not any(self.actions()):
            conflicts.append("nothing to do: pass --do_train, --do_eval or --do_predict")
        every = self.evaluate_every
        if every not in (None, "epoch") and not (every.isdigit() and int(every)):
            conflicts.append(f"--evaluate_every={every}: expected epoch, or a number of steps")
        if self.checkpoint == "best" and self.actions()[0] and not every and self.num_runs == 1:
            conflicts.append("--checkpoint=best: --evaluate_every says when to look for the best")
        if self.early_stopping_patience and not every:
            conflicts.append("--early_stopping_patience goes with --evaluate_every")
        if self.oversample and self.class_weights:
            conflicts.append("--oversample and --class_weights: both for the same; choose one")
        check(conflicts + self.window_conflicts() + self.training_conflicts())

    def actions(self) -> tuple[bool, bool, bool]:
        """Returns whether to train, to evaluate and to predict: as told, or as the files say."""
        told = (self.do_train, self.do_eval, self.do_predict)
        if any(told) or not self.is_custom:
            return told
        evaluates = bool(self.eval_file or self.eval_split)
        return bool(self.train_file), evaluates, bool(self.predict_file)

    def train_steps(self, num_examples: int) -> int:
        """Returns the training steps that --num_train_epochs make, as published."""
        return int(num_examples / self.train_batch_size * self.num_train_epochs)

    def steps_between_evaluations(self, num_examples: int) -> int:
        """Returns how often to evaluate while training; 0 for never."""
        if self.evaluate_every is None:
            return 0
        if self.evaluate_every == "epoch":
            return max(1, num_examples // self.train_batch_size)
        return int(self.evaluate_every)


def resolve(options: Options) -> Options:
    """Completes the options by what is there: a model in --output_dir, other hosts.

    Raises:
      UserError: no model is named, or an option is not for several hosts.
    """
    if not options.bert_dir and not options.bert_config_file:
        options = dataclasses.replace(options, bert_dir=_own_model(options.output_dir))
    check(options.missing_files("bert_config_file", "vocab_file") + cluster.conflicts(options))
    return options


def _own_model(output_dir: str) -> Optional[str]:
    """Returns the directory of the model that an earlier run left, if there is one."""
    for directory in (output_dir, os.path.join(output_dir, "best")):
        if files.exists(os.path.join(directory, "checkpoint")):
            return directory
    return None


def run(options: Options) -> dict[str, Any]:
    """Trains, evaluates and predicts as asked; returns the metrics on the main dev file, or {}.

    Raises:
      UserError: an input cannot be used.
    """
    options = resolve(options)
    # TensorFlow is imported when a model is needed, so that --help and mistakes answer at once.
    from bert_toolkit.tasks import seeds

    if options.num_runs > 1:
        return seeds.run(options, run_once)
    return run_once(options)


def run_once(options: Options) -> dict[str, Any]:
    """Does all for one seed."""
    from bert_toolkit.checkpoints import model_directory, training_notes
    from bert_toolkit.tasks import best_model
    from bert_toolkit.tasks.classification import classifier, encoded, task_data
    from bert_toolkit.training import output_dir

    trains, evaluates, predicts = options.actions()
    task = options.task()
    model = model_directory.find(options)
    model_directory.check_length(options.max_seq_length, model)
    files.make_directory(options.output_dir, "output_dir")
    # All files are read first: a bad row in the last one should not be found after hours of
    # training.
    data = task_data.load(
        task,
        options,
        splits=task_data.Wanted(trains, evaluates or bool(options.evaluate_every), predicts),
        seed=options.seed,
        model_dirs=[
            options.output_dir,
            os.path.join(options.output_dir, best_model.BEST),
            options.bert_dir or options.output_dir,
        ],
    )
    model_directory.check_labels(options.output_dir, data.problem.labels)
    if trains:
        output_dir.begin(options.output_dir, options.resume, options.overwrite)
        for line in task_data.describe(data):
            logging.info("%s", line)
    else:
        output_dir.leave_damaged(options.output_dir)

    tokenizer = model.tokenizer()
    vocabulary = training_notes.Vocabulary.of(model.vocab_file or "")
    made = classifier.Classifier(model, vocabulary, data, options)
    made.check_vocabulary(trains)
    write = functools.partial(
        encoded.write,
        problem=data.problem,
        tokenizer=tokenizer,
        cutting=encoded.Cutting(options.max_seq_length, options.truncate, options.doc_stride),
    )

    def path(name: str) -> str:
        return os.path.join(options.output_dir, f"{name}.tf_record")

    train = None
    if data.train is not None:
        copies = classifier.copies(data, options)
        train = write(path("train"), "train", data.train, by_length=False, copies=copies)
    dev = {
        s: write(path(f"eval{s}"), f"dev{s}", rows, by_length=True) for s, rows in data.dev.items()
    }
    test = {
        s: write(path(f"predict{s}"), f"test{s}", rows, by_length=True)
        for s, rows in data.test.items()
    }

    if train:
        made.train(train, dev.get(""))
    if not cluster.is_chief():
        return {}  # the first of several hosts evaluates and predicts
    found = {}
    if evaluates:
        found = {suffix: made.evaluate(split, suffix) for suffix, split in dev.items()}
    for suffix, split in test.items():
        made.predict(split, suffix, task.submissions.get(suffix))
    return found.get("", {})


def entry() -> None:
    """The console command."""
    cli.run(run, Options, __doc__)


if __name__ == "__main__":
    entry()
