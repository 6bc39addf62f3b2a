"""Simple classifiers to compare BERT with: trained, kept as plain arrays, and loaded again.

A directory of one has baseline.json (what it is, and its settings), weights.npz (its arrays, never
a pickle) and task.json (what it predicts).
"""

import dataclasses
import functools
import json
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Optional

import numpy as np

from bert_toolkit.checkpoints import task_file
from bert_toolkit.errors import UserError
from bert_toolkit.io import files
from bert_toolkit.problems import MULTI, REGRESSION, SINGLE, Problem
from bert_toolkit.tasks.classification import task_data
from bert_toolkit.tasks.classification.task_data import Data, Example

NAME = "baseline.json"
WEIGHTS = "weights.npz"
# Instead of 0 and 1, so that a wrong answer has a loss that is a number.
UNSURE = 1e-3
# The logit of a label that no row to train on has.
NEVER = -20.0
SOFTMAX, SIGMOIDS = "softmax", "sigmoids"


@dataclasses.dataclass(frozen=True)
class Baseline:
    """A simple classifier.

    Attributes:
      title: what tables call it.
      problem: what it predicts.
      settings: what JSON can hold of it.
      arrays: its weights, by name.
    """

    title: str
    problem: Problem
    settings: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]

    kind: ClassVar[str] = ""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shapes that the arrays are to have."""
        return {"shares": (self.problem.outputs,)}

    def logits(self, examples: Sequence[Example]) -> np.ndarray:
        """Returns what the problem makes probabilities of, [N, outputs]."""
        raise NotImplementedError

    def answered(self, examples: Sequence[Example]) -> Optional[np.ndarray]:
        """Returns which examples it has an answer to, [N] booleans; None for all."""
        return None


class Constant(Baseline):
    """The same for every text: the shares of the labels, or the mean of the numbers."""

    kind = "constant"

    def logits(self, examples: Sequence[Example]) -> np.ndarray:
        return np.tile(_logits(self.problem, self.arrays["shares"]), (len(examples), 1))


class Drawn(Baseline):
    """Labels drawn at random: the same ones for the same number of texts."""

    kind = "drawn"

    def logits(self, examples: Sequence[Example]) -> np.ndarray:
        generator = np.random.default_rng(self.settings["seed"])
        shares = self.arrays["shares"]
        if self.problem.kind == MULTI:
            drawn = 1.0 * (generator.random((len(examples), len(shares))) < shares)
        else:
            drawn = np.eye(len(shares))[generator.choice(len(shares), len(examples), p=shares)]
        return _logits(self.problem, drawn)


class Keywords(Baseline):
    """The label whose words and phrases a text has most of; where none is ahead, no answer."""

    kind = "keywords"

    def counts(self, examples: Sequence[Example]) -> np.ndarray:
        """Returns how many of its phrases each label has in each text, [N, labels].

        Of phrases that overlap the longest counts: not good, and no good in it.
        """
        phrases = {name: set(words) for name, words in self.settings["phrases"].items()}
        pattern = _pattern({phrase for words in phrases.values() for phrase in words})
        counts = np.zeros((len(examples), len(self.problem.labels)))
        for row, example in enumerate(examples):
            for match in pattern.findall(example.text.lower()) if pattern else ():
                found = " ".join(match.split())
                counts[row] += [found in phrases.get(name, ()) for name in self.problem.labels]
        return counts

    def logits(self, examples: Sequence[Example]) -> np.ndarray:
        shares = self.arrays["shares"]  # decide where no label is ahead
        best = np.argmax(self.counts(examples) + 0.5 * shares, axis=-1)
        return _logits(self.problem, np.eye(len(shares))[best])

    def answered(self, examples: Sequence[Example]) -> Optional[np.ndarray]:
        counts = np.sort(self.counts(examples), axis=-1)
        return counts[:, -1] > counts[:, -2]


class Linear(Baseline):
    """A linear model of weighted pieces of text: characters by TF-IDF, or words by hashing."""

    kind = "linear"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        outputs = self.problem.outputs
        if "n_features" in self.settings["features"]:
            rows, more = self.settings["features"]["n_features"], {}
        else:
            rows = len(_terms(self.arrays["vocabulary"]))
            more = {"idf": (rows,), "vocabulary": self.arrays["vocabulary"].shape}
        return {"weights": (rows, outputs), "bias": (outputs,), **more}

    def logits(self, examples: Sequence[Example]) -> np.ndarray:
        texts = self._vectorizer.transform(example.text for example in examples)
        found = np.asarray(texts @ self.arrays["weights"] + self.arrays["bias"], np.float64)
        if self.settings["link"] == SOFTMAX:
            return found
        # One label against all others each, as scikit-learn makes one probability of them.
        return -np.logaddexp(0.0, -found)

    @functools.cached_property
    def _vectorizer(self) -> Any:
        vectorizer = _vectorizer(self.settings["features"])
        if "vocabulary" in self.arrays:
            vectorizer.set_params(vocabulary=_terms(self.arrays["vocabulary"]))
            vectorizer.idf_ = self.arrays["idf"]
        return vectorizer


KINDS: dict[str, type[Baseline]] = {one.kind: one for one in (Constant, Drawn, Keywords, Linear)}


# --- Training ---


def train(data: Data, seed: int, phrases: Optional[Mapping[str, Any]]) -> dict[str, Baseline]:
    """Returns the baselines that fit the problem, by the names of their directories.

    Args:
      data: with the rows to train on.
      seed: of what is drawn, and of the order of rows.
      phrases: label -> words and phrases, lower-cased, if there are any.

    Raises:
      UserError: there is too little text.
    """
    problem = data.problem
    if problem.kind == REGRESSION:
        assert data.train is not None
        mean = np.array([np.mean([example.label for example in data.train])])
        found: dict[str, Baseline] = {"mean": Constant("mean", problem, {}, {"shares": mean})}
        return {**found, **_linear(data, seed)}
    shares = frequencies(data)
    even = np.full_like(shares, 0.5 if problem.kind == MULTI else 1 / len(shares))
    found = {
        "majority": Constant("majority", problem, {}, {"shares": shares}),
        "uniform-random": Drawn("uniform random", problem, {"seed": seed + 1}, {"shares": even}),
        "weighted-random": Drawn("weighted random", problem, {"seed": seed}, {"shares": shares}),
    }
    if phrases and problem.kind == SINGLE:
        kept = {label: sorted(words) for label, words in phrases.items()}
        found["keywords"] = Keywords("keywords", problem, {"phrases": kept}, {"shares": shares})
    return {**found, **_linear(data, seed)}


def tfidf(data: Data, examples: Sequence[Example]) -> np.ndarray:
    """Returns the logits of a linear model on TF-IDF of characters, [N, outputs]."""
    features, arrays, matrix = _characters(data)
    return _trained("", data, features, arrays, matrix, _one_pass()).logits(examples)


def frequencies(data: Data) -> np.ndarray:
    """Returns the share of training examples that have each label, [labels]."""
    assert data.train is not None
    counts = task_data.count_labels(data.train, data.problem)
    return np.array([counts[label] for label in data.problem.labels]) / len(data.train)


def _linear(data: Data, seed: int) -> dict[str, Baseline]:
    """Returns the linear baselines."""
    from sklearn.linear_model import SGDClassifier

    def descent() -> Any:
        return SGDClassifier(loss="log_loss", alpha=1e-5, max_iter=100, random_state=seed)

    features, arrays, matrix = _characters(data)
    hashed, words = _hashed(data)
    if data.problem.kind == REGRESSION:
        return {
            "tf-idf": _trained("tf-idf, ridge regression", data, features, arrays, matrix),
            "words": _trained("hashed words, ridge regression", data, hashed, {}, words),
        }
    oversamples = data.problem.kind == SINGLE
    title = "tf-idf, SGD" + (", oversampling" if oversamples else "")
    return {
        "tf-idf": _trained(
            "tf-idf, logistic regression", data, features, arrays, matrix, _one_pass()
        ),
        "tf-idf-sgd": _trained(title, data, features, arrays, matrix, descent(), oversamples),
        "words": _trained("hashed words, SGD", data, hashed, {}, words, descent()),
    }


def _one_pass() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=10.0, max_iter=1000)


def _characters(data: Data) -> tuple[dict[str, Any], dict[str, np.ndarray], Any]:
    """Returns TF-IDF of sequences of 2 to 7 characters within words.

    That is: their settings, what is kept of them, and the matrix of the training texts.
    """
    assert data.train is not None
    features = {"analyzer": "char_wb", "ngram_range": [2, 7], "sublinear_tf": True}
    vectorizer = _vectorizer(features).set_params(min_df=2)
    try:
        matrix = vectorizer.fit_transform(example.text for example in data.train)
    except ValueError:
        raise UserError(
            f"train: no characters in a row that two of {len(data.train)} texts share; TF-IDF needs"
            " more training data"
        ) from None
    terms = "\n".join(vectorizer.get_feature_names_out())
    arrays = {
        "vocabulary": np.frombuffer(terms.encode("utf-8", "surrogatepass"), np.uint8),
        "idf": vectorizer.idf_.astype(np.float32),
    }
    return features, arrays, matrix


def _hashed(data: Data) -> tuple[dict[str, Any], Any]:
    """Returns the settings of hashed words and pairs of words, and the matrix of training texts.

    As fastText has them (Joulin et al., 2017, https://arxiv.org/abs/1607.01759), but for the
    narrow layer between words and labels.
    """
    assert data.train is not None
    features = {"ngram_range": [1, 2], "n_features": 1 << 18, "alternate_sign": False}
    features["token_pattern"] = r"(?u)\b\w+\b"
    return features, _vectorizer(features).transform(example.text for example in data.train)


def _vectorizer(features: Mapping[str, Any]) -> Any:
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer

    made_by = HashingVectorizer if "n_features" in features else TfidfVectorizer
    settings = {**features, "ngram_range": tuple(features["ngram_range"])}
    return made_by(**settings, dtype=np.float32)


def _terms(vocabulary: np.ndarray) -> list[str]:
    return vocabulary.tobytes().decode("utf-8", "surrogatepass").split("\n")


def _trained(
    title: str,
    data: Data,
    features: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    matrix: Any,
    model: Any = None,
    oversamples: bool = False,
) -> Linear:
    """Returns a linear baseline.

    Args:
      title: of the baseline.
      data: with the rows to train on.
      features: settings of what makes a matrix of texts.
      arrays: what else that needs.
      matrix: of the training texts, [N, features].
      model: of scikit-learn, for labels.
      oversamples: whether rows of rare labels are repeated.
    """
    from sklearn.linear_model import Ridge

    problem = data.problem
    assert data.train is not None
    values = np.array([problem.values(example.label) for example in data.train])
    weights = np.zeros((matrix.shape[1], problem.outputs), np.float32)
    bias = np.full(problem.outputs, NEVER, np.float32)
    link = SOFTMAX
    if problem.kind == REGRESSION:
        ridge = Ridge(1.0).fit(matrix, values[:, 0])
        weights[:, 0], bias[0] = ridge.coef_, ridge.intercept_
    elif problem.kind == MULTI:
        for label, targets in enumerate(values.T):
            _learn(model, matrix, targets, weights[:, label : label + 1], bias[label : label + 1])
    else:
        if oversamples:
            rows = _evened(values[:, 0])
            matrix, values = matrix[rows], values[rows]
        classes = _learn_single(model, matrix, values[:, 0], weights, bias)
        link = SIGMOIDS if classes > 2 and hasattr(model, "loss") else SOFTMAX
    settings = {"features": dict(features), "link": link}
    return Linear(title, problem, settings, {**arrays, "weights": weights, "bias": bias})


def _evened(targets: np.ndarray) -> np.ndarray:
    """Returns numbers of rows, those of rare labels repeated until all are as frequent."""
    most = np.bincount(targets).max()
    return np.concatenate([np.resize(np.flatnonzero(targets == n), most) for n in set(targets)])


def _learn(model: Any, matrix: Any, targets: np.ndarray, weights, bias) -> None:
    """Fills the weights [F, 1] and the bias [1] of whether a label is given, [N] zeros and ones."""
    if len(set(targets)) == 2:
        model.fit(matrix, targets)
        weights[:, 0], bias[0] = model.coef_[0], model.intercept_[0]
    elif targets.any():
        bias[0] = -NEVER


def _learn_single(model: Any, matrix: Any, targets: np.ndarray, weights, bias) -> int:
    """Fills the weights [F, labels] and the bias [labels]; returns how many labels occur."""
    there = np.unique(targets)
    bias[there] = 0.0
    if len(there) > 1:
        model.fit(matrix, targets)
        # Of two labels the model has one column, of the second.
        columns = there if len(there) > 2 else there[1:]
        weights[:, columns], bias[columns] = model.coef_.T, model.intercept_
    return len(there)


def _logits(problem: Problem, probabilities: Any) -> np.ndarray:
    """Returns what the problem makes these probabilities of, none of them 0 or 1."""
    if problem.kind == REGRESSION:
        return np.asarray(probabilities)
    bounded = np.clip(probabilities, UNSURE, 1 - UNSURE)
    return np.log(bounded / (1 - bounded)) if problem.kind == MULTI else np.log(bounded)


# --- Phrases ---


def read_phrases(path: str, problem: Problem) -> dict[str, set[str]]:
    """Reads the words and phrases of each label, lower-cased, with one space between words.

    Raises:
      UserError: the file is no JSON object of lists, or names another label.
    """
    files.check_input(path, "keywords")
    expected = "expected a JSON object of label to words and phrases"
    try:
        found = json.loads(files.read_text(path))
        phrases = {}
        for label in problem.labels:
            given = found.pop(label, [])
            if not isinstance(given, list):
                raise UserError(f"{path}: {label!r} has {given!r}, no list; {expected}")
            phrases[label] = {" ".join(phrase.lower().split()) for phrase in given} - {""}
    except UserError:
        raise
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{path}: {error}; {expected}") from None
    if found:
        raise UserError(
            f"{path}: label {next(iter(found))!r}, expected one of {', '.join(problem.labels)}"
        )
    return phrases


def _pattern(phrases: set[str]) -> Optional["re.Pattern[str]"]:
    """Returns what finds phrases as whole words, the longest first; None if there is none."""
    alternatives = []
    for phrase in sorted(phrases, key=lambda one: (-len(one), one)):
        text = r"\s+".join(map(re.escape, phrase.split()))
        # Chinese and the like have no spaces around words.
        start = r"(?<!\w)" if _is_alphabetic(phrase[0]) else ""
        end = r"(?!\w)" if _is_alphabetic(phrase[-1]) else ""
        alternatives.append(f"{start}{text}{end}")
    return re.compile("|".join(alternatives)) if alternatives else None


def _is_alphabetic(char: str) -> bool:
    """Whether a character is of a script that sets words apart."""
    return re.match(r"\w", char) is not None and not "\u2e80" <= char <= "\u9fff"


# --- Files ---


def save(directory: str, baseline: Baseline, metric: str) -> None:
    """Writes a baseline to a directory of its own, whole or not at all.

    Args:
      directory: to write to.
      baseline: to keep.
      metric: what its task is judged by.
    """
    files.make_directory(directory)
    content = {"kind": baseline.kind, "title": baseline.title, "settings": dict(baseline.settings)}
    paths = [os.path.join(directory, name) for name in (WEIGHTS, NAME)]
    task_file.write(directory, baseline.problem, metric)
    with files.replacing(paths) as [weights, description]:
        with files.open_binary(weights, "wb") as writer:
            np.savez(writer, **dict(baseline.arrays))  # type: ignore[arg-type]
        with files.open_binary(description, "wb") as writer:
            writer.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def is_one(directory: str) -> bool:
    """Whether a directory has a baseline."""
    return files.exists(os.path.join(directory, NAME))


def load(directory: str, flag: str) -> Baseline:
    """Returns the baseline of a directory.

    Args:
      directory: that `save` wrote.
      flag: that names it, for messages.

    Raises:
      UserError: there is none, or its files are damaged or do not fit each other.
    """
    if not is_one(directory):
        raise UserError(
            f"--{flag}={directory}: no {NAME} in it; expected a directory that bert baselines"
            " --output_dir=OUT has made, OUT/tf-idf say"
        )
    try:
        content = json.loads(files.read_text(os.path.join(directory, NAME)))
        problem = task_file.read([directory])
        if problem is None:
            raise ValueError(f"no {task_file.NAME}")
        arrays = _read_arrays(os.path.join(directory, WEIGHTS))
        found = KINDS[content["kind"]](content["title"], problem, content["settings"], arrays)
        shapes = {name: values.shape for name, values in arrays.items()}
        if shapes != found.shapes():
            raise ValueError(f"{WEIGHTS} has {_shown(shapes)}; expected {_shown(found.shapes())}")
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(
            f"{directory}: a damaged baseline ({type(error).__name__}: {error}); make it again with"
            " bert baselines"
        ) from None
    return found


def _read_arrays(path: str) -> dict[str, np.ndarray]:
    with (
        files.open_binary(path, "rb") as reader,
        files.io_errors(path),
        np.load(reader, allow_pickle=False) as found,
    ):
        return {name: found[name] for name in found.files}


def _shown(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in sorted(shapes.items()))
