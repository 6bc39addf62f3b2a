r"""Fine-tunes one BERT for several tasks at once, with a head for each.

Reads   a JSON file that lists the tasks (--tasks_file), their data, and a pretrained model
        (--bert_dir).
Writes  to --output_dir the model of all tasks, eval_results.txt and .json, best/; and for each task
        a directory of its name with a model of its own and all that bert classify, bert tag or
        bert answer writes. These and the other commands take it as they take any model.

The file is a list of objects. Each has a name, a kind (classify, tag or answer), and by their names
without dashes the flags of that command for data, lengths and loss. Each may have a weight, which
multiplies its share of the batches, and, where it classifies, a teacher: a classifier of the same
task, whose answers are the targets at first, as the labels are at the end.

  [{"name": "reviews", "kind": "classify", "train_file": "sample_data/reviews/train.tsv",
    "eval_file": "sample_data/reviews/dev.tsv", "max_seq_length": 32},
   {"name": "tags", "kind": "tag", "train_file": "sample_data/tags/train.conll",
    "eval_file": "sample_data/tags/dev.conll", "max_seq_length": 32}]

Examples:
  bert multitask --tasks_file=tasks.json --bert_dir=out/pretrained --output_dir=out/both \
    --num_train_epochs=20 --learning_rate=3e-4

  bert classify --output_dir=out/both/reviews --predict_file=texts.txt
"""

import dataclasses
import difflib
import json
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Optional

from absl import logging

import run_classifier
import run_squad
import run_token_classifier
from bert_toolkit import cli
from bert_toolkit.errors import UserError
from bert_toolkit.io import files
from bert_toolkit.options import (
    FINETUNING,
    CheckpointOptions,
    DeviceOptions,
    FinetuneOptions,
    ModelOptions,
    Option,
    RuleOptions,
    TokenizerOptions,
    TrainingOptions,
    check,
    option,
    options_of,
)
from bert_toolkit.tasks import start
from bert_toolkit.training import cluster

EXPECTED = '[{"name": "reviews", "kind": "classify", "train_file": "train.tsv"}, ...]'
# Directories of other things below --output_dir.
TAKEN = (start.BEST, "eval", "teacher_logits")


@dataclasses.dataclass(frozen=True)
class Options(ModelOptions, FinetuneOptions):
    """The options of this command; those of a task are in --tasks_file."""

    tasks_file: str = option("", "JSON file with the list of tasks; see above.", required=True)
    size_power: float = option(
        1.0,
        "A task's share of the batches goes by its training rows to this power, times its weight:"
        " 1 in proportion, 0.5 less uneven, 0 all alike.",
        lower=0.0,
        upper=1.0,
    )
    output_dir: str = start.output_dir_option()
    init_checkpoint: Optional[str] = start.init_checkpoint_option()
    best_metric: Optional[str] = option(
        None,
        "What decides which model of a task is best: without it, what that task is judged by; mean,"
        " the mean of these over all tasks, so that all have the same encoder; or another metric"
        " that all of them have.",
    )
    # Not options here: all is done that there are files for, once.
    do_train: bool = True
    do_eval: bool = False
    do_predict: bool = False
    num_runs: int = 1

    GROUPS: ClassVar = {
        "Tasks": ("tasks_file", "size_power", "output_dir", "show_examples"),
        "Model": (ModelOptions, TokenizerOptions, RuleOptions),
        "Training": (*FINETUNING, TrainingOptions, CheckpointOptions),
        "Choosing the best model": ("evaluate_every", "best_metric", "early_stopping_patience"),
        "Evaluation and prediction": (
            "checkpoint",
            "eval_batch_size",
            "predict_batch_size",
            "batch_tokens",
        ),
        "Device": (DeviceOptions,),
    }

    def __post_init__(self):
        conflicts = self.finetune_conflicts(trains=True) + self.training_conflicts()
        if self.checkpoint not in (None, "best", "last"):
            conflicts.append(
                f"--checkpoint={self.checkpoint}: expected best or last; each task has a model of"
                " its own"
            )
        if self.use_tpu:
            conflicts.append("--use_tpu: several tasks are not trained on a TPU; leave it out")
        check(conflicts)


@dataclasses.dataclass(frozen=True)
class ClassifyOptions(run_classifier.Options):
    """What a task that classifies may have."""

    teacher: Optional[str] = option(None, "A classifier of the same task to learn from at first.")
    augment: int = 0  # texts are read as they are
    rdrop_alpha: float = 0.0  # and once
    learning_curve: Optional[list[str]] = None

    def data_conflicts(self) -> list[str]:
        """Returns a sentence for everything that does not go together."""
        without = ("class_weights", "oversample", "label_smoothing") if self.teacher else ()
        return super().data_conflicts() + [
            f"--{name} is not for a task with a teacher; leave it out"
            for name in without
            if getattr(self, name)
        ]


# --- The file ---


class Kind(NamedTuple):
    """A kind of task.

    Attributes:
      options: its class of options.
      load: (options, actions, model) -> its Task.
      perfect: what it is judged by, if all is right.
    """

    options: type
    load: Callable[[Any, Any, Any], Any]
    perfect: float = 1.0


class TaskEntry(NamedTuple):
    """A task as the file has it; `options` are those of its kind."""

    name: str
    kind: Kind
    weight: float
    options: Any


def _classification(options: ClassifyOptions, actions: Any, model: Any) -> Any:
    """Returns the task of classifying, with a teacher's answers where there is one."""
    from bert_toolkit.tasks.classification.classification import Classification

    data = run_classifier.load(options, actions)
    if not options.teacher:
        return Classification(data, options, model.tokenizer())
    return _annealed(options, data, model)


def _annealed(options: ClassifyOptions, data: Any, model: Any) -> Any:
    """Returns the task of classifying with the answers of a teacher.

    Raises:
      UserError: the teacher is no classifier of this task.
    """
    from bert_toolkit.inference import teacher
    from bert_toolkit.tasks.classification.distillation import Annealed
    from bert_toolkit.tasks.classification.lessons import Lesson

    trained = teacher.find_teacher(options.teacher or "")
    there, wanted = trained.problem, data.problem
    if (there.kind, sorted(there.labels)) != (wanted.kind, sorted(wanted.labels)):
        raise UserError(
            f"teacher {options.teacher}: predicts {_described(there)}, but the task is"
            f" {_described(wanted)}; expected a classifier of the same task"
        )
    parent, name = os.path.split(options.output_dir)
    directory = os.path.join(parent, "teacher_logits", name)
    logits, fingerprint = teacher.Teacher(trained, options).logits(data.train, directory)
    if wanted.labels:
        logits = logits[:, [there.labels.index(label) for label in wanted.labels]]
    learned = list(map(Lesson, data.train, logits))
    return Annealed(data, options, model, learned, fingerprint)


def _described(problem: Any) -> str:
    labels = f" with the labels {', '.join(problem.labels)}" if problem.labels else ""
    return f"{problem.kind}{labels}"


KINDS = {
    "classify": Kind(ClassifyOptions, _classification),
    "tag": Kind(run_token_classifier.Options, run_token_classifier.load),
    # SQuAD's measures are percentages, as published.
    "answer": Kind(run_squad.Options, run_squad.load, perfect=100.0),
}
OF_ALL = ("name", "kind", "weight")


def read_tasks(path: str, options: Options) -> list[TaskEntry]:
    """Reads the list of tasks.

    Raises:
      UserError: it is none, or says what cannot be.
    """
    files.check_input(path, "tasks_file")
    try:
        listed = json.loads(files.read_text(path))
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); expected {EXPECTED}") from None
    if not isinstance(listed, list) or not listed:
        raise UserError(f"{path}: no list of tasks; expected {EXPECTED}")
    tasks: list[TaskEntry] = []
    for number, entry in enumerate(listed):
        task = _task(f"{path}[{number}]", entry, options)
        if task.name in [before.name for before in tasks]:
            raise UserError(f"{path}[{number}]: a second task named {task.name}; rename one")
        tasks.append(task)
    return tasks


def _task(where: str, entry: Any, options: Options) -> TaskEntry:
    """Returns one task of the list, with the options of its kind."""
    if not isinstance(entry, dict):
        raise UserError(f"{where}: {json.dumps(entry)}; expected an object, as in {EXPECTED}")
    name, weight = entry.get("name"), entry.get("weight", 1.0)
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][\w-]*", name, re.ASCII):
        raise UserError(
            f"{where}: name {json.dumps(name)}; expected letters, digits, - and _, as a directory"
            " has that name"
        )
    if name in TAKEN:
        raise UserError(f"{where}: name {name}: taken in --output_dir; use another one")
    asked = entry.get("kind")
    if not isinstance(asked, str) or asked not in KINDS:
        expected = f"expected one of {', '.join(KINDS)}"
        raise UserError(f"{where}: kind {json.dumps(asked)}; {expected}")
    if not _is_number(weight) or not 0 < weight < float("inf"):
        raise UserError(f"{where}: weight {json.dumps(weight)}; expected a number above 0")
    kind = KINDS[asked]
    given = {key: value for key, value in entry.items() if key not in OF_ALL}
    values = _checked(where, given, kind)
    if not values.get("train_file") and not values.get("task_name"):
        raise UserError(f"{where}: no train_file; expected the data to train {name} on")
    own = _options_of_task(where, name, kind, values, options)
    return TaskEntry(name, kind, float(weight), own)


def _checked(where: str, given: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    """Returns the values of a task's options.

    Raises:
      UserError: an option is unknown, or has another type.
    """
    known, shared = options_of(kind.options), {*options_of(FinetuneOptions), *options_of(Options)}
    own = [name for name in known if name not in shared]
    for key in given:
        if key in own:
            continue
        if key in options_of(Options):
            raise UserError(f"{where}: {key} is of all tasks; pass --{key} on the command line")
        close = difflib.get_close_matches(key, [*OF_ALL, *own], 1)
        hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(own)}"
        raise UserError(f"{where}: unknown key {key!r}; {hint}")
    return {key: _value(f"{where}: {key}", value, known[key]) for key, value in given.items()}


# Type of an option -> how it is written in JSON, and whether a value is so.
_TYPES: dict[type, tuple[str, Callable[[Any], bool]]] = {
    bool: ("true or false", lambda value: isinstance(value, bool)),
    int: ("a whole number", lambda value: _is_number(value) and isinstance(value, int)),
    float: ("a number", lambda value: _is_number(value)),
    str: ("a text in quotes", lambda value: isinstance(value, str)),
    list: (
        "a list of texts",
        lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value),
    ),
}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _value(where: str, value: Any, one: Option) -> Any:
    """Returns the value of an option as its class takes it."""
    expected, is_right = _TYPES[one.type]
    declared = one.declared
    if declared.choices:
        expected = f"one of {', '.join(declared.choices)}"
    elif declared.lower is not None:
        expected += f" from {declared.lower:g}"
        expected += f" to {declared.upper:g}" if declared.upper is not None else ""
    fits = is_right(value) and (not declared.choices or value in declared.choices)
    if fits and declared.lower is not None:
        most = float("inf") if declared.upper is None else declared.upper
        fits = declared.lower <= value <= most
    if not fits:
        raise UserError(f"{where} is {json.dumps(value)}; expected {expected}")
    return value


def _options_of_task(
    where: str, name: str, kind: Kind, values: dict[str, Any], options: Options
) -> Any:
    """Returns the options of a task: its own, and those of the command that are of all."""
    shared = {
        name: getattr(options, name)
        for name in options_of(kind.options).keys() & options_of(Options).keys()
        if name != "best_metric"
    }
    # Of files of one's own, all that they are for is done; a data set with a name is evaluated.
    told = {"do_train": True, "do_eval": True} if values.get("task_name") else {}
    directory = os.path.join(options.output_dir, name)
    try:
        return kind.options(**{**shared, **told, **values, "output_dir": directory})
    except UserError as error:
        lines = str(error).splitlines()
        raise UserError("\n".join(f"{where}: {line}" for line in lines)) from None


# --- The run ---


def run(options: Options) -> dict[str, Any]:
    """Trains, evaluates and predicts; returns the metrics of all tasks.

    Raises:
      UserError: an input cannot be used.
    """
    cluster.check_alone("bert multitask")
    return start.run(options, run_once)


def run_once(options: Options) -> dict[str, Any]:
    """Does all."""
    # All files are read first: a mistake in the last one should not be found after hours.
    entries = read_tasks(options.tasks_file, options)

    from bert_toolkit.checkpoints import model_directory
    from bert_toolkit.tasks import finetune, multitask
    from bert_toolkit.training import output_dir, precision

    model = model_directory.find(options)
    files.make_directory(options.output_dir, "output_dir")
    directories = [entry.options.output_dir for entry in entries]
    _check_directories(options, directories)
    members = []
    for entry in entries:
        logging.info("task %s", entry.name)
        own = precision.resolve(entry.options)
        actions, own_model = finetune.begin(own)
        try:
            task = entry.kind.load(own, actions, own_model)
        except UserError as error:
            raise UserError(f"task {entry.name}: {error}") from None
        model_directory.check_labels(own.output_dir, task.labels)
        finetuning = finetune.Finetuning(task, own_model, own)
        members.append(multitask.Member(entry.name, finetuning, entry.weight, entry.kind.perfect))
    output_dir.begin(options.output_dir, options.resume, options.overwrite)
    if options.overwrite:
        for directory in directories:
            output_dir.begin(directory, options.resume, overwrite=True)
    training = multitask.Multitask(members, model, precision.resolve(options))
    training.check_vocabulary(trains=True)
    return training.run()


def _check_directories(options: Options, directories: list[str]) -> None:
    """Raises a UserError if the directory of a task holds a model that is not of this run."""
    import tensorflow.compat.v1 as tf

    if options.overwrite or tf.train.latest_checkpoint(options.output_dir):
        return
    for directory in directories:
        if tf.train.latest_checkpoint(directory):
            raise UserError(
                f"{directory}: holds a model already, which {options.output_dir} did not make; use"
                " another --output_dir, or rename the task"
            )


def entry() -> None:
    """The console command."""
    cli.run(run, Options, __doc__)


if __name__ == "__main__":
    entry()
