r"""Makes a small tagger of a large one: trains a student on the answers of a teacher.

Reads   a trained tagger (--teacher_dir), tagged sentences as bert tag takes them (--train_file) or
        texts alone (--unlabeled_file), and what the student starts from.
Writes  to --output_dir a model and results, all as bert tag does; teacher_logits/, the teacher's
        answers, which a later run does not ask for again; and start/, a student that is made of the
        teacher, as it was before training.

The student is one of these: some layers of the teacher (--teacher_layers), a pretrained model
(--bert_dir), or a model from random weights (--bert_config_file). It may learn the teacher's hidden
states and attention too (--hidden_state_weight, --attention_weight). bert tag, TokenClassifier and
the other commands take the result as they take any tagger.

Example:
  bert distill-tagger --teacher_dir=out/tags --train_file=sample_data/tags/train.conll \
    --eval_file=sample_data/tags/dev.conll --teacher_layers=0 --output_dir=out/small_tags \
    --max_seq_length=32 --num_train_epochs=10 --learning_rate=5e-4
"""

import dataclasses
from typing import Any, ClassVar

import numpy as np
from absl import logging

import run_token_classifier
from bert_toolkit import cli
from bert_toolkit.errors import UserError
from bert_toolkit.options import (
    FINETUNING,
    CheckpointOptions,
    ModelOptions,
    RuleOptions,
    TokenizerOptions,
    TrainingOptions,
)
from bert_toolkit.problems import TAGGING
from bert_toolkit.tasks import start, students
from bert_toolkit.tasks.distillation_options import LOSS_OPTIONS, DistillationOptions
from bert_toolkit.tasks.tagging import schemes


@dataclasses.dataclass(frozen=True)
class Options(DistillationOptions, run_token_classifier.Options):
    """The options of this command: those of bert tag but for what the teacher settles, and more."""

    # Not options here: the tags are the teacher's, and so is their scheme.
    scheme: str = schemes.IOB2
    crf: bool = False

    GROUPS: ClassVar = {
        "Teacher and data": (
            "teacher_dir",
            "unlabeled_file",
            *(name for name in run_token_classifier.Options.GROUPS["Data"] if name != "scheme"),
        ),
        "What to do": ("output_dir", "do_train", "do_eval", "do_predict"),
        "Student": (
            "teacher_layers",
            ModelOptions,
            TokenizerOptions,
            RuleOptions,
            "max_seq_length",
            "doc_stride",
        ),
        "Distillation": LOSS_OPTIONS,
        "Training": (*FINETUNING, TrainingOptions, CheckpointOptions),
        **{
            name: run_token_classifier.Options.GROUPS[name]
            for name in ("Choosing the best model", "Evaluation and prediction", "Device")
        },
    }

    TRAINING_FILES: ClassVar = ("train_file", "unlabeled_file")

    def _file_conflicts(self) -> list[str]:
        is_to_check = self.actions()[0] and not self.logits_dir
        found = self.distillation_conflicts(self) if is_to_check else []
        if self.unlabeled_file and not self.train_file:
            found += self.without_labels_conflicts("eval_split")
        return found + super()._file_conflicts()


def run(options: Options) -> dict[str, Any]:
    """Trains, evaluates and predicts as asked; returns the metrics on the dev file, or {}.

    Raises:
      UserError: an input cannot be used.
    """
    if options.actions()[0]:
        options = students.with_student(options, find_teacher(options))
    return start.run(options, run_once)


def find_teacher(options: Options) -> Any:
    """Returns the tagger of --teacher_dir.

    Raises:
      UserError: there is none, or it has a CRF.
    """
    from bert_toolkit.inference import teacher

    named = "a trained tagger; train it by bert tag"
    trained = teacher.find_teacher(options.teacher_dir or "", [TAGGING], named)
    if trained.settings.get("crf"):
        raise UserError(
            f"--teacher_dir={options.teacher_dir}: a tagger with a CRF, whose answers are of whole"
            " sentences; expected one for each word; train the teacher without --crf"
        )
    return trained


def run_once(options: Options) -> dict[str, Any]:
    """Does all for one seed."""
    if not options.actions()[0]:
        return run_token_classifier.run_once(options)
    from bert_toolkit.inference import teacher
    from bert_toolkit.tasks import finetune, layer_distillation
    from bert_toolkit.tasks.tagging.distillation import Lesson, TaggingDistillation

    actions, model = finetune.begin(options)
    trained = find_teacher(options)
    if options.learns_layers():
        layer_distillation.check(model, trained.files, options)
    tokenizer = model.tokenizer()
    data = load(options, actions, tokenizer, trained)
    sentences = list(data.train or ())
    of_words, fingerprint = teacher.TaggingTeacher(trained, options).logits(
        sentences, options.logits_dir
    )
    ends = np.cumsum([len(sentence.words) for sentence in sentences])
    lessons = list(map(Lesson, sentences, np.split(of_words, ends[:-1])))
    with layer_distillation.loss_of(options, model, trained) as of_layers:
        task = TaggingDistillation(data, options, tokenizer, lessons, fingerprint, of_layers)
        return finetune.run(task, model, options, actions)


def load(options: Options, actions: Any, tokenizer: Any, trained: Any) -> Any:
    """Reads all data, with the teacher's tags; to train on, the sentences without tags, too.

    Raises:
      UserError: a file cannot be used, or has tags that the teacher does not know.
    """
    from bert_toolkit.tasks.tagging import data

    model = data.named(data.model_of(trained.problem, trained.settings), options.labels)
    wanted = dataclasses.replace(
        actions,
        train=bool(options.train_file),
        evaluate=actions.evaluate or bool(options.evaluate_every),
    )
    found = data.load(options, wanted, tokenizer, [], model)
    data.describe_overlap(found.train, found.dev)
    sentences = found.train or []
    labelled = len(sentences)
    if options.unlabeled_file:
        # Without a directory, so that its bad rows do not take the place of those of --train_file.
        to_read = dataclasses.replace(
            options, predict_file=options.unlabeled_file, predict_format=None, output_dir=""
        )
        alone = dataclasses.replace(wanted, train=False, evaluate=False, predict=True)
        texts = data.load(to_read, alone, tokenizer, [], model).test
        assert texts
        sentences = sentences + [one._replace(tags=None) for one in texts.sentences if one.words]
    if not sentences:
        raise UserError(f"{options.unlabeled_file}: only blank lines in it; expected texts")
    logging.info(
        "to learn from: %s sentences with tags, %s without",
        f"{labelled:,}",
        f"{len(sentences) - labelled:,}",
    )
    return dataclasses.replace(found, train=sentences)


def entry() -> None:
    """The console command."""
    cli.run(run, Options, __doc__)


if __name__ == "__main__":
    entry()
