"""bert review-data: what each check finds in data with known faults, and its messages."""

import csv
import json
import random
import sys

import numpy as np
import pytest
from conftest import run_stage

from bert_toolkit.commands import review_data
from bert_toolkit.errors import UserError

GOOD = "warm lovely bright happy kind sweet".split()
BAD = "cold awful dark sad cruel bitter".split()
NEUTRAL = "film story actor scene music ending city house".split()


def texts(number, seed=0):
    """Yields texts with labels that a linear model learns easily."""
    generator = random.Random(seed)
    for _ in range(number):
        label, words = generator.choice([("good", GOOD), ("bad", BAD)])
        yield " ".join(generator.sample(words, 3) + generator.sample(NEUTRAL, 4)), label


def write(path, rows):
    path.write_text("text,label\n" + "".join(f'"{text}",{label}\n' for text, label in rows))
    return str(path)


def review(*checks, **flags):
    return review_data.run(review_data.Options(checks=list(checks) or None, **flags))


def test_flipped_labels_are_found(tmp_path, capsys):
    pytest.importorskip("cleanlab")
    rows = list(texts(150))
    wrong = {11, 60, 61, 100, 149}
    flip = {"good": "bad", "bad": "good"}
    train = write(tmp_path / "a.csv", [(t, flip[name] if n in wrong else name) for n, (t, name) in enumerate(rows)])  # fmt: skip
    found = review("labels", train_file=train, output_dir=str(tmp_path / "out"))
    assert {one.line - 2 for one in found} < wrong  # cleanlab estimates how many are wrong
    assert len(found) >= 3
    assert all(one.alternative == flip[one.label] and one.score < 0.5 for one in found)
    assert [one.score for one in found] == sorted(one.score for one in found)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"labels: {len(found)} rows"
    assert printed[1].split() == ["row", "label", "alternative", "probability", "text"]
    assert printed[2].split()[:3] == [f"{train}:{found[0].line}", found[0].label, found[0].alternative]  # fmt: skip
    # Both files have all of it.
    with (tmp_path / "out" / "review.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    lines = (tmp_path / "out" / "review.jsonl").read_text().splitlines()
    assert [review_data.Finding(**json.loads(line)) for line in lines] == found
    assert [row["text"] for row in table] == [one.text for one in found]


def test_probabilities_are_those_of_models_that_did_not_see_the_row(tmp_path, monkeypatch):
    rows = [(f"{text} {n}", label) for n, (text, label) in enumerate(texts(40))]
    options = review_data.Options(train_file=write(tmp_path / "a.csv", rows), checks=["conflicts"])
    data = review_data.load(options)
    seen = []
    real = review_data.tfidf

    def spy(fold, held_out):
        assert not set(fold.train) & set(held_out)
        assert len(fold.train) + len(held_out) == 40
        seen.extend(one.line for one in held_out)
        return real(fold, held_out)

    monkeypatch.setattr(review_data, "tfidf", spy)
    found = review_data.out_of_fold(data, 4, 0)
    assert sorted(seen) == [one.line for one in data.train]
    assert found.sum(-1) == pytest.approx(np.ones(40))


@pytest.mark.parametrize("several", [False, True])
def test_vectors_judge_labels_too(tmp_path, model_dir, several):
    """The mean of both models; rows of a fold that lacks a label have a probability of it too."""
    path = tmp_path / "a.jsonl"
    rows = [
        {"text": text, "label": [label, "x"] if several else label if n else "once"}
        for n, (text, label) in enumerate(texts(40))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = review_data.load(review_data.Options(train_file=str(path), checks=["conflicts"]))
    vectors = review_data.vectors_of(str(model_dir), data.train)
    assert vectors.shape == (40, 32)
    words = review_data.out_of_fold(data, 4, 0)
    both = review_data.out_of_fold(data, 4, 0, vectors)
    assert both.shape == (40, 3)
    judged = 2 * both - words
    assert (judged >= -1e-9).all()
    assert (judged <= 1 + 1e-9).all()
    assert not np.allclose(judged, words, atol=0.01)
    if not several:
        assert judged.sum(-1) == pytest.approx(np.ones(40))


def test_wrong_labels_of_texts_with_several(tmp_path):
    pytest.importorskip("cleanlab")
    rows = []
    for n, (text, label) in enumerate(texts(150)):
        names = [label, *(["city"] if "city" in text else [])]
        rows.append({"text": text, "label": ["city"] if n == 30 else names})
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, *_ = review("labels", train_file=str(path))
    assert first.line == 31
    assert first.label == "city"
    assert ("good" if "good" in texts_label(30) else "bad") in first.alternative.split(",")


def texts_label(number):
    return list(texts(150))[number][1]


def test_conflicts_and_duplicates(tmp_path, capsys):
    train = [*texts(30), ("Same  words here, twice", "good"), ("A long and lovely evening in the city.", "good")]  # fmt: skip
    dev = [*texts(10, 5), ("same words HERE, twice", "bad"), ("A long and lovely evening in the City!", "good")]  # fmt: skip
    flags = {
        "train_file": write(tmp_path / "a.csv", train),
        "eval_file": write(tmp_path / "b.csv", dev),
        "output_dir": str(tmp_path),
    }
    found = review("conflicts", "duplicates", **flags)
    places = [(one.check, one.file, one.line, one.alternative, one.compared_with) for one in found]
    train_file, eval_file = flags["train_file"], flags["eval_file"]
    assert places == [
        ("conflicts", train_file, 32, "bad", f"{eval_file}:12"),
        ("conflicts", eval_file, 12, "good", f"{train_file}:32"),
        ("duplicates", eval_file, 12, "good", f"{train_file}:32"),
        ("duplicates", eval_file, 13, "good", f"{train_file}:33"),
    ]
    assert found[2].score == pytest.approx(1.0)
    assert 0.9 < found[3].score < 1
    assert "duplicates: 2 rows" in capsys.readouterr().out
    [only] = review("duplicates", min_similarity=1.0, **flags)
    assert only.line == 12


def test_parts_that_are_divided_off_are_compared(tmp_path):
    rows = [*texts(40), *texts(40)]
    train = write(tmp_path / "a.csv", rows)
    flags = {"train_file": train, "eval_split": 0.25, "test_split": 0.25, "min_similarity": 1.0}
    found = review("duplicates", **flags)
    data = review_data.load(review_data.Options(**flags))
    parts = [data.train, data.dev[""], data.dev["_test"]]
    seen, expected = set(), []
    for part in parts:
        expected += [one.line for one in part if one.text_a in seen]
        seen |= {one.text_a for one in part}
    assert len(expected) > 10
    assert sorted(one.line for one in found) == sorted(expected)
    assert {one.file for one in found} == {train}
    # Nothing to compare with.
    assert review("duplicates", train_file=train) == []


def test_answers_of_a_classifier(tmp_path):
    train = write(tmp_path / "a.csv", list(texts(20)))
    dev = write(tmp_path / "b.csv", [("one text", "good"), ("another text", "bad")])
    model = tmp_path / "model"
    model.mkdir()
    flags = {"train_file": train, "eval_file": dev, "classifier_dir": str(model)}
    with pytest.raises(UserError, match="no eval_top_losses.tsv of a split given here; expected"):
        review("losses", **flags)
    header = "loss\tid\tline\tlabel\tprediction\ttext\n"
    rows = "2.5000\t1\t3\tbad\tgood\tanother text\n0.2000\t0\t2\tgood\tgood\tone text\n"
    (model / "eval_top_losses.tsv").write_text(header + rows)
    assert review("losses", **flags) == [
        review_data.Finding("losses", dev, 3, "bad", "good", 2.5, "", "another text")
    ]
    (model / "eval_top_losses.tsv").write_text(header + rows.replace("\t3\t", "\t9\t"))
    with pytest.raises(UserError, match="line 9 is none of .*b.csv's here; pass the files"):
        review("losses", **flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"checks": ["label"]}, "--checks=label: no such check. Known: labels, conflicts, duplicates, losses"),
        ({"checks": ["losses"]}, "--checks=losses: pass the --classifier_dir"),
        ({"predict_file": "-"}, "--predict_file=-: expected a file"),
        ({"train_file": None, "eval_file": "x.csv"}, "--train_file is required"),
    ],
)  # fmt: skip
def test_flags_that_do_not_fit(flags, message):
    with pytest.raises(UserError, match=message):
        review_data.Options(**{"train_file": "a.csv", **flags})


def test_too_few_rows_to_judge_labels_by(tmp_path):
    pytest.importorskip("cleanlab")
    train = write(tmp_path / "a.csv", [("a", "x"), ("b", "x"), ("c", "x"), ("d", "x"), ("e", "y")])
    with pytest.raises(UserError, match="--num_folds=5: 5 training rows are too few to judge"):
        review("labels", train_file=train)


def test_without_cleanlab(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    train = write(tmp_path / "a.csv", list(texts(20)))
    with pytest.raises(UserError, match=r"needs cleanlab .*pip install 'bert-toolkit\[clean\]'"):
        review(train_file=train)
    assert review("conflicts", train_file=train) == []


def test_numbers_have_no_labels_to_doubt(tmp_path, caplog):
    pytest.importorskip("cleanlab")
    caplog.set_level("INFO")
    train = write(tmp_path / "a.csv", [(f"t{n}", n / 4) for n in range(9)])
    assert review(train_file=train) == []
    assert "labels: numbers are to be predicted; not checked" in caplog.text


def test_the_command_line(tmp_path):
    train = write(tmp_path / "a.csv", [*texts(20), ("twice", "good"), ("Twice", "bad")])
    result = run_stage("review_data", {"train_file": train, "checks": "conflicts"})
    assert result.returncode == 0, result.stderr
    assert result.stdout == (
        "conflicts: 2 rows\n"
        f"  {'row':<{len(train) + 3}}  label  alternative  {'as in':<{len(train) + 3}}  text\n"
        f"  {train}:22  good   bad          {train}:23  twice\n"
        f"  {train}:23  bad    good         {train}:22  Twice\n"
    )
    result = run_stage("review_data", {"train_file": train, "checks": "all"})
    assert result.returncode == 1
    assert result.stderr.startswith("error: --checks=all: no such check")
