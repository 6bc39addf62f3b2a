r"""Searches for the flags of bert classify that do best on the dev data.

Reads   a command line of bert classify that trains and evaluates, with search in the place of
        classify; and the space, one --space for each option that is tried. Without any, the grid
        of the BERT paper: batches of 16 and 32, rates of 5e-5, 3e-5 and 2e-5, 2 to 4 epochs.
Writes  to --output_dir the best model in best/, its results, and trials.tsv, a table of all trials;
        trial_1/, trial_2/, ... with the results and logs of each, without weights. The table's top
        and the command line that repeats the best go to standard output; with --predict_file=-, to
        the log.

The same command goes on where it was interrupted. --output_dir is then a model directory: bert
classify predicts with it, bert serve and bert export take it.

Examples:
  bert search --train_file=sample_data/reviews/train.tsv --eval_file=sample_data/reviews/dev.tsv \
    --bert_dir=out/pretrained --output_dir=out/search --max_seq_length=32 \
    --space=learning_rate=1e-4,3e-4 --space=train_batch_size=16,32 --num_train_epochs=8

  bert search --train_file=sample_data/reviews/train.tsv --eval_file=sample_data/reviews/dev.tsv \
    --bert_dir=out/pretrained --output_dir=out/optuna --max_seq_length=32 --method=optuna \
    --num_trials=20 --space=learning_rate=1e-5..1e-3:log --space=layer_decay=0.7..1 \
    --evaluate_every=epoch --num_train_epochs=8
"""

import dataclasses
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Optional

from absl import logging

import run_classifier
from bert_toolkit import cli
from bert_toolkit.errors import UserError
from bert_toolkit.io import files, metrics_files
from bert_toolkit.options import CheckpointOptions, Option, groups_of, option, options_of, spelled
from bert_toolkit.tasks import start
from bert_toolkit.tasks.search.space import (
    PAPERS_GRID,
    Dimension,
    SettingError,
    grid,
    parse,
    settings,
)
from bert_toolkit.training import cluster

GRID, OPTUNA = "grid", "optuna"
# Trials that are printed at the end.
SHOWN = 5
# What decides the result of a trial stands in these groups of bert classify's flags, but for these.
DECIDING_GROUPS = ("Data", "Model", "Training", "Choosing the best model")
NOT_DECIDING = {"predict_file", "show_examples", "num_runs", *options_of(CheckpointOptions)}


@dataclasses.dataclass(frozen=True)
class Options(run_classifier.Options):
    """The options of bert classify, and what to search."""

    space: Optional[Sequence[str]] = option(
        None,
        "An option of how the model is made or trained, and its values: learning_rate=2e-5,5e-5;"
        " or, with --method=optuna, a range: layer_decay=0.7..1, learning_rate=1e-5..1e-4:log."
        " Given once for each option; seed=1,2,3 is one as well. Without it, the paper's grid.",
        repeated=True,
    )
    method: str = option(
        GRID,
        "grid: every combination of the values; optuna: what Optuna draws after the trials before,"
        " from values or ranges, until --num_trials or --max_hours.",
        choices=[GRID, OPTUNA],
    )
    num_trials: Optional[int] = option(
        None, "End after so many trials, those before an interruption included.", lower=1
    )
    max_hours: Optional[float] = option(
        None,
        "Begin no trial any more when all together have taken so many hours; the one under way is"
        " finished.",
        lower=0.0,
    )
    prune: bool = option(
        True,
        "With --method=optuna and --evaluate_every: stop a trial that is worse than the median of"
        " those before after as many evaluations, once five are complete.",
    )
    # Not an option here: every trial is trained on all rows.
    learning_curve: Optional[list[str]] = None

    GROUPS: ClassVar = {
        "Search": ("space", "method", "num_trials", "max_hours", "prune"),
        **run_classifier.Options.GROUPS,
    }

    def data_conflicts(self) -> list[str]:
        """Returns a sentence for everything that does not go together."""
        conflicts = super().data_conflicts()
        if self.is_custom and not self.train_file:
            conflicts = ["--train_file is required (or --task_name)"]
        elif self.is_custom and not (self.eval_file or self.eval_split):
            conflicts.append("nothing to choose by: pass --eval_file or --eval_split=0.1")
        if self.num_runs > 1:
            conflicts.append("--num_runs: seeds are searched as other options: --space=seed=1,2,3")
        limited = self.num_trials is not None or self.max_hours is not None
        if self.method == OPTUNA and not limited:
            conflicts.append("--method=optuna: when to end? pass --num_trials or --max_hours")
        if self.checkpoint not in (None, start.BEST, "last"):
            conflicts.append(
                f"--checkpoint={self.checkpoint}: each trial has models of its own; expected best"
                " or last"
            )
        return conflicts

    def actions(self) -> tuple[bool, bool, bool]:
        """Returns that there is training and evaluation, and whether the best model predicts."""
        return True, True, bool(self.do_predict or self.predict_file or self.test_split)

    def dimensions(self) -> tuple[Dimension, ...]:
        """Returns what is searched.

        Raises:
          UserError: --space names something else, or ranges for a grid.
        """
        found = parse(self.space or PAPERS_GRID, searchable())
        ranges = [dimension.name for dimension in found if dimension.range]
        if self.method == GRID and ranges:
            raise UserError(
                f"--space={ranges[0]}=...: a grid has no ranges; list values, or pass"
                " --method=optuna"
            )
        return found


def run(options: Options) -> dict[str, Any]:
    """Runs the search; returns the metrics of the best model on the main dev file.

    Raises:
      UserError: an input cannot be used.
    """
    dimensions = options.dimensions()
    points = list(grid(dimensions)) if options.method == GRID else []
    for values in points:
        _plain(options, values)  # their conflicts are told before hours of training
    cluster.check_alone("bert search")
    options = start.resolve(options)
    from bert_toolkit.tasks.best_model import LOWER_IS_BETTER
    from bert_toolkit.tasks.search import proposals, trials
    from bert_toolkit.tasks.search.record import Record

    names = [dimension.name for dimension in dimensions]
    fixed = {name: getattr(options, name) for name in deciding() if name not in names}
    record = Record(options.output_dir, names, fixed, options.best_metric or "")
    trials.open_record(record, options.resume, options.overwrite)
    source: proposals.Proposals = proposals.Grid(dimensions, record)
    if options.method == OPTUNA:
        lower = options.best_metric in LOWER_IS_BETTER
        prunes = options.prune and options.evaluate_every is not None
        source = proposals.Optuna(dimensions, record, options.seed, lower, prunes)
    runner = trials.Trials(
        record,
        source,
        lambda trial, goes_on, watch: run_trial(trial_options(options, trial, goes_on), watch),
        options.checkpoint,
    )
    limits = trials.Limits(options.num_trials, options.max_hours and options.max_hours * 3600)
    total = options.num_trials or len(points)
    runner.run(limits, min(total, len(points)) if points else options.num_trials)
    best = runner.best()
    if best is None:
        raise UserError(f"{record.path}: no trial was completed; see there, and train with less")
    metrics = use_best(options, best.values)
    ranked = record.ranked(record.metric in LOWER_IS_BETTER)
    told = [
        *metrics_files.aligned(record.rows(ranked[:SHOWN])),
        "",
        f"The best again, {best.name} of {len(record.trials)}:",
        f"  {repeat(options, best.values)}",
    ]
    if options.predict_file == files.STREAM:  # predictions alone go there
        for line in told:
            logging.info("%s", line)
    else:
        print("\n".join(told), flush=True)
    return metrics


# --- The options of a trial ---


def searchable() -> dict[str, Option]:
    """Returns the options that may be searched: numbers and choices of how a model is trained."""
    groups = groups_of(run_classifier.Options)
    found = {one.name: one for title in ("Training", "Model") for one in groups[title]}
    found["seed"] = options_of(run_classifier.Options)["seed"]
    return {
        name: one
        for name, one in found.items()
        if name not in NOT_DECIDING and (one.type in (int, float, bool) or one.declared.choices)
    }


def deciding() -> list[str]:
    """Returns the options on which the result of a trial depends."""
    groups = groups_of(run_classifier.Options)
    names = [one.name for title in DECIDING_GROUPS for one in groups[title]]
    return [name for name in dict.fromkeys([*names, "seed"]) if name not in NOT_DECIDING]


def _plain(options: Options, values: Mapping[str, Any], **more: Any) -> run_classifier.Options:
    """Returns the options of bert classify with a setting, to train and evaluate.

    Raises:
      SettingError: they do not go together.
    """
    given = {name: getattr(options, name) for name in options_of(run_classifier.Options)}
    if "seed" in values and options.split_seed is None:
        given["split_seed"] = options.seed  # only results on the same data can be compared
    try:
        actions = {"do_train": True, "do_eval": True, "do_predict": False}
        return run_classifier.Options(**{**given, **actions, **values, **more})
    except UserError as error:
        raise SettingError(f"{settings(values)}: {error}") from None


def trial_options(options: Options, trial: Any, goes_on: bool) -> run_classifier.Options:
    """Returns the options of a trial, which goes on where it was cut off or begins anew."""
    return _plain(
        options,
        trial.values,
        output_dir=os.path.join(options.output_dir, trial.name),
        resume=True,
        overwrite=not goes_on,
    )


def run_trial(options: run_classifier.Options, on_evaluation: Any) -> dict[str, Any]:
    """Trains and evaluates with a setting; the test part of the data is held out, and not used."""
    from bert_toolkit.tasks import finetune
    from bert_toolkit.tasks.classification.classification import Classification
    from bert_toolkit.tasks.classification.task_data import TEST

    actions, model = finetune.begin(options)
    data = run_classifier.load(options, actions)
    dev = {suffix: rows for suffix, rows in data.dev.items() if suffix != TEST}
    task = Classification(dataclasses.replace(data, dev=dev), options, model.tokenizer())
    return finetune.run(task, model, options, actions, on_evaluation)


def use_best(options: Options, values: Mapping[str, Any]) -> dict[str, Any]:
    """Evaluates the best model, on the test part too, and predicts as asked; returns metrics."""
    logging.info("the best model, %s:", settings(values))
    plain = _plain(
        options,
        values,
        do_train=False,
        do_predict=options.actions()[2],
        evaluate_every=None,
        early_stopping_patience=0,
        overwrite=False,
        checkpoint=start.BEST,
    )
    return run_classifier.run_once(plain)


# --- What is printed ---


def repeat(options: Options, values: Mapping[str, Any]) -> str:
    """Returns the command line of bert classify that trains with a setting once more."""
    directory = os.path.join(options.output_dir, "again")
    plain = _plain(options, values, output_dir=directory, overwrite=False, resume=True)
    # What is to be done follows from files of one's own.
    left_out = {"predict_file", *(("do_train", "do_eval") if plain.is_custom else ())}
    words = ["bert classify"]
    for one in (one for group in groups_of(run_classifier.Options).values() for one in group):
        value = getattr(plain, one.name)
        if value == one.default or one.name in left_out:
            continue
        if one.type is bool:
            words.append(f"--{one.name}" if value else f"--no{one.name}")
            continue
        words.append(f"--{one.name}={shlex.quote(spelled(value))}")
    return " ".join(words)


def entry() -> None:
    """The console command."""
    cli.run(run, Options, __doc__)


if __name__ == "__main__":
    entry()
