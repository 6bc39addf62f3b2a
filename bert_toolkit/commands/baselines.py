r"""Judges simple classifiers by the measures of bert classify: is BERT worth it?

Reads   the data of bert classify, by the same flags; perhaps a JSON file of label to words.
Writes  a table to standard output, and to baselines.tsv in --output_dir, if that is given: a row
        for the most frequent label, labels drawn by their frequency, the words of --keywords, and
        logistic regression on TF-IDF of characters (2 to 7 of them), each on the dev data.

Examples:
  bert baselines --task_name=sst-2 --data_dir=sample_data/reviews

  bert baselines --train_file=sample_data/reviews/train.tsv --eval_split=0.1
"""

import dataclasses
import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Optional

import numpy as np
from absl import logging

from bert_toolkit import cli
from bert_toolkit.errors import UserError
from bert_toolkit.io import files
from bert_toolkit.options import check, option
from bert_toolkit.problems import MULTI, REGRESSION, SINGLE
from bert_toolkit.tasks.classification import scores, task_data
from bert_toolkit.tasks.classification.data_options import DataOptions
from bert_toolkit.tasks.classification.task_data import Data, Example

TABLE = "baselines.tsv"
# Instead of 0 and 1, so that a wrong answer has a loss that is a number.
UNSURE = 1e-3


@dataclasses.dataclass(frozen=True)
class Options(DataOptions):
    """The options of this program."""

    keywords: Optional[str] = option(
        None,
        'JSON file of label to words, {"1": ["good", "great"], ...}: the label with the most of'
        " its words in a text is the answer, the most frequent label where there is none.",
    )
    seed: int = option(12345, "Of the division by --eval_split, and of drawing.")
    output_dir: str = option("", "Directory for baselines.tsv.")

    GROUPS: ClassVar = {
        "Data": (DataOptions,),
        "Baselines": ("output_dir", "keywords", "seed"),
    }

    def __post_init__(self):
        conflicts = self.data_conflicts()
        if self.is_custom and not self.train_file:
            conflicts.append("--train_file is required (or --task_name)")
        if self.is_custom and not (self.eval_file or self.eval_split):
            conflicts.append("--eval_file or --eval_split is required")
        check(conflicts)


# A baseline: from training examples and texts to logits of these, [N, outputs].
Baseline = Callable[[Data, Sequence[Example]], np.ndarray]


def run(options: Options) -> dict[str, dict[str, float]]:
    """Evaluates every baseline on the main dev split; returns and prints metrics by name."""
    data = task_data.load(
        options.task(), options, task_data.Wanted(True, True, False), options.seed, []
    )
    if options.output_dir:
        files.make_directory(options.output_dir, "output_dir")
    for line in task_data.describe(data):
        logging.info("%s", line)
    examples = data.dev[""]
    targets = np.array([data.problem.values(example.label) for example in examples])
    targets = targets if data.problem.kind == MULTI else targets[:, 0]
    found = {}
    for name, baseline in baselines(options, data).items():
        start = time.monotonic()
        found[name] = scores.score(data.problem, baseline(data, examples), targets)
        logging.info("%s: %.1f s", name, time.monotonic() - start)
    text = table(found)
    print(text, end="", flush=True)
    if options.output_dir:
        files.write_text(os.path.join(options.output_dir, TABLE), text)
    return found


def baselines(options: Options, data: Data) -> dict[str, Baseline]:
    """Returns the baselines that fit the problem, by name."""
    if data.problem.kind == REGRESSION:
        return {"mean": mean, "tf-idf, ridge regression": tfidf}
    found: dict[str, Baseline] = {"majority": majority}
    if data.problem.kind == SINGLE:
        generator = np.random.default_rng(options.seed)
        found["weighted random"] = lambda data, texts: weighted_random(data, texts, generator)
        if options.keywords:
            words = read_keywords(options.keywords, data)
            found["keywords"] = lambda data, texts: keywords(data, texts, words)
    found["tf-idf, logistic regression"] = tfidf
    return found


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """Returns a tab-separated table with a row for each baseline."""
    names = list(dict.fromkeys(name for metrics in found.values() for name in metrics))
    lines = ["\t".join(["baseline", *names])]
    for baseline, metrics in found.items():
        values = [f"{metrics[name]:.4f}" if name in metrics else "" for name in names]
        lines.append("\t".join([baseline, *values]))
    return "\n".join(lines) + "\n"


# --- The baselines ---


def frequencies(data: Data) -> np.ndarray:
    """Returns the share of training examples that have each label, [labels]."""
    assert data.train is not None
    counts = task_data.count_labels(data.train, data.problem)
    return np.array([counts[label] for label in data.problem.labels]) / len(data.train)


def majority(data: Data, examples: Sequence[Example]) -> np.ndarray:
    """What is most frequent, as sure as it is frequent."""
    return np.tile(_logits(data, frequencies(data)), (len(examples), 1))


def weighted_random(data: Data, examples: Sequence[Example], generator) -> np.ndarray:
    """A label drawn by the frequencies."""
    shares = frequencies(data)
    drawn = generator.choice(len(shares), len(examples), p=shares)
    return _logits(data, np.eye(len(shares))[drawn])


def keywords(data: Data, examples: Sequence[Example], words: Mapping[str, set]) -> np.ndarray:
    """The label with the most words in the text; of several, and of none, the most frequent."""
    shares = frequencies(data)
    rows = []
    for example in examples:
        tokens = re.findall(r"\w+", f"{example.text_a} {example.text_b or ''}".lower())
        counts = [sum(token in words[label] for token in tokens) for label in data.problem.labels]
        rows.append(np.eye(len(shares))[int(np.argmax(np.array(counts) + 0.5 * shares))])
    return _logits(data, np.array(rows))


def read_keywords(path: str, data: Data) -> dict[str, set]:
    """Reads the words of each label, lower-cased.

    Raises:
      UserError: the file is no JSON object of lists, or names another label.
    """
    files.check_input(path, "keywords")
    try:
        found = json.loads(files.read_text(path))
        words = {
            label: {word.lower() for word in found.pop(label, [])} for label in data.problem.labels
        }
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{path}: {error}; expected a JSON object of label to words") from None
    if found:
        raise UserError(
            f"{path}: label {next(iter(found))!r}, expected one of {', '.join(data.problem.labels)}"
        )
    return words


def mean(data: Data, examples: Sequence[Example]) -> np.ndarray:
    """The mean of the training data."""
    assert data.train is not None
    value = np.mean([example.label for example in data.train])
    return np.full((len(examples), 1), value)


def tfidf(data: Data, examples: Sequence[Example]) -> np.ndarray:
    """A linear model on TF-IDF weights of sequences of 2 to 7 characters within words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multiclass import OneVsRestClassifier

    assert data.train is not None
    vectorizer = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(2, 7), min_df=2, sublinear_tf=True, dtype=np.float32
    )
    try:
        train = vectorizer.fit_transform(example.text for example in data.train)
    except ValueError:
        raise UserError(
            f"train: no characters in a row that two of {len(data.train)} texts share; TF-IDF needs"
            " more training data"
        ) from None
    texts = vectorizer.transform(example.text for example in examples)
    values = np.array([data.problem.values(example.label) for example in data.train])
    if data.problem.kind == REGRESSION:
        return Ridge(1.0).fit(train, values[:, 0]).predict(texts)[:, None]
    model = LogisticRegression(C=10.0, max_iter=1000)
    if data.problem.kind == MULTI:
        return _logits(data, OneVsRestClassifier(model).fit(train, values).predict_proba(texts))
    model.fit(train, values[:, 0])
    probabilities = np.zeros((len(examples), len(data.problem.labels)))
    probabilities[:, model.classes_] = model.predict_proba(texts)
    return _logits(data, probabilities)


def _logits(data: Data, probabilities: Any) -> np.ndarray:
    """Returns what the problem makes these probabilities of, none of them 0 or 1."""
    bounded = np.clip(probabilities, UNSURE, 1 - UNSURE)
    return np.log(bounded / (1 - bounded)) if data.problem.kind == MULTI else np.log(bounded)


def entry() -> None:
    """The console command."""
    cli.run(run, Options, __doc__)


if __name__ == "__main__":
    entry()
