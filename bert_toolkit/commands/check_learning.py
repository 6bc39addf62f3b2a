r"""Looks for what keeps a classifier from learning: the data, the vocabulary, the learning rate.

Reads   a command line of bert classify that trains: the same options, with check in the place of
        classify. All of the training data is read, and one batch of it trained on.
Writes  a table to standard output, a line for each thing looked at; nothing to --output_dir. Ends
        with exit code 0 if every line says ok, 1 if one says LOOK.

Example:
  bert check --train_file=sample_data/reviews.csv --bert_dir=demo_output/pretrained \
    --max_seq_length=32 --learning_rate=3e-4
"""

import collections
import dataclasses
import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple, Optional

import numpy as np

import run_classifier
from bert_toolkit import cli
from bert_toolkit.io.progress import Progress
from bert_toolkit.options import check, option
from bert_toolkit.problems import MULTI, REGRESSION, SINGLE, Problem
from bert_toolkit.tasks import start
from bert_toolkit.tasks.classification import task_data
from bert_toolkit.tasks.classification.task_data import Data, Example

# Sequences are counted of so many rows at most, drawn from all.
COUNTED_ROWS = 5_000

# All limits are rules of thumb.
# How far from its expectation a first loss may be. The outputs of a new head are small, not zero.
FIRST_LOSS_TOLERANCE = 0.3
# A batch is learned at this share of the loss of the best answer that looks at no text.
LEARNED = 0.1
# A step moves weights by about a thousandth of their size where training goes well
# (https://cs231n.github.io/neural-networks-3/#ratio); ten times less or more is worth a look.
UPDATE_SIZES = (1e-4, 1e-2)
# Shares of rows that are cut, of tokens that are [UNK], and of padding.
MANY_CUT, MANY_UNKNOWN, MUCH_PADDING = 0.2, 0.05, 0.75
# Neighbours of different labels, as a share of what a random order has, below which rows are
# sorted; of fewer rows nothing is concluded.
SORTED, FEWEST_ROWS = 0.5, 20
# Numbers to predict that are far from where the output starts, which is near 0.
FAR_FROM_ZERO = 10.0


@dataclasses.dataclass(frozen=True)
class Options(run_classifier.Options):
    """The options of bert classify, and how long to try."""

    output_dir: str = option(
        "", "As bert classify takes it; a model in it is started from where no other is named."
    )
    check_rows: int = option(16, "Rows to learn, spread evenly over the labels.", lower=2)
    check_steps: int = option(
        100, "Most steps to try; it stops as soon as the batch is learned.", lower=1
    )
    # Not an option here: one batch is trained on.
    learning_curve: Optional[list[str]] = None

    GROUPS: ClassVar = {
        "Checking": ("check_rows", "check_steps"),
        **run_classifier.Options.GROUPS,
    }

    def __post_init__(self):
        if self.is_custom and not self.train_file:
            check(["--train_file is required (or --task_name)"])
        super().__post_init__()

    def actions(self) -> tuple[bool, bool, bool]:
        """Returns that only training is looked at."""
        return True, False, False


class Finding(NamedTuple):
    """A line of the table.

    Attributes:
      name: what was looked at.
      found: what it is like, in numbers.
      advice: what to do, where something is wrong; empty where not.
    """

    name: str
    found: str
    advice: str = ""

    def text(self) -> str:
        """Returns it as a line: name, verdict, what was found."""
        verdict = "LOOK" if self.advice else "ok"
        end = f"; {self.advice}" if self.advice else ""
        return f"{self.name:<18} {verdict:<5} {self.found}{end}"


def run(options: Options) -> list[Finding]:
    """Prints the table; returns its lines.

    Raises:
      UserError: an input cannot be used.
    """
    if options.output_dir:
        options = start.resolve(options)
    check(options.missing_files("bert_config_file", "vocab_file"))
    from bert_toolkit.checkpoints import model_directory
    from bert_toolkit.training import precision

    model = model_directory.find(options)
    model_directory.check_length(options.max_seq_length, model)
    splits = task_data.Wanted(train=True, dev=False, test=False)
    dirs = [options.bert_dir] if options.bert_dir else []
    unwritten = dataclasses.replace(options, output_dir="")  # of bad rows no list is left either
    data = task_data.load(options.task(), unwritten, splits, options.seed, dirs)
    # On the devices of this machine alone, whatever the run is to have.
    options = dataclasses.replace(precision.resolve(options), use_tpu=False)
    tokenizer = model.tokenizer()
    findings = [
        *label_findings(data),
        *text_findings(data, options, tokenizer),
        *learning_findings(data, options, model, tokenizer),
    ]
    print("".join(f"{finding.text()}\n" for finding in findings), end="", flush=True)
    return findings


# --- Labels ---


def label_findings(data: Data) -> Iterator[Finding]:
    """Yields what there is to say of the labels, and of their order."""
    rows = data.train or []
    found = f"{len(rows):,} rows: {task_data.label_counts(rows, data.problem)}"
    if data.problem.kind == REGRESSION:
        numbers = np.array([example.label for example in rows])
        far = max(abs(numbers.mean()), numbers.std()) > FAR_FROM_ZERO
        advice = "the output starts near 0 and goes far in small steps; scale them to about -1 to 1"
        yield Finding("labels", found, advice if far else "")
        return
    yield Finding("labels", found, _label_advice(data))
    if data.problem.kind == SINGLE and len(rows) >= FEWEST_ROWS:
        yield _order(rows)


def _label_advice(data: Data) -> str:
    counts = task_data.count_labels(data.train or [], data.problem)
    [(most, count), *_] = counts.most_common(1)
    absent = [label for label in counts if not counts[label]]
    rare = [label for label in counts if counts[label] < task_data.RARE * count]
    if data.problem.kind == SINGLE and count == len(data.train or []):
        return f"all rows have the label {most}, so that there is nothing to tell apart"
    if absent:
        return f"no row has the label {', '.join(absent[:5])}; it cannot be learned"
    if rare:
        return (
            f"few rows have the label {', '.join(rare[:5])}: {most} is always answered at first;"
            " try --class_weights=balanced or --oversample, and look at f1_macro"
        )
    return ""


def _order(rows: Sequence[Example]) -> Finding:
    """Says whether the rows are sorted by label."""
    labels = [example.label for example in rows]
    changes = sum(one != other for one, other in zip(labels, labels[1:])) / (len(rows) - 1)
    shares = np.array(list(collections.Counter(labels).values())) / len(rows)
    random = 1 - float(np.square(shares).sum())
    found = f"neighbours differ in {changes:.0%} of rows, in random order in {random:.0%}"
    if changes < SORTED * random:
        found += ": sorted; bert classify shuffles all rows, so that it does no harm here"
    return Finding("order of labels", found)


# --- Texts ---


def text_findings(data: Data, options: Options, tokenizer: Any) -> Iterator[Finding]:
    """Yields what there is to say of the texts as the model reads them."""
    from bert_toolkit.tasks import encoded
    from bert_toolkit.tasks.classification.classification import Classification

    task = Classification(data, options, tokenizer)
    counts = encoded.Counts(tokenizer, options.max_seq_length)
    rows = _drawn(data.train or [], COUNTED_ROWS, options.seed)
    with Progress("reading", "rows", len(rows)) as progress:
        for example in rows:
            for sequence, _ in task.encode(example):
                counts.add(sequence)
            progress.update()
    lengths, length = np.array(counts.lengths), options.max_seq_length
    most = int(np.percentile(lengths, 95))
    padding = 1 - lengths.mean() / length
    found = f"{padding:.1%} of {length} tokens on average"
    if padding > MUCH_PADDING:
        found += f"; 95 % of texts have at most {most}: a smaller --max_seq_length gives the same"
    yield Finding("padding", found)
    cut = counts.cut / len(lengths)
    advice = "what labels depend on may be cut off; try a larger --max_seq_length, --truncate or"
    advice = f"{advice} --doc_stride" if cut > MANY_CUT else ""
    yield Finding("cut texts", f"{cut:.1%} of texts are longer than {length} tokens", advice)
    unknown = counts.unknown / max(1, counts.tokens)
    advice = (
        "the model cannot tell their words apart; does the vocabulary fit the language, the casing"
        " (--do_lower_case) and the encoding of the file?"
    )
    found = f"{unknown:.2%} of tokens are not in the vocabulary"
    yield Finding("[UNK]", found, advice if unknown > MANY_UNKNOWN else "")


def _drawn(rows: Sequence[Example], most: int, seed: int) -> list[Example]:
    """Returns rows drawn at random, in a seeded order."""
    order = np.random.default_rng(seed).permutation(len(rows))
    return [rows[number] for number in order[:most]]


# --- Learning ---


def learning_findings(
    data: Data, options: Options, model: Any, tokenizer: Any
) -> Iterator[Finding]:
    """Trains on one batch, and yields what there is to say of its losses and updates."""
    from bert_toolkit.tasks import one_batch
    from bert_toolkit.tasks.classification.classification import Classification

    rows = batch(data, options.check_rows, options.seed)
    # Loss and sequences as plain as can be: a row is a sequence, and counts 1.
    plain = dataclasses.replace(
        options,
        doc_stride=0,
        class_weights=None,
        label_smoothing=0.0,
        oversample=False,
        rdrop_alpha=0.0,
    )
    blind = blind_loss(data.problem, rows)
    steps = options.check_steps if blind else min(options.check_steps, one_batch.MEASURED_STEPS)
    trial = one_batch.learn(
        Classification(data, plain, tokenizer),
        rows,
        one_batch.Model(model.config, tokenizer, model.init_checkpoint),
        plain,
        steps,
        enough=LEARNED * blind,
    )
    yield _first_loss(data.problem, rows, trial.losses, has_head(model, data.problem))
    yield _learned(trial, len(rows), blind, options)
    for part, size in trial.updates.items():
        yield _update(part, size, options, is_new=part == one_batch.HEAD)


def batch(data: Data, size: int, seed: int) -> list[Example]:
    """Returns rows of different texts to learn, of every label as many as can be."""
    drawn = _drawn(data.train or [], len(data.train or []), seed)
    rows = list({(row.text_a, row.text_b): row for row in drawn}.values())
    if data.problem.kind == SINGLE:
        seen: collections.Counter = collections.Counter()
        places = []
        for row in rows:
            places.append(seen[row.label])
            seen[row.label] += 1
        rows = [rows[number] for number in np.argsort(places, kind="stable")]
    return rows[:size]


def blind_loss(problem: Problem, rows: Sequence[Example]) -> float:
    """Returns the loss of the best answer that is the same for all rows."""
    values = np.array([problem.values(row.label) for row in rows], np.float64)
    if problem.kind == REGRESSION:
        return float(values.var())
    if problem.kind == SINGLE:
        shares = np.bincount(values[:, 0].astype(int), minlength=len(problem.labels)) / len(rows)
        return _entropy(shares)
    shares = values.mean(0)
    return (_entropy(shares) + _entropy(1 - shares)) / len(problem.labels)


def _entropy(shares: np.ndarray) -> float:
    shares = shares[shares > 0]
    return abs(float((shares * np.log(shares)).sum()))


def has_head(model: Any, problem: Problem) -> bool:
    """Returns whether the model to start from brings a head for as many outputs."""
    from bert_toolkit.checkpoints import checkpoint_files

    with checkpoint_files.as_tensorflow(model.init_checkpoint) as weights:
        shapes = checkpoint_files.shapes(weights.prefix) if weights else {}
    return list(shapes.get("output_bias", ())) == [problem.outputs]


def _first_loss(
    problem: Problem, rows: Sequence[Example], losses: Sequence[float], is_trained: bool
) -> Finding:
    if problem.kind == REGRESSION:
        expected = float(np.mean([row.label**2 for row in rows]))
        is_near = bool(losses) and abs(math.sqrt(losses[0]) - math.sqrt(expected)) < 1
        words = f"that of answering 0 is {expected:.4f}"
    else:
        labels = 2 if problem.kind == MULTI else len(problem.labels)
        expected = math.log(labels)
        is_near = bool(losses) and abs(losses[0] - expected) < FIRST_LOSS_TOLERANCE
        words = f"that of knowing nothing is ln {labels} = {expected:.4f}"
    found = f"{losses[0]:.4f}" if losses else "not a number"
    if is_trained:
        return Finding("first loss", f"{found}; the head is trained already")
    advice = "a new head should be near it; are the weights whole, and the config theirs?"
    return Finding("first loss", f"{found}; {words}", "" if is_near else advice)


def _learned(trial: Any, rows: int, blind: float, options: Options) -> Finding:
    name, losses = "learning a batch", trial.losses
    if not blind:
        return Finding(name, f"{rows} rows of one label", "there is nothing to learn")
    if trial.is_nan:
        advice = f"--learning_rate={options.learning_rate:g} is too high; try 2e-5 to 1e-4"
        return Finding(name, f"the loss was not a number after {len(losses)} steps", advice)
    found = (
        f"{rows} rows, no dropout: loss {losses[0]:.4f} -> {losses[-1]:.4f} in {len(losses)} steps"
    )
    if losses[-1] <= LEARNED * blind:
        return Finding(name, found)
    advice = f"expected {LEARNED * blind:.4f} or less; "
    if losses[-1] > losses[0]:
        advice += f"it rose: try a smaller --learning_rate than {options.learning_rate:g}"
    else:
        advice += (
            "see the other lines, and whether labels can be told from the texts; try a larger"
            f" --learning_rate than {options.learning_rate:g}, or more --check_steps"
        )
    return Finding(name, found, advice)


def _update(part: str, size: Optional[float], options: Options, is_new: bool) -> Finding:
    name = f"update {part}"
    if size is None:
        return Finding(name, "frozen (--freeze)" if options.freeze else "none was made")
    least, most = UPDATE_SIZES
    advice = ""
    if size < least or (size > most and not is_new):  # what starts small may move far
        found, other = ("less", "larger") if size < least else ("more", "smaller")
        advice = (
            f"{found} than the usual {least:.0e} to {most:.0e}: a {other} --learning_rate than"
            f" {options.learning_rate:g}?"
        )
    return Finding(name, f"{size:.1e} of the weights in a step", advice)


def entry() -> None:
    """The console command."""
    cli.run(_run_and_exit, Options, __doc__)


def _run_and_exit(options: Options) -> None:
    if any(finding.advice for finding in run(options)):
        sys.exit(cli.EXIT_ERROR)


if __name__ == "__main__":
    entry()
