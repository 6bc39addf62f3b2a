r"""Judges classifiers and baselines on the same texts: how good, how quick, how large.

Reads   directories of models (of bert classify, bert distill, or Hugging Face's) and of baselines
        (of bert baselines), and texts with labels, by the data flags of bert classify.
Writes  a table to standard output, and with --output_file a .tsv of it: metrics, the difference to
        the first directory with its interval, milliseconds a text, megabytes of weights.

The texts are --eval_file, or the dev file of a task; with --eval_split those that the run held out
(pass its --seed), with --test_split the test part.

Examples:
  bert compare out/reviews out/baselines/tf-idf --eval_file=sample_data/reviews/dev.tsv

  bert compare out/large out/small --task_name=sst-2 --data_dir=sample_data/reviews
"""

import dataclasses
import os
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, Optional

import numpy as np
from absl import logging

from bert_toolkit import cli
from bert_toolkit.checkpoints import task_file
from bert_toolkit.errors import UserError
from bert_toolkit.io import files, metrics_files
from bert_toolkit.options import ModelOptions, check, option
from bert_toolkit.problems import MULTI, REGRESSION, SINGLE, Problem
from bert_toolkit.tasks.classification import baselines, scores, task_data
from bert_toolkit.tasks.classification.data_options import DataOptions
from bert_toolkit.tasks.classification.task_data import Example
from bert_toolkit.tasks.start import BEST

# Samples that an interval is made of.
RESAMPLES = 1000
# Digits behind the point, of columns that have not four.
DIGITS = {"ms_per_text": 3, "megabytes": 2}
# Metrics that are shown beside the one that decides.
SHOWN = {
    SINGLE: ("accuracy", "f1_macro", "loss", "calibration_error"),
    MULTI: ("f1_micro", "f1_macro", "accuracy", "loss"),
    REGRESSION: ("spearman", "mean_absolute_error"),
}


@dataclasses.dataclass(frozen=True)
class Options(DataOptions):
    """The options of this command."""

    dirs: Optional[Sequence[str]] = option(
        None,
        "Directories of models and baselines; the others are compared with the first. They may"
        " stand without the flag: bert compare DIR DIR ...",
        positional=True,
    )
    max_seq_length: Optional[int] = option(
        None,
        "Texts are cut to so many tokens; without it, to what each model was trained with (128"
        " where that is not known).",
        lower=4,
    )
    batch_size: int = option(
        32, "Texts that a model reads at once; 1 to time texts that come one by one.", lower=1
    )
    seed: int = option(12345, "Of the division by --eval_split, and of the intervals.")
    output_file: Optional[str] = option(None, "The table as a file, .tsv.")

    GROUPS: ClassVar = {
        "Comparison": ("dirs", "output_file", "max_seq_length", "batch_size", "seed"),
        "Data": (DataOptions,),
    }

    def __post_init__(self):
        conflicts = [] if self.dirs else ["pass directories to compare: bert compare DIR DIR ..."]
        if self.is_custom and not (self.eval_file or self.eval_split or self.test_split):
            conflicts.append(
                "--eval_file is required (or --task_name, or --train_file with --eval_split): all"
                " are judged on the same texts"
            )
        else:
            conflicts += self.data_conflicts()
        check(conflicts)


class Judged(NamedTuple):
    """What a model or a baseline says of the texts.

    Attributes:
      directory: where it lies.
      logits: of the texts, [N, outputs], labels in the order of the first.
      answered: which texts it has an answer to, [N] booleans; None for all.
      seconds: that it took.
      size: of its weights, in bytes.
    """

    directory: str
    logits: np.ndarray
    answered: Optional[np.ndarray]
    seconds: float
    size: int


def run(options: Options) -> list[dict[str, Any]]:
    """Prints the table and returns its rows, a dict each.

    Raises:
      UserError: a directory has no model or baseline, or one for other labels.
    """
    directories = [directory.rstrip("/") or "/" for directory in options.dirs or ()]
    for directory in directories:
        if not files.exists(directory):
            raise UserError(f"{directory}: no such directory; expected a model or a baseline")
        if not files.is_directory(directory):
            raise UserError(
                f"{directory}: a file; expected the directory of a model or a baseline (OUT/*/ with"
                " a slash at the end are directories only)"
            )
    if options.output_file:
        files.check_output(options.output_file)
    problem, metric, examples = _load(options, directories[0])
    for directory in directories:  # before any is computed
        _order(directory, _problem_of(directory), problem)
    judged = []
    for directory in directories:
        logging.info("%s: %s texts", directory, f"{len(examples):,}")
        judged.append(_judge(directory, problem, examples, options))
    values = np.array([problem.values(example.label) for example in examples])
    targets = values if problem.kind == MULTI else values[:, 0]
    rows = _rows(judged, problem, metric, targets, options.seed)
    _show(rows, options.output_file)
    return rows


def _load(options: Options, first: str) -> tuple[Problem, str, list[Example]]:
    """Returns what is predicted, the metric that decides, and the texts."""
    model_dirs = _model_dirs(first)
    wanted = task_data.Wanted(False, True, False)
    data = task_data.load(options.task(), options, wanted, options.seed, model_dirs)
    part = task_data.TEST if options.test_split else ""
    examples = data.dev[part]
    where = "test part" if part else "dev data"
    logging.info("%s: %s", where, task_data.label_counts(examples, data.problem))
    return data.problem, data.metric, examples


# --- Models and baselines ---


def _model_dirs(directory: str) -> list[str]:
    """Returns where it may say what a model predicts."""
    return [directory, os.path.join(directory, BEST)]


def _problem_of(directory: str) -> Problem:
    """Returns what a model or a baseline predicts.

    Raises:
      UserError: there is none.
    """
    found = task_file.read(_model_dirs(directory))
    if found is None:
        raise UserError(
            f"{directory}: no {task_file.NAME} in it; expected a trained classifier or a baseline"
        )
    return found


def _judge(
    directory: str, problem: Problem, examples: Sequence[Example], options: Options
) -> Judged:
    if baselines.is_one(directory):
        return _judge_baseline(directory, problem, examples)
    return _judge_model(directory, problem, examples, options)


def _judge_baseline(directory: str, problem: Problem, examples: Sequence[Example]) -> Judged:
    baseline = baselines.load(directory, "dirs")
    order = _order(directory, baseline.problem, problem)
    baseline.logits(examples[:1])  # the first call has to build what finds pieces of text
    start = time.perf_counter()
    logits = baseline.logits(examples)
    seconds = time.perf_counter() - start
    size = files.size(os.path.join(directory, baselines.WEIGHTS))
    return Judged(directory, logits[:, order], baseline.answered(examples), seconds, size)


def _judge_model(
    directory: str, problem: Problem, examples: Sequence[Example], options: Options
) -> Judged:
    from bert_toolkit.checkpoints import training_notes
    from bert_toolkit.inference.encoder import arguments_named
    from bert_toolkit.inference.text_classifier import TextClassifier

    notes = map(training_notes.read, _model_dirs(directory))
    noted = next(filter(None, notes), {}).get("flags", {}).get("max_seq_length")
    length = options.max_seq_length or noted or 128
    with arguments_named(bert_dir="directory", max_seq_length="--max_seq_length"):
        classifier = TextClassifier.from_options(ModelOptions(bert_dir=directory), length)
    with classifier:
        order = _order(directory, classifier.problem, problem)
        texts = [(one.text_a, one.text_b) if one.text_b else one.text_a for one in examples]
        batch = options.batch_size
        classifier.logits(texts[:batch], batch)  # TensorFlow plans a graph when it first runs
        start = time.perf_counter()
        logits = classifier.logits(texts, batch)
        seconds = time.perf_counter() - start
        logits = logits / classifier.calibration.temperature
        below = classifier.calibration.reject_below
        answered = problem.probabilities(logits).max(-1) >= below if below else None
        return Judged(directory, logits[:, order], answered, seconds, classifier.size)


def _order(directory: str, own: Problem, problem: Problem) -> list[int]:
    """Returns the numbers of a model's outputs in the order of the problem's labels.

    Raises:
      UserError: it has others.
    """
    if own.kind != problem.kind or sorted(own.labels) != sorted(problem.labels):
        raise UserError(
            f"{directory}: {_described(own)}; expected {_described(problem)}, as the data and the"
            " first directory have; leave it out, or compare it with models of its own task"
        )
    return [own.labels.index(label) for label in problem.labels] or [0]


def _described(problem: Problem) -> str:
    labels = ", ".join(problem.labels[:10]) + (", ..." if len(problem.labels) > 10 else "")
    return f"{problem.kind} with the labels {labels}" if labels else problem.kind


# --- The table ---


def _rows(
    judged: Sequence[Judged], problem: Problem, metric: str, targets: np.ndarray, seed: int
) -> list[dict[str, Any]]:
    """Returns a row for each: name of a column -> text or number."""
    names = list(dict.fromkeys([metric, *SHOWN[problem.kind]]))
    rows = []
    for one in judged:
        found = scores.score(problem, one.logits, targets)
        row: dict[str, Any] = {"directory": one.directory}
        row.update({name: found.get(f"eval_{name}", np.nan) for name in names})
        if any(other.answered is not None for other in judged):
            row.update(_of_answered(one, targets))
        if len(judged) > 1:
            row.update(_difference(one, judged[0], problem, metric, targets, seed))
        row["ms_per_text"] = 1000 * one.seconds / len(targets)
        row["megabytes"] = one.size / 1e6
        rows.append(row)
    return rows


def _of_answered(one: Judged, targets: np.ndarray) -> dict[str, float]:
    answered = np.ones(len(targets), bool) if one.answered is None else one.answered
    right = one.logits.argmax(-1) == targets
    accuracy = right[answered].mean() if answered.any() else np.nan
    return {"answered": float(answered.mean()), "accuracy_answered": float(accuracy)}


def _difference(
    one: Judged,
    first: Judged,
    problem: Problem,
    metric: str,
    targets: np.ndarray,
    seed: int,
) -> dict[str, float]:
    """Returns how much better one is than the first, with an interval of 95 %.

    The interval is the paired bootstrap's (Efron and Tibshirani, 1993): texts are drawn anew with
    repetition, the same for both. Of single labels there is the exact McNemar test (1947) too: the
    probability of so uneven a split of the texts that only one of both has right.
    """
    names = ("difference", "from", "to", *(["mcnemar_p"] if problem.kind == SINGLE else []))
    if one is first:
        return dict.fromkeys(names, np.nan)
    measure = _measure(metric, problem)
    pair = [_answers(problem, each.logits) for each in (one, first)]

    def difference(rows: np.ndarray) -> float:
        better, worse = (measure(targets[rows], answers[rows]) for answers in pair)
        return better - worse

    generator = np.random.default_rng(seed)
    count = len(targets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of samples in which a label does not occur
        found = [difference(generator.integers(count, size=count)) for _ in range(RESAMPLES)]
        values = [difference(np.arange(count)), *np.nanquantile(found, [0.025, 0.975])]
    if problem.kind == SINGLE:
        values.append(_mcnemar(*(answers == targets for answers in pair)))
    return {name: float(value) for name, value in zip(names, values)}


def _mcnemar(one: np.ndarray, other: np.ndarray) -> float:
    from scipy import stats

    only_one, only_other = int((one & ~other).sum()), int((other & ~one).sum())
    if not only_one + only_other:
        return 1.0
    return float(stats.binomtest(only_one, only_one + only_other).pvalue)


def _answers(problem: Problem, logits: np.ndarray) -> np.ndarray:
    """[N, outputs] -> [N] ids or numbers, or [N, labels] zeros and ones."""
    if problem.kind == SINGLE:
        return logits.argmax(-1)
    return (logits >= 0).astype(int) if problem.kind == MULTI else logits[:, 0]


def _measure(metric: str, problem: Problem) -> Callable[[np.ndarray, np.ndarray], float]:
    """Returns the metric that decides, of targets and answers."""
    from scipy import stats
    from sklearn import metrics

    if metric == "accuracy":
        return lambda targets, answers: float((targets == answers).mean())
    return {
        "f1": lambda targets, answers: metrics.f1_score(targets, answers, zero_division=0),
        "f1_micro": lambda targets, answers: metrics.f1_score(
            targets, answers, average="micro", zero_division=0
        ),
        "matthews": metrics.matthews_corrcoef,
        "pearson": lambda targets, answers: stats.pearsonr(targets, answers)[0],
        "spearman": lambda targets, answers: stats.spearmanr(targets, answers)[0],
    }[metric]


def _show(rows: Sequence[dict[str, Any]], path: Optional[str]) -> None:
    table = [list(rows[0]), *([_cell(*item) for item in row.items()] for row in rows)]
    print("\n".join(metrics_files.aligned(table)), flush=True)
    if path:
        files.write_text(path, "".join("\t".join(row) + "\n" for row in table))


def _cell(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if np.isnan(value):
        return ""
    return f"{value:.{DIGITS.get(name, 4)}f}"


def entry() -> None:
    """The console command."""
    cli.run(run, Options, __doc__)


if __name__ == "__main__":
    entry()
