r"""Fine-tunes BERT to tag words, so that entities are found in text; evaluates it, and predicts.

Reads   sentences in columns (CoNLL: a word and its tag a line), or JSON lines with tokens and tags
        (--train_file, --eval_file, --predict_file); texts, a line each, to find entities in; and a
        pretrained model (--bert_dir).
Writes  to --output_dir a model: checkpoints, config, vocabulary, labels; eval_results.txt and
        .json, eval_report.txt, eval_errors.tsv; test_predictions.conll or .jsonl, which is the
        file to predict with tags in it, or of texts their entities with offsets.

Training goes on where a run in the same --output_dir stopped. Without training, the model of
--output_dir is used, or, if it has none, the one given.

Examples:
  python run_token_classifier.py --train_file=sample_data/tags/train.conll \
    --eval_file=sample_data/tags/dev.conll --bert_dir=out/pretrained --output_dir=out/tags \
    --max_seq_length=32 --num_train_epochs=20 --learning_rate=5e-4

  echo 'Anna Weber took the train to Norby.' | python run_token_classifier.py \
    --output_dir=out/tags --predict_file=- --max_seq_length=32
"""

import dataclasses
from collections.abc import Sequence
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
    WindowOptions,
    check,
    option,
)
from bert_toolkit.tasks import start
from bert_toolkit.tasks.tagging import formats, schemes


@dataclasses.dataclass(frozen=True)
class Options(ModelOptions, WindowOptions, FinetuneOptions):
    """The options of this stage."""

    train_file: Optional[str] = option(
        None,
        "Sentences to train on: in columns, a word and its tag a line and a blank line after each"
        " sentence, or .jsonl with tokens and tags (or ner_tags), .gz or not.",
    )
    eval_file: Optional[str] = option(None, "Sentences to evaluate on, likewise.")
    predict_file: Optional[str] = option(
        None,
        "What to tag: as above, with tags or without, or .txt with a text a line; - for texts on"
        " standard input, with their entities on standard output.",
    )
    predict_format: Optional[str] = option(
        None,
        "What --predict_file is: columns, JSON lines or texts; without it, as its name ends.",
        choices=[formats.CONLL, formats.JSONL, formats.TEXT],
    )
    word_column: int = option(1, "The column of the word, from 1; -1 for the last.")
    tag_column: int = option(-1, "The column of the tag, from 1; -1 for the last.")
    labels: Optional[Sequence[str]] = option(
        None,
        "The tags, in order: names of those that files have as numbers. Without it, those of the"
        " dataset_info.json beside the file, or the tags that the training data has.",
    )
    scheme: str = option(
        schemes.IOB2,
        "The scheme of the model's tags. Files may be in any; they are converted, which is told.",
        choices=list(schemes.PREFIXES),
    )
    eval_split: float = option(
        0.0,
        "Share of the training data to evaluate on instead of training; for data without an"
        " --eval_file.",
        lower=0.0,
        upper=0.9,
    )
    split_seed: Optional[int] = option(
        None,
        "Seed of the division, so that data stays divided alike while --seed varies; without it,"
        " --seed.",
    )
    on_bad_row: str = option(
        "error",
        "Stop at sentences that cannot be used, or leave them out, listed in bad_rows.tsv.",
        choices=["error", "skip"],
    )
    crf: bool = option(
        False,
        "Score the tags of a sentence together, by a conditional random field that learns which"
        " follow each other; those that the scheme forbids never do.",
    )
    output_dir: str = start.output_dir_option()
    max_seq_length: int = option(
        128, "Longest sequence in tokens, [CLS] and [SEP] included.", lower=8
    )
    doc_stride: int = option(
        0,
        "Sentences that are longer than --max_seq_length are read in windows of that length that"
        " begin so many tokens apart; each word has the tag of the window with most text around"
        " it. 0 for half of --max_seq_length.",
        lower=0,
    )
    init_checkpoint: Optional[str] = start.init_checkpoint_option()

    GROUPS: ClassVar = {
        "Data": (
            "train_file",
            "eval_file",
            "predict_file",
            "predict_format",
            "word_column",
            "tag_column",
            "labels",
            "scheme",
            "eval_split",
            "split_seed",
            "on_bad_row",
            "show_examples",
        ),
        "What to do": ("output_dir", "do_train", "do_eval", "do_predict"),
        "Model": (
            ModelOptions,
            TokenizerOptions,
            RuleOptions,
            "crf",
            "max_seq_length",
            "doc_stride",
        ),
        "Training": (*FINETUNING, TrainingOptions, CheckpointOptions),
        "Choosing the best model": CHOOSING_THE_BEST,
        "Evaluation and prediction": (
            "checkpoint",
            "eval_batch_size",
            "predict_batch_size",
            "batch_tokens",
        ),
        "Device": (DeviceOptions,),
    }

    # The options that name what is trained on.
    TRAINING_FILES: ClassVar[tuple[str, ...]] = ("train_file",)

    def __post_init__(self):
        conflicts = self._file_conflicts() + self._label_conflicts()
        conflicts += self.finetune_conflicts(trains=self.actions()[0])
        check(conflicts + self.window_conflicts() + self.training_conflicts())

    def _file_conflicts(self) -> list[str]:
        if not (self._has_training_file() or self.eval_file or self.predict_file):
            *names, last = (*self.TRAINING_FILES, "eval_file", "predict_file")
            return [f"--{', --'.join(names)} or --{last} is required"]
        conflicts = [
            f"--{name}=-: only --predict_file reads standard input; expected a file"
            for name in ("train_file", "eval_file")
            if getattr(self, name) == files.STREAM
        ]
        conflicts += [
            f"--do_{action}: --{' or --'.join(names)} is required"
            for action, names, lacks_file in (
                ("train", self.TRAINING_FILES, self.do_train and not self._has_training_file()),
                ("predict", ["predict_file"], self.do_predict and not self.predict_file),
            )
            if lacks_file
        ]
        conflicts += [
            f"--{name}=0: columns count from 1, or from the end from -1; pass 1 for the first"
            for name in ("word_column", "tag_column")
            if not getattr(self, name)
        ]
        return conflicts

    def _label_conflicts(self) -> list[str]:
        labels = list(self.labels or ())
        found = [
            f"--labels: {label!r} is no tag; expected O, or B- or I- and a type, B-PER say"
            for label in labels
            if not schemes.is_tag(label)
        ]
        repeated = next((label for label in labels if labels.count(label) > 1), None)
        if repeated is not None:
            found.append(f"--labels={','.join(labels)}: {repeated!r} is there twice")
        return found

    def _has_training_file(self) -> bool:
        return any(getattr(self, name) for name in self.TRAINING_FILES)

    def actions(self) -> tuple[bool, bool, bool]:
        """Returns whether to train, to evaluate and to predict: as told, or as the files say."""
        evaluates = bool(self.eval_file or self.eval_split)
        return self.told_or(self._has_training_file(), evaluates, bool(self.predict_file))

    def format_to_predict(self) -> str:
        """Returns what --predict_file is."""
        assert self.predict_file
        return self.predict_format or formats.format_of(self.predict_file, predicts=True)


def run(options: Options) -> dict[str, Any]:
    """Trains, evaluates and predicts as asked; returns the metrics on the dev file, or {}.

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
    """Returns the task with the sentences of the run.

    Raises:
      UserError: a file is missing, or has sentences that cannot be used.
    """
    from bert_toolkit.tasks.tagging import data
    from bert_toolkit.tasks.tagging.tagging import Tagging

    # All files are read first: a bad sentence in the last one should not be found after hours of
    # training.
    evaluates = actions.evaluate or bool(options.evaluate_every)
    wanted = dataclasses.replace(actions, evaluate=evaluates)
    tokenizer = model.tokenizer()
    sentences = data.load(options, wanted, tokenizer, start.model_dirs(options))
    data.describe_overlap(sentences.train, sentences.dev)
    return Tagging(sentences, options, tokenizer)


def entry() -> None:
    """The console command."""
    cli.run(run, Options, __doc__)


if __name__ == "__main__":
    entry()
