r"""Makes a small classifier of a large one: trains a student on the answers of a teacher.

Reads   a trained classifier (--teacher_dir), labelled texts as bert classify takes them
        (--train_file) or texts alone (--unlabeled_file), and what the student starts from.
Writes  to --output_dir a model and results, all as bert classify does; teacher_logits/, the
        teacher's answers, which a later run does not ask for again; and start/, a student that is
        made of the teacher, as it was before training.

The student is one of these: some layers of the teacher (--teacher_layers), a pretrained model
(--bert_dir), a model from random weights (--bert_config_file), or a BiLSTM (--student=bilstm). One
that is a BERT may learn the teacher's hidden states and attention too (--hidden_state_weight,
--attention_weight). bert classify, TextClassifier and the other commands take the result as they
take any classifier.

Examples:
  bert distill --teacher_dir=out/reviews --train_file=sample_data/reviews/train.tsv \
    --eval_file=sample_data/reviews/dev.tsv --teacher_layers=0 --output_dir=out/small \
    --max_seq_length=32 --augment=10 --learning_rate=3e-4

  bert distill --teacher_dir=out/reviews --train_file=sample_data/reviews/train.tsv \
    --eval_file=sample_data/reviews/dev.tsv --student=bilstm --output_dir=out/bilstm \
    --max_seq_length=32 --augment=20 --learning_rate=1e-3
"""

import dataclasses
import os
from typing import Any, ClassVar, Optional

from absl import logging

import run_classifier
from bert_toolkit import cli
from bert_toolkit.errors import UserError
from bert_toolkit.options import (
    FINETUNING,
    CheckpointOptions,
    ModelOptions,
    RuleOptions,
    TokenizerOptions,
    TrainingOptions,
    option,
)
from bert_toolkit.problems import REGRESSION
from bert_toolkit.tasks import start, students
from bert_toolkit.tasks.classification import lessons, task_data
from bert_toolkit.tasks.classification.data_options import DataOptions
from bert_toolkit.tasks.classification.labels import OTHER_LABEL, in_order_of
from bert_toolkit.tasks.distillation_options import (
    BERT,
    BILSTM,
    CROSS_ENTROPY,
    LOSS_OPTIONS,
    DistillationOptions,
)


@dataclasses.dataclass(frozen=True)
class Options(DistillationOptions, run_classifier.Options):
    """The options of this command: those of bert classify but for the loss on labels, and more."""

    student: str = option(
        BERT,
        "The network of the student: BERT, or one LSTM in each direction over the teacher's word"
        " embeddings.",
        choices=[BERT, BILSTM],
    )
    lstm_size: int = option(
        150, "Units of the BiLSTM in each direction; with --student=bilstm.", lower=1
    )
    augment: int = option(
        0,
        "Changed copies of each text to learn from too, by the teacher's answers alone; 20 say for"
        " a few thousand texts.",
        lower=0,
    )
    mask_probability: float = option(
        0.1, "Probability that a word of a copy becomes [MASK].", lower=0.0, upper=1.0
    )
    ngram_probability: float = option(
        0.25, "Probability that just 1 to 5 consecutive words of a copy stay.", lower=0.0, upper=1.0
    )
    # Not options here: the loss is another one, and --unlabeled_file is no matter of sizes.
    learning_curve: Optional[list[str]] = None
    class_weights: Optional[list[str]] = None
    oversample: bool = False
    label_smoothing: float = 0.0
    rdrop_alpha: float = 0.0

    NETWORKS: ClassVar = (BERT, BILSTM)
    GROUPS: ClassVar = {
        "Teacher and data": ("teacher_dir", "unlabeled_file", DataOptions, "show_examples"),
        "What to do": ("output_dir", "do_train", "do_eval", "do_predict"),
        "Student": (
            "student",
            "teacher_layers",
            "lstm_size",
            ModelOptions,
            TokenizerOptions,
            RuleOptions,
            "max_seq_length",
            "truncate",
            "doc_stride",
        ),
        "Distillation": (
            *LOSS_OPTIONS,
            "augment",
            "mask_probability",
            "ngram_probability",
        ),
        "Training": (*FINETUNING, TrainingOptions, CheckpointOptions),
        **{
            name: run_classifier.Options.GROUPS[name]
            for name in ("Choosing the best model", "Evaluation and prediction", "Device")
        },
    }

    def data_conflicts(self) -> list[str]:
        """Returns a sentence for everything that does not go together."""
        is_to_check = self.actions()[0] and not self.logits_dir
        conflicts = self.distillation_conflicts(self) if is_to_check else []
        if self.unlabeled_file and self.is_custom and not self.train_file:
            conflicts += self._column_conflicts() + self._label_conflicts()
            return conflicts + self.without_labels_conflicts("eval_split", "test_split")
        return conflicts + super().data_conflicts()

    def actions(self) -> tuple[bool, bool, bool]:
        """Returns whether to train, to evaluate and to predict: as told, or as the files say."""
        if not self.is_custom:
            return self.told_or(False, False, False)
        _, evaluates, predicts = super().actions()
        return self.told_or(bool(self.train_file or self.unlabeled_file), evaluates, predicts)


def run(options: Options) -> dict[str, Any]:
    """Trains, evaluates and predicts as asked; returns the metrics on the main dev file, or {}.

    Raises:
      UserError: an input cannot be used.
    """
    if options.actions()[0]:
        options = students.with_student(options, find_teacher(options))
    return start.run(options, run_once)


def find_teacher(options: Options) -> Any:
    """Returns the classifier of --teacher_dir."""
    from bert_toolkit.inference import teacher

    return teacher.find_teacher(options.teacher_dir or "")


def run_once(options: Options) -> dict[str, Any]:
    """Does all for one seed."""
    if not options.actions()[0]:
        return run_classifier.run_once(options)
    from bert_toolkit.inference import teacher
    from bert_toolkit.tasks import finetune, layer_distillation
    from bert_toolkit.tasks.classification import distillation

    actions, model = finetune.begin(options)
    trained = find_teacher(options)
    if options.learns_layers():
        layer_distillation.check(model, trained.files, options)
    data = load(options, trained.problem, actions)
    for line in task_data.describe(data):
        logging.info("%s", line)
    examples = texts_to_learn(options, data)
    logits, fingerprint = teacher.Teacher(trained, options).logits(examples, options.logits_dir)
    learned = list(map(lessons.Lesson, examples, logits))
    with layer_distillation.loss_of(options, model, trained) as of_layers:
        task = distillation.Distillation(data, options, model, learned, fingerprint, of_layers)
        return finetune.run(task, model, options, actions)


# --- The data ---


def load(options: Options, problem: Any, actions: Any) -> task_data.Data:
    """Reads all data but --unlabeled_file; the labels are the teacher's, in its order.

    Raises:
      UserError: a file cannot be used, or is labelled for something else.
    """
    from bert_toolkit.checkpoints import hugging_face, task_file

    task = options.task()
    if task.kind not in (None, problem.kind):
        raise UserError(
            f"--problem_type={task.kind}, but the teacher was trained for {problem.kind}; leave the"
            " flag out"
        )
    if options.distillation_loss == CROSS_ENTROPY and problem.kind == REGRESSION:
        raise UserError(
            "--distillation_loss=cross_entropy: the teacher predicts a number; pass"
            " --distillation_loss=mse"
        )
    named = not all(map(hugging_face.UNNAMED.fullmatch, problem.labels))
    labels = task.labels or (problem.labels if named else None)
    task = dataclasses.replace(task, kind=problem.kind, labels=labels)
    wanted = task_data.Wanted(
        task.train is not None,
        actions.evaluate or bool(options.evaluate_every),
        actions.predict,
    )
    directories = [options.teacher_dir or "", os.path.join(options.teacher_dir or "", start.BEST)]
    other = task_file.settings(directories).get(OTHER_LABEL)
    if other:
        most = max(2, options.min_label_count)
        options = dataclasses.replace(options, min_label_count=most, other_label=other)
    elif options.min_label_count > 1:
        raise UserError("--min_label_count: the labels are the teacher's; leave it out")
    data = task_data.load(task, options, wanted, options.seed, directories)
    return dataclasses.replace(data, problem=in_order_of(problem, data.problem))


def texts_to_learn(options: Options, data: task_data.Data) -> list[task_data.Example]:
    """Returns the training examples, the texts of --unlabeled_file, and changed copies of both.

    Raises:
      UserError: there is no text, or the file cannot be used.
    """
    examples = list(data.train or ())
    if options.unlabeled_file:
        task = dataclasses.replace(
            options.task(),
            kind=data.problem.kind,
            labels=data.problem.labels,
            test={"": options.texts(options.unlabeled_file)},
        )
        wanted = task_data.Wanted(train=False, dev=False, test=True)
        # Without a directory, so that its bad rows do not take the place of those of --train_file.
        unlisted = dataclasses.replace(options, output_dir="")
        texts = task_data.load(task, unlisted, wanted, options.seed, []).test[""]
        examples += [example for example in texts if not example.is_blank]
    if not examples:
        raise UserError(f"{options.unlabeled_file}: only blank lines in it; expected texts")
    how = lessons.Augmentation(options.augment, options.mask_probability, options.ngram_probability)
    copies = lessons.augment(examples, how, options.seed)
    labelled = sum(example.label is not None for example in examples)
    logging.info(
        "to learn from: %s texts with a label, %s without, %s changed copies",
        f"{labelled:,}",
        f"{len(examples) - labelled:,}",
        f"{len(copies):,}",
    )
    return examples + copies


def entry() -> None:
    """The console command."""
    cli.run(run, Options, __doc__)


if __name__ == "__main__":
    entry()
