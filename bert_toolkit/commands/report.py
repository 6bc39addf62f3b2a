r"""Makes one page of what bert classify wrote: metrics, mistakes, calibration, training.

Reads   the --output_dir of bert classify after --do_eval, or one of --num_runs or --learning_curve.
Writes  one HTML file that needs nothing else, no network either: metrics with intervals, labels and
        confusion matrix, calibration, accuracy by the share answered, slices, loss and metrics by
        step, learning curve, seeds, top losses, settings; and what bert review-data found.

Example:
  bert report --output_dir=demo_output/reviews
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Optional

from absl import logging

from bert_toolkit import cli
from bert_toolkit.checkpoints import task_file
from bert_toolkit.errors import UserError
from bert_toolkit.io import files, metrics_files
from bert_toolkit.io.progress import size
from bert_toolkit.options import check, option
from bert_toolkit.problems import KINDS
from bert_toolkit.tasks.classification import calibration, learning_curve, predictions, report
from bert_toolkit.tasks.classification.report import Run
from bert_toolkit.tasks.start import BEST

# Name of a part of the data -> the ending of its files.
PARTS = {"dev": "", "test": "_test", "mismatched": "_mismatched"}
REVIEW = "review.jsonl"


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of this command."""

    output_dir: str = option("", "The --output_dir of bert classify.", required=True)
    output_file: Optional[str] = option(
        None, "The page to write, .html; without it, report.html in --output_dir."
    )
    part: Optional[str] = option(
        None,
        "What to show in detail; without it, dev, or the part that was evaluated.",
        choices=list(PARTS),
    )
    review_dir: Optional[str] = option(
        None,
        "The --output_dir of bert review-data, whose findings to list: near-duplicates across"
        " splits, say; without it, --output_dir, if they are there.",
    )
    max_shown: int = option(25, "Texts that each list shows.", lower=0)

    GROUPS: ClassVar = {
        "Input and output": ("output_dir", "output_file", "part", "review_dir", "max_shown")
    }

    def __post_init__(self):
        if self.output_file and not self.output_file.endswith(".html"):
            check([f"--output_file={self.output_file}: expected a name that ends in .html"])


def run(options: Options) -> None:
    """Writes the page.

    Raises:
      UserError: there is nothing to report, or a file is damaged.
    """
    path = options.output_file or os.path.join(options.output_dir, "report.html")
    if not files.is_directory(options.output_dir):
        raise UserError(f"--output_dir={options.output_dir}: no such directory")
    files.check_output(path)
    found = read(options)
    files.write_text(path, report.fill(found, options.max_shown))
    logging.info("wrote %s: %s", path, size(files.size(path)))


def read(options: Options) -> Run:
    """Returns what is there of a run.

    Raises:
      UserError: there is nothing to report, or a file is damaged.
    """
    directory = options.output_dir
    model_dirs = [directory, os.path.join(directory, BEST)]  # of several runs the best has the task
    results = {
        name: _object(os.path.join(directory, f"eval_results{suffix}.json"))
        for name, suffix in PARTS.items()
        if files.exists(os.path.join(directory, f"eval_results{suffix}.json"))
    }
    curve = learning_curve.read(directory)
    runs = _table(os.path.join(directory, "runs.tsv"))
    if not results and not curve and not runs:
        raise UserError(
            f"--output_dir={directory}: no eval_results.json in it; expected the directory of a run"
            " of bert classify with --do_eval, --num_runs or --learning_curve"
        )
    if options.part and options.part not in results:
        there = f"there is {', '.join(results)}" if results else "nothing was evaluated"
        raise UserError(f"--part={options.part}: not evaluated in {directory}; {there}")
    part = options.part or next(iter(results), "dev")
    problem = task_file.read(model_dirs, KINDS) if results else None
    if results and problem is None:
        raise UserError(
            f"--output_dir={directory}: no {task_file.NAME} in it; expected the directory of a"
            " classifier that bert classify has trained"
        )
    evaluated = None
    path = os.path.join(directory, predictions.EVALUATED.format(PARTS[part]))
    if problem is not None and files.exists(path):
        evaluated = predictions.read_evaluated(path, problem)
    elif results:
        logging.warning(
            "%s is not there: labels, calibration and rejection are left out; run bert classify"
            " --do_eval again",
            path,
        )
    return Run(
        name=os.path.basename(os.path.abspath(directory)),
        problem=problem,
        metric=_first(model_dirs, task_file.NAME).get("metric", "accuracy"),
        results=results,
        part=part,
        evaluated=evaluated,
        calibration=calibration.read(directory),
        training_log=_log(os.path.join(directory, metrics_files.TRAINING_LOG)),
        evaluation_log=_log(os.path.join(directory, metrics_files.EVALUATION_LOG)),
        top_losses=_table(os.path.join(directory, f"eval_top_losses{PARTS[part]}.tsv")),
        curve=curve,
        runs=runs,
        notes=_first(model_dirs, "trained_with.json"),
        findings=_findings(options),
    )


def _first(directories: Sequence[str], name: str) -> dict[str, Any]:
    """Returns the JSON object of that name in the first directory that has one; else {}."""
    found = (_object(os.path.join(directory, name)) for directory in directories)
    return next(filter(None, found), {})


def _object(path: str) -> dict[str, Any]:
    """Returns a JSON object; an empty one if there is no such file."""
    if not files.exists(path):
        return {}
    try:
        return dict(json.loads(files.read_text(path)))
    except (ValueError, TypeError):
        raise UserError(f"{path}: not a JSON object; evaluate again") from None


def _lines(path: str, expected: str) -> list[dict[str, Any]]:
    """Returns the objects of a file of JSON lines; none if it is not there."""
    if not files.exists(path):
        return []
    try:
        # Texts may have other ends of lines in them, U+2028 for one.
        return [dict(json.loads(line)) for line in files.read_text(path).split("\n") if line]
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: {error}; expected {expected}") from None


def _log(path: str) -> list[Mapping[str, Any]]:
    """Returns the lines of a log by step: the last of each, where a run went back."""
    lines = [line for line in _lines(path, "a JSON object a line") if "step" in line]
    by_step = {line["step"]: line for line in lines}
    return [by_step[step] for step in sorted(by_step)]


def _table(path: str) -> Sequence[Sequence[str]]:
    """Returns the lines of a .tsv file; none if it is not there."""
    if not files.exists(path):
        return []
    return [line.split("\t") for line in files.read_text(path).split("\n") if line]


def _findings(options: Options) -> list[dict[str, Any]]:
    path = os.path.join(options.review_dir or options.output_dir, REVIEW)
    if options.review_dir and not files.exists(path):
        raise UserError(
            f"--review_dir={options.review_dir}: no {REVIEW} in it; expected the --output_dir of"
            " bert review-data"
        )
    return _lines(path, "the findings of bert review-data")


def entry() -> None:
    """The console command."""
    cli.run(run, Options, __doc__)


if __name__ == "__main__":
    entry()
