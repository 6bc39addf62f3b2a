r"""Fine-tunes BERT to answer questions on texts (SQuAD 1.1, 2.0 and sets like them), and answers.

Reads   questions with their texts: SQuAD's JSON, CMRC 2018's, or .jsonl (--train_file, --eval_file,
        --predict_file); and a pretrained model (--bert_dir).
Writes  to --output_dir a model; predictions.json, nbest_predictions.json and, where questions may
        have no answer, null_odds.json; eval_results.txt and .json with exact match and F1.

Training goes on where a run in the same --output_dir stopped. Without training, the model of
--output_dir is used, or, if it has none, the one given.

Examples:
  python run_squad.py --train_file=sample_data/questions/train.json \
    --eval_file=sample_data/questions/dev.json --bert_dir=out/pretrained --output_dir=out/answers \
    --max_seq_length=64 --doc_stride=32 --num_train_epochs=3

  echo '{"question": "Who ran?", "context": "The dog ran."}' | \
    python run_squad.py --output_dir=out/answers --predict_file=-

  python run_squad.py --train_file=train-v2.0.json --predict_file=dev-v2.0.json --do_train \
    --do_predict --version_2_with_negative --bert_dir=uncased_L-12_H-768_A-12 --output_dir=out/v2
"""

import dataclasses
from typing import Any, ClassVar, Optional

from bert_toolkit import cli
from bert_toolkit.io import files
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
    check,
    option,
)
from bert_toolkit.tasks import start

DOC_STRIDE = 128  # as published


@dataclasses.dataclass(frozen=True)
class Options(ModelOptions, FinetuneOptions):
    """The options of this stage."""

    train_file: Optional[str] = option(
        None,
        "Questions to train on: SQuAD's JSON, CMRC 2018's, or .jsonl with question, context, id and"
        " answers; .gz or not.",
    )
    eval_file: Optional[str] = option(None, "Questions with answers to evaluate on.")
    predict_file: Optional[str] = option(
        None,
        "Questions to answer; - for JSON lines on standard input, with answers on standard output.",
    )
    version_2_with_negative: Optional[bool] = option(
        None,
        "Whether some questions have no answer, as in SQuAD 2.0; without this flag, as the model"
        " was trained, else false.",
    )
    on_bad_row: str = option(
        "error",
        "Stop at questions that cannot be used, or leave them out, listed in bad_rows.tsv.",
        choices=["error", "skip"],
    )
    output_dir: str = start.output_dir_option()
    init_checkpoint: Optional[str] = start.init_checkpoint_option()
    max_seq_length: int = option(
        384, "Longest window in tokens: question, part of the text and special tokens.", lower=8
    )
    doc_stride: int = option(
        DOC_STRIDE,
        "How many tokens further each window of a long text begins than the last.",
        lower=1,
    )
    max_query_length: int = option(
        64, "Questions are cut to so many tokens, and to half of a window.", lower=1
    )
    n_best_size: int = option(
        20, "How many answers nbest_predictions.json has of a question.", lower=1
    )
    max_answer_length: int = option(30, "Longest answer in tokens.", lower=1)
    null_score_diff_threshold: Optional[float] = option(
        None,
        "With --version_2_with_negative: no answer is given where its score is more than this above"
        " that of the best one. Without this flag, what suited the dev data best (--eval_file),"
        " else 0.",
    )
    f1_unit: str = option(
        "words",
        "What F1 compares: words as in SQuAD, or characters as in CMRC 2018, for Chinese.",
        choices=["words", "characters"],
    )
    verbose_logging: bool = option(
        False, "List questions whose answer no window holds as a whole, which train no answer."
    )

    GROUPS: ClassVar = {
        "Data": (
            "train_file",
            "eval_file",
            "predict_file",
            "version_2_with_negative",
            "on_bad_row",
            "show_examples",
        ),
        "What to do": ("output_dir", "do_train", "do_eval", "do_predict"),
        "Model": (
            ModelOptions,
            TokenizerOptions,
            RuleOptions,
            "max_seq_length",
            "doc_stride",
            "max_query_length",
        ),
        "Training": (*FINETUNING, TrainingOptions, CheckpointOptions),
        "Choosing the best model": CHOOSING_THE_BEST,
        "Evaluation and prediction": (
            "checkpoint",
            "eval_batch_size",
            "predict_batch_size",
            "batch_tokens",
            "n_best_size",
            "max_answer_length",
            "null_score_diff_threshold",
            "f1_unit",
            "verbose_logging",
        ),
        "Device": (DeviceOptions,),
    }

    def __post_init__(self):
        conflicts = [
            f"--{name}=-: only --predict_file reads standard input; expected a file"
            for name in ("train_file", "eval_file")
            if getattr(self, name) == files.STREAM
        ]
        for action, name in zip(self.actions(), ("train_file", "eval_file", "predict_file")):
            if action and not getattr(self, name):
                conflicts.append(f"--{name} is required with --do_{name.removesuffix('_file')}")
        if not any(self.actions()):
            conflicts.append("nothing to do: pass --train_file, --eval_file or --predict_file")
        # The default suits long windows; in shorter ones there is no overlap, as published.
        if self.doc_stride > self.max_seq_length and self.doc_stride != DOC_STRIDE:
            conflicts.append(
                f"--doc_stride={self.doc_stride} is longer than windows of"
                f" --max_seq_length={self.max_seq_length}; pass at most that"
            )
        if self.num_runs > 1 and not (self.actions()[0] and self.eval_file):
            conflicts.append(
                f"--num_runs={self.num_runs} trains so many models and compares them; pass"
                " --train_file and --eval_file"
            )
        conflicts += self.finetune_conflicts(trains=self.actions()[0])
        check(conflicts + self.training_conflicts())

    def actions(self) -> tuple[bool, bool, bool]:
        """Returns whether to train, to evaluate and to predict: as told, or as the files say."""
        return self.told_or(bool(self.train_file), bool(self.eval_file), bool(self.predict_file))


def run(options: Options) -> dict[str, Any]:
    """Trains, evaluates and predicts as asked; returns the metrics on the eval file, or {}.

    Raises:
      UserError: an input cannot be used.
    """
    return start.run(options, run_once)


def run_once(options: Options) -> dict[str, Any]:
    """Does all for one seed."""
    from bert_toolkit.tasks import finetune

    actions, model = finetune.begin(options)
    return finetune.run(load(options, actions, model), model, options, actions)


def load(options: Options, actions: Any, model: Any) -> Any:
    """Returns the task with the questions of the run.

    Raises:
      UserError: a file is missing, or has questions that cannot be used.
    """
    from bert_toolkit.checkpoints import task_file
    from bert_toolkit.problems import ANSWERING
    from bert_toolkit.tasks.answering import answering

    if not actions.train:
        task_file.read(start.model_dirs(options), [ANSWERING])  # refuses models of other tasks
    settings = answering.settings_of(options)
    examples = answering.load(options, settings)
    return answering.Answering(examples, options, settings, model.tokenizer())


def entry() -> None:
    """The console command."""
    cli.run(run, Options, __doc__)


if __name__ == "__main__":
    entry()
