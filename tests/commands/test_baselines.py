"""Baselines: what is kept of them predicts as what was trained, and as scikit-learn's own models."""

import dataclasses
import json
import random

import numpy as np
import pytest
from conftest import ROOT, run_stage
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, SGDClassifier

from bert_toolkit.commands import baselines as command
from bert_toolkit.errors import UserError
from bert_toolkit.problems import MULTI, REGRESSION, SINGLE, Problem
from bert_toolkit.tasks.classification import baselines
from bert_toolkit.tasks.classification.task_data import Data, Example

WORDS = {"joy": "warm lovely bright happy", "woe": "cold awful dark sad", "law": "court judge rule plea"}  # fmt: skip
NEUTRAL = "film story actor scene music ending city house".split()


def example(text, label=None):
    return Example("0", text, None, label)


def data(kind, rows=90, seed=0):
    """Texts whose words say what is to be predicted: joy more often than woe, woe than law."""
    generator = random.Random(seed)
    examples = []
    for _ in range(rows):
        neutral = " ".join(generator.sample(NEUTRAL, 4))
        if kind == MULTI:
            labels = tuple(name for name in WORDS if generator.random() < 0.4)
        else:
            labels = tuple(generator.choices(list(WORDS), [6, 3, 1]))
        words = " ".join(generator.choice(WORDS[name].split()) for name in labels)
        if kind == REGRESSION:
            number = generator.randrange(4)
            examples.append(example(f"{neutral} {'warm ' * number}", number / 2))
        else:
            examples.append(example(f"{words} {neutral}", labels if kind == MULTI else labels[0]))
    problem = Problem(kind, () if kind == REGRESSION else tuple(sorted(WORDS)))
    return Data(problem, "accuracy", examples[: rows * 2 // 3], {"": examples[rows * 2 // 3 :]}, {})


@pytest.mark.parametrize("kind", [SINGLE, MULTI, REGRESSION])
def test_what_is_kept_predicts_the_same(tmp_path, kind):
    found = data(kind)
    texts = [*found.dev[""], example("nothing known: \0 \u4f60\u597d"), example("")]
    trained = baselines.train(found, 7, {"joy": {"warm"}, "law": set(), "woe": set()})
    assert len(trained) == {SINGLE: 7, MULTI: 6, REGRESSION: 3}[kind]
    for name, baseline in trained.items():
        baselines.save(str(tmp_path / name), baseline, "accuracy")
        loaded = baselines.load(str(tmp_path / name), "baseline_dir")
        assert np.array_equal(loaded.logits(texts), baseline.logits(texts)), name
        assert (loaded.title, loaded.problem) == (baseline.title, found.problem)
        files = {path.name for path in (tmp_path / name).iterdir()}
        assert files == {"baseline.json", "weights.npz", "task.json"}
        with np.load(tmp_path / name / "weights.npz", allow_pickle=False) as arrays:
            assert all(arrays[each].dtype != object for each in arrays.files)


def test_probabilities_are_those_of_scikit_learn():
    found = data(SINGLE)
    train, texts = found.train, [one.text for one in found.dev[""]]
    targets = [found.problem.labels.index(one.label) for one in train]
    characters = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(2, 7), min_df=2, sublinear_tf=True
    )
    matrix = characters.fit_transform([one.text for one in train])
    words = HashingVectorizer(ngram_range=(1, 2), n_features=1 << 18, alternate_sign=False, token_pattern=r"(?u)\b\w+\b")  # fmt: skip
    # Rows of rare labels are repeated, those of each label together.
    most = max(map(targets.count, targets))
    rows = [np.resize([n for n, t in enumerate(targets) if t == label], most) for label in range(3)]
    rows = np.concatenate(rows)

    def descent():
        return SGDClassifier(loss="log_loss", alpha=1e-5, max_iter=100, random_state=7)

    expected = {
        "tf-idf": LogisticRegression(C=10.0, max_iter=1000).fit(matrix, targets).predict_proba(characters.transform(texts)),
        "tf-idf-sgd": descent().fit(matrix[rows], np.array(targets)[rows]).predict_proba(characters.transform(texts)),
        "words": descent().fit(words.transform([one.text for one in train]), targets).predict_proba(words.transform(texts)),
    }  # fmt: skip
    trained = baselines.train(found, 7, None)
    for name, probabilities in expected.items():
        own = found.problem.probabilities(trained[name].logits(found.dev[""]))
        np.testing.assert_allclose(own, probabilities, atol=0.02, err_msg=name)
        assert (own.argmax(-1) == probabilities.argmax(-1)).mean() > 0.95


def test_labels_that_no_row_has_are_never_the_answer():
    for labels in (("a", "joy", "law", "woe"), ("joy", "never")):
        found = data(SINGLE)
        train = [one for one in found.train if one.label in labels]
        found = dataclasses.replace(found, problem=Problem(SINGLE, labels), train=train)
        for name in ("tf-idf", "tf-idf-sgd", "words"):
            own = baselines.train(found, 7, None)[name].logits(found.dev[""])
            probabilities = found.problem.probabilities(own)
            absent = labels.index("a") if "a" in labels else 1
            assert probabilities[:, absent].max() < 1e-6


def test_drawn_labels_have_their_frequencies():
    found = data(SINGLE, rows=300)
    texts = [example("x")] * 6000
    trained = baselines.train(found, 7, None)
    shares = baselines.frequencies(found)
    for name, expected in (("uniform-random", np.full(3, 1 / 3)), ("weighted-random", shares)):
        drawn = np.bincount(trained[name].logits(texts).argmax(-1), minlength=3) / 6000
        np.testing.assert_allclose(drawn, expected, atol=0.02)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("a good film", "good"),
        ("not  good", "bad"),  # the longest phrase that overlaps counts, however it is spaced
        ("Not good, but good and warm", "good"),
        ("goods", None),
        ("good and bad", None),  # none is ahead
        ("", None),
        ("it is (warm)", "good"),
        ("\u6211\u5f88\u5f00\u5fc3", "good"),  # no spaces around words
    ],
)
def test_phrases(tmp_path, text, answer):
    path = tmp_path / "words.json"
    words = {"good": ["Good", "warm", "\u5f00\u5fc3"], "bad": ["not good", "bad"]}
    path.write_text(json.dumps(words), encoding="utf-8")
    problem = Problem(SINGLE, ("bad", "good"))
    phrases = baselines.read_phrases(str(path), problem)
    kept = {name: sorted(found) for name, found in phrases.items()}
    baseline = baselines.Keywords("", problem, {"phrases": kept}, {"shares": np.array([0.6, 0.4])})
    [answered] = baseline.answered([example(text)])
    assert answered == (answer is not None)
    assert problem.labels[baseline.logits([example(text)])[0].argmax()] == (answer or "bad")


def test_what_is_answered_is_judged(tmp_path, capsys):
    words = tmp_path / "words.json"
    words.write_text('{"1": ["comedy", "never tedious"], "0": ["dull"]}')
    found = command.run(
        command.Options(
            task_name="sst-2",
            data_dir=str(ROOT / "sample_data/reviews"),
            keywords=str(words),
            output_dir=str(tmp_path / "out"),
        )
    )
    rows = (ROOT / "sample_data/reviews/dev.tsv").read_text().splitlines()[1:]
    right = answered = 0
    for text, label in (row.rsplit("\t", 1) for row in rows):
        one = any(word in text.lower() for word in ("comedy", "never tedious"))
        zero = "dull" in text.lower()
        if one != zero:
            answered += 1
            right += label == ("1" if one else "0")
    assert answered
    assert found["keywords"]["eval_answered"] == answered / len(rows)
    assert found["keywords"]["eval_accuracy_answered"] == right / answered
    assert (tmp_path / "out/baselines.tsv").read_text() == capsys.readouterr().out


def test_predicting_as_bert_classify_does(tmp_path):
    flags = {"task_name": "sst-2", "data_dir": str(ROOT / "sample_data/reviews")}
    words = tmp_path / "words.json"
    words.write_text('{"1": ["comedy"]}')
    command.run(command.Options(**flags, output_dir=str(tmp_path / "b"), keywords=str(words)))
    command.run(command.Options(**flags, baseline_dir=str(tmp_path / "b/words")))
    results = (tmp_path / "b/words/test_results.tsv").read_text().splitlines()
    header, *rows = (tmp_path / "b/words/test_predictions.tsv").read_text().splitlines()
    assert header == "index\tprediction\tprobability_0\tprobability_1\tmargin"
    assert [row.split("\t")[2:4] for row in rows] == [row.split("\t") for row in results]
    assert (tmp_path / "b/words/SST-2.tsv").exists()
    lines = "A clever comedy.\n\nIt is dull.\n"
    pipeline = {"baseline_dir": tmp_path / "b/keywords", "predict_file": "-"}
    result = run_stage("baselines", pipeline, input=lines)
    assert result.returncode == 0, result.stderr
    found = [line.split("\t")[:2] for line in result.stdout.splitlines()]
    assert found == [["0", "1"], ["1", ""], ["2", "other"]]


def test_baselines_that_are_broken(tmp_path):
    found = data(SINGLE)
    directory = tmp_path / "tf-idf"
    trained = baselines.train(found, 7, None)["tf-idf"]

    def message():
        with pytest.raises(UserError) as caught:
            baselines.load(str(directory), "baseline_dir")
        return str(caught.value)

    assert message() == (
        f"--baseline_dir={directory}: no baseline.json in it; expected a directory that bert"
        " baselines --output_dir=OUT has made, OUT/tf-idf say"
    )
    weights = directory / "weights.npz"
    for damage in (
        lambda: weights.write_bytes(weights.read_bytes()[:200]),
        lambda: weights.write_bytes(b""),
        lambda: np.savez(weights, weights=np.zeros((2, 3)), bias=np.zeros(3)),
        lambda: np.savez(weights, **{**trained.arrays, "idf": np.zeros(5, np.float32)}),
        lambda: np.savez(weights, **{**trained.arrays, "bias": np.array([None] * 3)}),
        lambda: (directory / "baseline.json").write_text("[]"),
        lambda: (directory / "baseline.json").write_text('{"kind": "forest"}'),
        lambda: (directory / "task.json").unlink(),
    ):
        baselines.save(str(directory), trained, "accuracy")
        damage()
        assert message().startswith(f"{directory}: a damaged baseline (")
        assert message().endswith("make it again with bert baselines")
    baselines.save(str(directory), trained, "accuracy")
    weights.unlink()
    assert message() == f"{weights}: No such file or directory"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "expected a JSON object of label to words and phrases"),
        (
            '{"0": "dull"}',
            "^[^:]*words.json: '0' has 'dull', no list; expected a JSON object of label to words",
        ),
        ('{"2": ["dull"]}', "label '2', expected one of 0, 1"),
    ],
)
def test_files_of_phrases_that_are_none(tmp_path, content, message):
    (tmp_path / "words.json").write_text(content)
    with pytest.raises(UserError, match=message):
        baselines.read_phrases(str(tmp_path / "words.json"), Problem(SINGLE, ("0", "1")))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"predict_file": "a.txt"}, "--predict_file: pass the --baseline_dir to predict with"),
        ({"train_file": "a.csv", "baseline_dir": "b"}, "--baseline_dir: pass the --predict_file"),
    ],
)
def test_flags_that_do_not_fit(flags, message):
    with pytest.raises(UserError, match=message):
        command.Options(**flags)
