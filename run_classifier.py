r"""Fine-tunes BERT to classify texts or pairs of texts, evaluates it, and predicts.

Reads   your own .tsv, .csv or .jsonl files (--train_file, --eval_file, --predict_file), or the
        published files of a task (--task_name, --data_dir); and a pretrained model (--bert_dir).
Writes  to --output_dir a model: checkpoints, config, vocabulary, labels; eval_results.txt and
        .json, eval_report.txt, eval_top_losses.tsv; test_results.tsv (probabilities),
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
from typing import Any, ClassVar, Optional

from absl import logging

from bert_toolkit import cli
from bert_toolkit.options import (
    CHOOSING_THE_BEST,
    FINETUNING,
    CheckpointOptions,
    DeviceOptions,
    FinetuneOptions,
    ModelOptions,
    RuleOptions,
    TokenizerOptions,
    TrainingOptions,
    WindowOptions,
    check,
    option,
    window_option,
)
from bert_toolkit.tasks import start
from bert_toolkit.tasks.classification import learning_curve
from bert_toolkit.tasks.classification.data_options import DataOptions
from bert_toolkit.text import encoding


@dataclasses.dataclass(frozen=True)
class Options(DataOptions, ModelOptions, WindowOptions, FinetuneOptions):
    """The options of this stage."""

    truncate: str = option(
        encoding.HEAD,
        "What to keep of longer texts: the beginning, the end, or a quarter and the end.",
        choices=[encoding.HEAD, encoding.TAIL, encoding.HEAD_TAIL],
    )
    class_weights: Optional[list[str]] = option(
        None, "What examples count in the loss: balanced (rare labels more), or label:weight,..."
    )
    oversample: bool = option(False, "Repeat examples of rare labels.")
    label_smoothing: float = option(
        0.0, "Share of a label's probability that is spread over all labels.", lower=0.0, upper=0.9
    )
    rdrop_alpha: float = option(
        0.0,
        "Compute each text twice, with different dropout, and let the distance of the two answers"
        " count so much in the loss (R-Drop), 1 say; steps take twice the time.",
        lower=0.0,
    )
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
    slice_column: Optional[list[str]] = option(
        None,
        "Columns, separated by commas, for whose values metrics are listed too, in eval_slices.tsv"
        " and eval_results.json.",
    )
    slice_by_length: bool = option(
        False, "List metrics by length too: for each quarter of the texts, by their tokens."
    )
    learning_curve: Optional[list[str]] = option(
        None,
        "Train on so many rows each time, 500,1000,2000,all say, in rows_500/ and so on below"
        " --output_dir, with each seed of --num_runs; learning_curve.tsv has the metrics.",
    )
    output_dir: str = start.output_dir_option()
    max_seq_length: int = option(
        128, "Longest sequence in tokens, [CLS] and [SEP] included.", lower=4
    )
    init_checkpoint: Optional[str] = start.init_checkpoint_option()
    doc_stride: int = window_option(
        "each is trained on with the label of its text, and the mean of their outputs is the"
        " prediction."
    )

    GROUPS: ClassVar = {
        "Data": (DataOptions, "show_examples"),
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
            *FINETUNING,
            "learning_curve",
            "class_weights",
            "oversample",
            "label_smoothing",
            "rdrop_alpha",
            TrainingOptions,
            CheckpointOptions,
        ),
        "Choosing the best model": CHOOSING_THE_BEST,
        "Evaluation and prediction": (
            "checkpoint",
            "eval_batch_size",
            "predict_batch_size",
            "batch_tokens",
            "calibrate",
            "reject_below",
            "slice_column",
            "slice_by_length",
        ),
        "Device": (DeviceOptions,),
    }

    def __post_init__(self):
        conflicts = self.data_conflicts()
        if not any(self.actions()):
            conflicts.append("nothing to do: pass --do_train, --do_eval or --do_predict")
        conflicts += self.finetune_conflicts(trains=self.actions()[0])
        conflicts += learning_curve.conflicts(self)
        if self.oversample and self.class_weights:
            conflicts.append("--oversample and --class_weights: both for the same; choose one")
        if self.test_split and not (self.eval_file or self.eval_split):
            on_dev = {
                "num_runs": self.num_runs > 1,
                "learning_curve": bool(self.learning_curve),
                "calibrate": self.calibrate,
                "reject_below": "%" in (self.reject_below or ""),
            }
            conflicts += [
                f"--{name} goes by dev data: pass --eval_file or --eval_split beside"
                " --test_split, which chooses nothing"
                for name, asked in on_dev.items()
                if asked
            ]
        check(conflicts + self.window_conflicts() + self.training_conflicts())

    def actions(self) -> tuple[bool, bool, bool]:
        """Returns whether to train, to evaluate and to predict: as told, or as the files say."""
        if not self.is_custom:
            return self.told_or(False, False, False)
        evaluates = bool(self.eval_file or self.eval_split or self.test_split)
        predicts = bool(self.predict_file or self.test_split)
        return self.told_or(bool(self.train_file), evaluates, predicts)


def run(options: Options) -> dict[str, Any]:
    """Trains, evaluates and predicts as asked; returns the metrics on the main dev file, or {}.

    Raises:
      UserError: an input cannot be used.
    """
    if options.learning_curve:
        return learning_curve.run(options, lambda one: start.run(one, run_once))
    return start.run(options, run_once)


def run_once(options: Options) -> dict[str, Any]:
    """Does all for one seed."""
    from bert_toolkit.tasks import finetune
    from bert_toolkit.tasks.classification.classification import Classification

    actions, model = finetune.begin(options)
    task = Classification(load(options, actions), options, model.tokenizer())
    return finetune.run(task, model, options, actions)


def load(options: Options, actions: Any) -> Any:
    """Returns the data of the run; says what there is to train on.

    Raises:
      UserError: a file is missing, or has rows that cannot be used.
    """
    from bert_toolkit.tasks.classification import task_data

    # All files are read first: a bad row in the last one should not be found after hours of
    # training.
    data = task_data.load(
        options.task(),
        options,
        splits=task_data.Wanted(
            actions.train, actions.evaluate or bool(options.evaluate_every), actions.predict
        ),
        seed=options.seed,
        model_dirs=start.model_dirs(options),
    )
    if actions.train:
        for line in task_data.describe(data):
            logging.info("%s", line)
    return data


def entry() -> None:
    """The console command."""
    cli.run(run, Options, __doc__)


if __name__ == "__main__":
    entry()
