r"""Finds rows to look at: suspicious labels, labels that conflict, near-duplicates across splits.

Reads   the data of bert classify, by the same flags; perhaps the --output_dir of a classifier.
Writes  a table to standard output: what each check found, the most suspicious rows first; with
        --output_dir all of it, in review.csv and review.jsonl.

Checks:
  labels      training labels that a model trained on the other rows doubts (confident learning:
              Northcutt et al., 2021, https://arxiv.org/abs/1911.00068, by cleanlab)
  conflicts   equal texts with different labels
  duplicates  rows to evaluate on or to test that a training row, or a dev row, nearly repeats
  losses      the wrong answers of --classifier_dir that cost most

Examples:
  bert review-data --task_name=sst-2 --data_dir=sample_data/reviews --output_dir=out/review

  bert review-data --train_file=sample_data/reviews.csv --eval_split=0.2 --checks=conflicts
"""

import collections
import csv
import dataclasses
import io
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Optional

import numpy as np
from absl import logging

from bert_toolkit import cli
from bert_toolkit.errors import UserError
from bert_toolkit.io import files, metrics_files
from bert_toolkit.io.progress import Progress
from bert_toolkit.options import check, option
from bert_toolkit.problems import MULTI, REGRESSION, SINGLE
from bert_toolkit.tasks.classification import task_data
from bert_toolkit.tasks.classification.baselines import tfidf
from bert_toolkit.tasks.classification.data_options import DataOptions
from bert_toolkit.tasks.classification.glue import Split
from bert_toolkit.tasks.classification.task_data import Data, Example

LABELS, CONFLICTS, DUPLICATES, LOSSES = CHECKS = ("labels", "conflicts", "duplicates", "losses")
STEM = "review"
# Characters of a text that the table shows.
SHOWN_TEXT = 80
# Rows that neighbors are looked for at a time.
BLOCK = 1000


@dataclasses.dataclass(frozen=True)
class Options(DataOptions):
    """The options of this program."""

    checks: Optional[Sequence[str]] = option(
        None,
        "What to look for, separated by commas: labels, conflicts, duplicates, losses; without it,"
        " all that the data allows.",
    )
    num_folds: int = option(
        5, "Parts of the training data that are each judged by a model of the others.", lower=2
    )
    bert_dir: Optional[str] = option(
        None,
        "A model directory, if labels are to be judged by its mean-pooled vectors as well as by"
        " TF-IDF: slower, and right more often.",
    )
    min_similarity: float = option(
        0.9,
        "Cosine from which on two texts are near-duplicates, of TF-IDF weights of sequences of 3 to"
        " 5 characters; 1 for equal texts only.",
        lower=0.1,
        upper=1.0,
    )
    classifier_dir: Optional[str] = option(
        None,
        "The --output_dir of bert classify, whose wrong answers of the highest loss are listed.",
    )
    max_shown: int = option(10, "Rows of each check that the table shows.", lower=0)
    seed: int = option(12345, "Of the division by --eval_split, and of the folds.")
    output_dir: str = option("", "Directory for review.csv and review.jsonl.")

    GROUPS: ClassVar = {
        "Data": (DataOptions,),
        "Review": (
            "output_dir",
            "checks",
            "num_folds",
            "bert_dir",
            "min_similarity",
            "classifier_dir",
            "max_shown",
            "seed",
        ),
    }

    def __post_init__(self):
        conflicts = self.data_conflicts()
        if self.is_custom and not self.train_file:
            conflicts.append("--train_file is required (or --task_name)")
        if self.predict_file == files.STREAM:
            conflicts.append("--predict_file=-: expected a file, in which lines can be looked up")
        unknown = [name for name in self.checks or () if name not in CHECKS]
        if unknown:
            conflicts.append(f"--checks={unknown[0]}: no such check. Known: {', '.join(CHECKS)}")
        if LOSSES in (self.checks or ()) and not self.classifier_dir:
            conflicts.append("--checks=losses: pass the --classifier_dir whose answers to list")
        check(conflicts)


class Finding(NamedTuple):
    """A row that is worth a look.

    Attributes:
      check: one of CHECKS.
      file: the row's file.
      line: where it stands there.
      label: its label.
      alternative: what a model, an equal text or the near-duplicate has in place of it.
      score: the probability of its label, the similarity, or the loss; None of conflicts.
      compared_with: where the rows stand that it is compared with, "train.tsv:12".
      text: of the row.
    """

    check: str
    file: str
    line: int
    label: str
    alternative: str
    score: Optional[float]
    compared_with: str
    text: str


class Part(NamedTuple):
    """A split of the data under its name, with the file it stands in."""

    name: str
    file: str
    examples: Sequence[Example]


def run(options: Options) -> list[Finding]:
    """Returns what all checks find, the most suspicious of each first; prints and writes it.

    Raises:
      UserError: an input cannot be used, or cleanlab is not there.
    """
    data = load(options)
    if LABELS in _checks(options) and data.problem.kind != REGRESSION:
        _cleanlab()  # before anything that takes time
    if options.output_dir:
        files.make_directory(options.output_dir, "output_dir")
    parts = parts_of(data, options)
    found: list[Finding] = []
    for name in _checks(options):
        if name == LABELS and data.problem.kind == REGRESSION:
            logging.info("labels: numbers are to be predicted; not checked")
            continue
        one = list(_RUN[name](data, parts, options))
        found += one
        print(table(name, one, options.max_shown), flush=True)
    if options.output_dir:
        write(options.output_dir, found)
    return found


def _checks(options: Options) -> list[str]:
    wanted = options.checks or (CHECKS if options.classifier_dir else CHECKS[:-1])
    return [name for name in CHECKS if name in wanted]


def load(options: Options) -> Data:
    """Reads the training data and the splits that are there beside it."""
    task = options.task()
    dev = bool(task.dev or options.eval_split or options.test_split)
    directory = options.data_dir or ""
    test = any(files.exists(os.path.join(directory, split.file)) for split in task.test.values())
    return task_data.load(task, options, task_data.Wanted(True, dev, test), options.seed, [])


def parts_of(data: Data, options: Options) -> list[Part]:
    """Returns the splits in the order of their use: to train on, to evaluate on, to test."""
    task = options.task()
    assert task.train is not None
    assert data.train is not None
    source = task.train

    def path(splits: Mapping[str, Split], suffix: str, flag: str) -> str:
        if options.is_custom:  # as it was given; parts that are divided off stand in --train_file
            return getattr(options, flag if suffix in splits else "train_file")
        return os.path.join(options.data_dir or "", splits.get(suffix, source).file)

    parts = [Part("train", path({}, "", "train_file"), data.train)]
    parts += [Part(f"dev{s}", path(task.dev, s, "eval_file"), rows) for s, rows in data.dev.items()]
    parts += [
        Part(f"test{s}", path(task.test, s, "predict_file"), rows) for s, rows in data.test.items()
    ]
    return parts


# --- The checks: from data, its splits and options to findings ---


def doubtful_labels(data: Data, parts: Sequence[Part], options: Options) -> Iterator[Finding]:
    """Yields the training rows whose label cleanlab doubts, the least probable label first."""
    train = parts[0]
    vectors = vectors_of(options.bert_dir, train.examples) if options.bert_dir else None
    probabilities = out_of_fold(data, options.num_folds, options.seed, vectors)
    labels = data.problem.labels
    for row, score in label_issues(data, probabilities):
        if data.problem.kind == SINGLE:
            alternative = labels[int(probabilities[row].argmax())]
        else:
            alternative = ",".join(np.array(labels)[probabilities[row] >= 0.5])
        yield _finding(LABELS, train, train.examples[row], alternative=alternative, score=score)


def vectors_of(bert_dir: str, examples: Sequence[Example]) -> np.ndarray:
    """Returns the mean-pooled vectors of texts by a model, [N, H]."""
    from bert_toolkit.inference.encoder import Encoder  # TensorFlow, which the rest does without

    texts = [(one.text_a, one.text_b) if one.text_b else one.text_a for one in examples]
    encoder = Encoder(bert_dir)
    blocks = []
    with Progress("reading texts", "rows", len(texts)) as progress:
        for start in range(0, len(texts), BLOCK):
            blocks.append(encoder.encode(texts[start : start + BLOCK]))
            progress.update(len(blocks[-1]))
    encoder.close()
    return np.concatenate(blocks)


def out_of_fold(
    data: Data, num_folds: int, seed: int, vectors: Optional[np.ndarray] = None
) -> np.ndarray:
    """Returns probabilities of the labels of each training row, [N, labels].

    They are those of TF-IDF with logistic regression (as bert baselines has it), trained on the
    folds that the row is not in; with `vectors` of the rows, [N, H], their mean with those of
    logistic regression on these.

    Raises:
      UserError: there are too few rows for the folds.
    """
    from sklearn.model_selection import KFold, StratifiedKFold

    assert data.train is not None
    rows, single = data.train, data.problem.kind == SINGLE
    counts = collections.Counter(one.label for one in rows)
    if len(rows) < num_folds or (single and (len(counts) < 2 or counts.most_common(2)[-1][1] < 2)):
        raise UserError(
            f"--num_folds={num_folds}: {len(rows):,} training rows are too few to judge labels by;"
            " expected as many as folds, and two labels with two rows each; or leave the check"
            f" out: --checks={CONFLICTS},{DUPLICATES}"
        )
    if single and counts.most_common(1)[0][1] < num_folds:
        num_folds = counts.most_common(1)[0][1]
    divide = StratifiedKFold if single else KFold
    folds = divide(num_folds, shuffle=True, random_state=seed)
    values = [str(one.label) for one in rows]
    found = np.zeros((len(rows), len(data.problem.labels)))
    with warnings.catch_warnings(), Progress("judging labels", "folds", num_folds) as progress:
        warnings.simplefilter("ignore")  # of labels with fewer rows than folds
        for others, held_out in folds.split(np.arange(len(rows)), values if single else None):
            fold = dataclasses.replace(data, train=[rows[n] for n in others])
            logits = tfidf(fold, [rows[n] for n in held_out])
            found[held_out] = data.problem.probabilities(logits)
            if vectors is not None:
                found[held_out] += _judged_by_vectors(fold, vectors[others], vectors[held_out])
                found[held_out] /= 2
            progress.update()
    return found


def _judged_by_vectors(fold: Data, train: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the probabilities that vectors have, [N, labels], from those of training rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    problem = fold.problem
    assert fold.train is not None
    values = np.array([problem.values(one.label) for one in fold.train])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    if problem.kind == MULTI:
        return OneVsRestClassifier(model).fit(train, values).predict_proba(others)
    model.fit(train, values[:, 0])
    found = np.zeros((len(others), len(problem.labels)))
    found[:, model.classes_] = model.predict_proba(others)
    return found


def label_issues(data: Data, probabilities: np.ndarray) -> list[tuple[int, float]]:
    """Returns the training rows with labels that are likely wrong, and how probable these are.

    Args:
      data: with the training rows.
      probabilities: [N, labels], from models that did not see the row.
    """
    cleanlab = _cleanlab()
    assert data.train is not None
    targets: list[Any]
    if data.problem.kind == MULTI:
        from cleanlab import multilabel_classification

        targets = [
            [n for n, name in enumerate(data.problem.labels) if name in one.label]
            for one in data.train
        ]
        scores = multilabel_classification.get_label_quality_scores(targets, probabilities)
    else:
        targets = [data.problem.labels.index(one.label) for one in data.train]
        scores = probabilities[np.arange(len(targets)), targets]
    issues = cleanlab.filter.find_label_issues(
        targets if data.problem.kind == MULTI else np.array(targets),
        probabilities,
        filter_by="confident_learning",
        multi_label=data.problem.kind == MULTI,
        n_jobs=1,
    )
    rows = np.flatnonzero(issues)
    return [(int(row), float(scores[row])) for row in rows[np.argsort(scores[rows])]]


def _cleanlab() -> Any:
    try:
        import cleanlab.filter
    except ImportError as error:
        raise UserError(
            f"--checks=labels needs cleanlab ({error}): pip install 'bert-toolkit[clean]'; or leave"
            f" it out: --checks={CONFLICTS},{DUPLICATES}"
        ) from None
    return cleanlab


def conflicting_labels(data: Data, parts: Sequence[Part], options: Options) -> Iterator[Finding]:
    """Yields the rows whose texts are equal, but for case and spaces, and whose labels differ."""
    groups = collections.defaultdict(list)
    for part in parts:
        for example in part.examples:
            if example.label is not None:
                texts = (example.text_a, example.text_b or "")
                key = tuple(" ".join(text.casefold().split()) for text in texts)
                groups[key].append((part, example))
    for rows in groups.values():
        counts = collections.Counter(_shown_label(example) for _, example in rows)
        for part, example in rows if len(counts) > 1 else ():
            others = [(p, e) for p, e in rows if _shown_label(e) != _shown_label(example)]
            alternative = ",".join(dict.fromkeys(_shown_label(e) for _, e in others))
            yield _finding(CONFLICTS, part, example, alternative=alternative, others=others)


def near_duplicates(data: Data, parts: Sequence[Part], options: Options) -> Iterator[Finding]:
    """Yields the rows of a split that are nearly those of an earlier one, the most alike first."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.neighbors import NearestNeighbors

    if len(parts) < 2:
        logging.info("duplicates: no split beside the training data; pass --eval_file, say")
        return
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(3, 5), dtype=np.float32)
    vectorizer.fit(one.text for part in parts for one in part.examples)
    vectors = [vectorizer.transform(example.text for example in part.examples) for part in parts]
    found = []
    total = sum(len(part.examples) for part in parts[1:])
    with Progress("comparing texts", "rows", total) as progress:
        for number, part in enumerate(parts[1:], 1):
            earlier = [(one, example) for one in parts[:number] for example in one.examples]
            nearest = NearestNeighbors(n_neighbors=1, metric="cosine")
            nearest.fit(_stacked(vectors[:number]))
            for start in range(0, len(part.examples), BLOCK):
                block = vectors[number][start : start + BLOCK]
                distances, neighbors = nearest.kneighbors(block)
                for n, (distance, neighbor) in enumerate(zip(distances[:, 0], neighbors[:, 0])):
                    similarity = round(1.0 - float(distance), 4)  # of equal texts 1
                    example = part.examples[start + n]
                    if similarity >= options.min_similarity and not example.is_blank:
                        other = earlier[neighbor]
                        found.append(
                            _finding(
                                DUPLICATES,
                                part,
                                example,
                                alternative=_shown_label(other[1]),
                                score=similarity,
                                others=[other],
                            )
                        )
                progress.update(block.shape[0])
    yield from sorted(found, key=lambda one: -(one.score or 0))


def _stacked(matrices: Sequence[Any]) -> Any:
    from scipy import sparse

    return sparse.vstack(matrices, format="csr")


def top_losses(data: Data, parts: Sequence[Part], options: Options) -> Iterator[Finding]:
    """Yields the wrong answers of a trained classifier, as bert classify has listed them.

    Raises:
      UserError: the classifier has not been evaluated.
    """
    directory = options.classifier_dir or ""
    there = 0
    for part in parts[1:]:
        suffix = part.name.removeprefix("dev")
        path = os.path.join(directory, f"eval_top_losses{suffix}.tsv")
        if not part.name.startswith("dev") or not files.exists(path):
            continue
        there += 1
        lines = {example.line: example for example in part.examples}
        for line in files.read_text(path).split("\n")[1:-1]:
            loss, _, number, label, answer, *texts = line.split("\t")
            if int(number) not in lines:
                raise UserError(
                    f"{path}: line {number} is none of {part.file}'s here; pass the files and the"
                    " division of that run (--eval_file, or --eval_split and --seed)"
                )
            if set(label.split(",")) != set(answer.split(",")):
                yield Finding(
                    LOSSES, part.file, int(number), label, answer, float(loss), "", " ".join(texts)
                )
    if not there:
        raise UserError(
            f"--classifier_dir={directory}: no eval_top_losses.tsv of a split given here; expected"
            " the --output_dir of bert classify after --do_eval, and the same --eval_file or"
            " --eval_split"
        )


_RUN = {
    LABELS: doubtful_labels,
    CONFLICTS: conflicting_labels,
    DUPLICATES: near_duplicates,
    LOSSES: top_losses,
}


def _finding(
    name: str,
    part: Part,
    example: Example,
    alternative: str = "",
    score: Optional[float] = None,
    others: Sequence[tuple[Part, Example]] = (),
) -> Finding:
    places = [f"{other.file}:{row.line}" for other, row in others[:3]]
    places += ["..."] if len(others) > 3 else []
    label = _shown_label(example)
    return Finding(
        name, part.file, example.line, label, alternative, score, " ".join(places), example.text
    )


def _shown_label(example: Example) -> str:
    label = example.label
    return ",".join(label) if isinstance(label, tuple) else "" if label is None else str(label)


# --- Output ---


_SCORE = {LABELS: "probability", CONFLICTS: "", DUPLICATES: "similarity", LOSSES: "loss"}


def table(name: str, found: Sequence[Finding], max_shown: int) -> str:
    """Returns how many rows a check found, and the first of them, aligned."""
    lines = [f"{name}: {len(found):,} rows"]
    shown = [
        [
            f"{one.file}:{one.line}",
            one.label,
            one.alternative,
            "" if one.score is None else f"{one.score:.3f}",
            one.compared_with,
            _shortened(one.text),
        ]
        for one in found[:max_shown]
    ]
    if shown:
        header = ["row", "label", "alternative", _SCORE[name], "as in", "text"]
        used = [n for n, title in enumerate(header) if any(row[n] for row in shown)]
        rows = [[row[n] for n in used] for row in [header, *shown]]
        lines += [f"  {line}" for line in metrics_files.aligned(rows)]
    return "\n".join(lines)


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_TEXT else f"{line[:SHOWN_TEXT]}..."


def write(directory: str, found: Sequence[Finding]) -> None:
    """Writes all findings to review.csv and review.jsonl."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Finding._fields)
    writer.writerows(found)
    stem = os.path.join(directory, STEM)
    files.write_text(f"{stem}.csv", text.getvalue())
    lines = [json.dumps(one._asdict(), ensure_ascii=False) + "\n" for one in found]
    files.write_text(f"{stem}.jsonl", "".join(lines))
    logging.info("%s rows to look at: %s.csv and %s.jsonl", f"{len(found):,}", stem, stem)


def entry() -> None:
    """The console command."""
    cli.run(run, Options, __doc__)


if __name__ == "__main__":
    entry()
