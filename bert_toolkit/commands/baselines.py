r"""Judges simple classifiers by the measures of bert classify: is BERT worth it?

Reads   the data of bert classify, by the same flags; perhaps a JSON file of label to words.
Writes  a table to standard output, and with --output_dir to baselines.tsv there: a row for each
        baseline, on the dev data; in OUTPUT/NAME/ each baseline, to predict with.

Baselines, by NAME:
  majority         the most frequent label (of numbers: mean)
  uniform-random   labels drawn at random; weighted-random: by their frequency
  keywords         the label with the most words and phrases of --keywords in a text
  tf-idf           logistic regression on TF-IDF of 2 to 7 characters
  tf-idf-sgd       stochastic gradient descent on these, rare labels repeated
  words            a linear model of hashed words and pairs of words, in the manner of fastText

Examples:
  bert baselines --task_name=sst-2 --data_dir=sample_data/reviews --output_dir=out/baselines

  bert baselines --baseline_dir=out/baselines/tf-idf --predict_file=- < lines.txt

  bert baselines --train_file=sample_data/reviews/train.tsv --eval_split=0.1
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import ClassVar, Optional

import numpy as np
from absl import logging

from bert_toolkit import cli
from bert_toolkit.io import files
from bert_toolkit.options import check, option
from bert_toolkit.problems import MULTI
from bert_toolkit.tasks.classification import baselines, predictions, scores, task_data
from bert_toolkit.tasks.classification.baselines import Baseline
from bert_toolkit.tasks.classification.calibration import OTHER, Calibration
from bert_toolkit.tasks.classification.data_options import DataOptions
from bert_toolkit.tasks.classification.task_data import Example

TABLE = "baselines.tsv"


@dataclasses.dataclass(frozen=True)
class Options(DataOptions):
    """The options of this program."""

    keywords: Optional[str] = option(
        None,
        'JSON file of label to words and phrases, {"1": ["good", "not bad"], ...}: the label with'
        " the most of them in a text is the answer; where none is ahead, there is none (which the"
        " table has as answered and accuracy_answered), and the most frequent label counts.",
    )
    seed: int = option(12345, "Of the division by --eval_split, of drawing and of the order.")
    baseline_dir: Optional[str] = option(
        None,
        "A baseline that was kept, OUTPUT/tf-idf say: predict --predict_file, or the test files of"
        " a task, in the form of bert classify, and train nothing.",
    )
    output_dir: str = option(
        "",
        "Directory for baselines.tsv and the baselines, or for predictions; these stand beside the"
        " baseline without it.",
    )

    GROUPS: ClassVar = {
        "Data": (DataOptions,),
        "Baselines": ("output_dir", "keywords", "seed", "baseline_dir"),
    }

    def __post_init__(self):
        conflicts = self.data_conflicts()
        if self.baseline_dir:
            if self.is_custom and not self.predict_file:
                conflicts.append("--baseline_dir: pass the --predict_file (or --task_name)")
        elif self.is_custom:
            if self.predict_file:
                conflicts.append("--predict_file: pass the --baseline_dir to predict with")
            if not self.train_file:
                conflicts.append("--train_file is required (or --task_name)")
            if not (self.eval_file or self.eval_split):
                conflicts.append("--eval_file or --eval_split is required")
        check(conflicts)


def run(options: Options) -> dict[str, dict[str, float]]:
    """Trains and evaluates every baseline, or predicts with one; returns metrics by title.

    Raises:
      UserError: an input cannot be used.
    """
    if options.baseline_dir:
        predict(options, options.baseline_dir)
        return {}
    data = task_data.load(
        options.task(), options, task_data.Wanted(True, True, False), options.seed, []
    )
    if options.output_dir:
        files.make_directory(options.output_dir, "output_dir")
    for line in task_data.describe(data):
        logging.info("%s", line)
    phrases = None
    if options.keywords:
        phrases = baselines.read_phrases(options.keywords, data.problem)
    trained = baselines.train(data, options.seed, phrases)
    found = {one.title: evaluate(one, data.dev[""]) for one in trained.values()}
    text = table(found)
    print(text, end="", flush=True)
    if options.output_dir:
        for name, baseline in trained.items():
            baselines.save(os.path.join(options.output_dir, name), baseline, data.metric)
        files.write_text(os.path.join(options.output_dir, TABLE), text)
    return found


def evaluate(baseline: Baseline, examples: Sequence[Example]) -> dict[str, float]:
    """Returns the metrics of a baseline; of one that may abstain, how good its answers are, too."""
    problem = baseline.problem
    targets = np.array([problem.values(example.label) for example in examples])
    targets = targets if problem.kind == MULTI else targets[:, 0]
    logits = baseline.logits(examples)
    found = scores.score(problem, logits, targets)
    answered = baseline.answered(examples)
    if answered is not None:
        found["eval_answered"] = float(answered.mean())
        if answered.any():
            right = logits.argmax(-1) == targets
            found["eval_accuracy_answered"] = float(right[answered].mean())
    return found


def predict(options: Options, directory: str) -> None:
    """Predicts --predict_file, or the test files of a task, with the baseline of a directory."""
    baseline = baselines.load(directory, "baseline_dir")
    splits = task_data.Wanted(False, False, True)
    data = task_data.load(options.task(), options, splits, options.seed, [directory])
    for suffix, examples in data.test.items():
        rows = _answers(baseline, examples, bool(options.predict_file))
        if options.predict_file == files.STREAM:
            predictions.show(rows)
            continue
        output_dir = options.output_dir or directory
        files.make_directory(output_dir, "output_dir")
        submission = options.task().submissions.get(suffix)
        predictions.write(output_dir, suffix, baseline.problem, rows, submission)


def _answers(
    baseline: Baseline, examples: Sequence[Example], empty_if_blank: bool
) -> list[list[str]]:
    probabilities = baseline.problem.probabilities(baseline.logits(examples))
    answers = Calibration().answers(baseline.problem, probabilities)
    answered = baseline.answered(examples)
    if answered is not None:
        answers = [name if sure else OTHER for name, sure in zip(answers, answered)]
    return predictions.rows(baseline.problem, examples, answers, probabilities, empty_if_blank)


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """Returns a tab-separated table with a row for each baseline."""
    names = list(dict.fromkeys(name for metrics in found.values() for name in metrics))
    lines = ["\t".join(["baseline", *names])]
    for baseline, metrics in found.items():
        values = [f"{metrics[name]:.4f}" if name in metrics else "" for name in names]
        lines.append("\t".join([baseline, *values]))
    return "\n".join(lines) + "\n"


def entry() -> None:
    """The console command."""
    cli.run(run, Options, __doc__)


if __name__ == "__main__":
    entry()
