"""bert check, as a user sees it: good data passes, and each thing that is wrong is found."""

import math
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import GOLDEN, ROOT

from bert_toolkit.commands import check_learning
from bert_toolkit.errors import UserError
from bert_toolkit.problems import MULTI, REGRESSION, SINGLE, Problem
from bert_toolkit.tasks.classification.task_data import Data, Example
from tokenization import FullTokenizer

TEXTS = {
    "good": ["the people rejoice with gladness", "blessed is the house of mercy"],
    "bad": ["the wicked perish in darkness", "woe unto the house of violence"],
}
ROWS = [(f"{text} {n}", label) for n in range(8) for label in TEXTS for text in TEXTS[label]]


def options(tmp_path, model_dir, rows=ROWS, **flags):
    table = "".join(f"{text}\t{label}\n" for text, label in [("text", "label"), *rows])
    (tmp_path / "train.tsv").write_text(table)
    defaults = {"train_file": str(tmp_path / "train.tsv"), "max_seq_length": 16}
    return check_learning.Options(
        **{**defaults, "bert_dir": str(model_dir), "learning_rate": 7e-4, **flags}
    )


def looks(findings):
    return {finding.name: finding.advice for finding in findings if finding.advice}


def data(labels, kind=SINGLE, names=("bad", "good")):
    rows = [Example(str(n), f"text {n}", None, label) for n, label in enumerate(labels)]
    return Data(Problem(kind, names), "accuracy", rows, {}, {})


def test_good_data_passes_and_nothing_is_left_behind(tmp_path, model_dir, capsys):
    out = tmp_path / "out"
    findings = check_learning.run(options(tmp_path, model_dir, output_dir=str(out)))
    assert looks(findings) == {}
    assert not out.exists()
    found = {finding.name: finding.found for finding in findings}
    assert "ln 2 = 0.6931" in found["first loss"]
    assert float(found["first loss"].split(";")[0]) == pytest.approx(math.log(2), abs=0.05)
    steps = re.search(r"loss (\S+) -> (\S+) in (\d+) steps", found["learning a batch"])
    first, last, count = map(float, steps.groups())
    assert last <= 0.1 * math.log(2) < first
    assert count < 100
    parts = ["embeddings", "layer 0", "layer 1", "pooler", "head"]
    assert [name for name in found if name.startswith("update")] == [f"update {p}" for p in parts]
    lines = capsys.readouterr().out.splitlines()
    assert lines == [finding.text() for finding in findings]
    assert all(line.split("  ")[0] in found and " ok " in line for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "names", "advice"),
    [
        ({"learning_rate": 0.0}, {"learning a batch", "update"}, "larger --learning_rate than 0"),
        (
            {"learning_rate": 10.0},
            {"learning a batch", "update"},
            "smaller --learning_rate than 10",
        ),
        ({"check_steps": 1}, {"learning a batch"}, "more --check_steps"),
    ],
)
def test_a_learning_rate_that_learns_nothing_is_found(tmp_path, model_dir, flags, names, advice):
    found = looks(check_learning.run(options(tmp_path, model_dir, **flags)))
    assert {name.split(" ")[0] if "update" in name else name for name in found} == names
    assert any(advice in text for text in found.values()), found


@pytest.mark.slow
def test_the_exit_code_says_whether_something_was_found(tmp_path, model_dir):
    words = (GOLDEN / "vocab.txt").read_text().splitlines()
    other = [word if word.startswith("[") else f"{word}0" for word in words]
    (model_dir / "vocab.txt").write_text("\n".join(other) + "\n")
    options(tmp_path, model_dir)
    command = [sys.executable, "-m", "bert_toolkit", "check", f"--bert_dir={model_dir}"]
    command += [f"--train_file={tmp_path}/train.tsv", "--max_seq_length=16", "--check_steps=2"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    [unknown] = [line for line in result.stdout.splitlines() if line.startswith("[UNK]")]
    assert re.match(r"\[UNK\] +LOOK +100.00% of tokens are not in the vocabulary; ", unknown)
    assert "Traceback" not in result.stderr
    shutil.copy(GOLDEN / "vocab.txt", model_dir)
    command[-1] = "--learning_rate=7e-4"
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, "LOOK" in result.stdout) == (0, False)


@pytest.mark.slow
def test_frozen_parts_and_a_trained_head_are_told(tmp_path, model_dir):
    """A single label is nothing to learn, and ends after the steps that updates are measured in."""
    rows = [(text, "good") for text, _ in ROWS]
    flags = {"labels": ["good", "bad"], "freeze": ["embeddings", "0"]}
    findings = check_learning.run(options(tmp_path, model_dir, rows, **flags))
    assert set(looks(findings)) == {"labels", "learning a batch"}
    found = {finding.name: finding.found for finding in findings}
    assert found["update embeddings"] == found["update layer 0"] == "frozen (--freeze)"


@pytest.mark.parametrize(
    ("rows", "advice"),
    [
        (data(["good", "bad"] * 20), ""),
        (data(["good"] * 20), "all rows have the label good"),
        (data(["good", "bad"] * 5, names=("bad", "fair", "good")), "no row has the label fair"),
        (
            data(["good"] * 40 + ["bad"]),
            "few rows have the label bad: good is always answered at first",
        ),
        (data([0.1, 0.9] * 4, REGRESSION, ()), ""),
        (data([900.0, 1000.0] * 4, REGRESSION, ()), "scale them to about -1 to 1"),
        (data([("good", "bad"), ()] * 4, MULTI), ""),
    ],
)
def test_labels(rows, advice):
    found, *_ = check_learning.label_findings(rows)
    assert advice in found.advice
    assert bool(advice) == bool(found.advice)


def test_sorted_rows_are_told():
    mixed, in_order = (
        [*check_learning.label_findings(data(labels))][1]
        for labels in (["good", "bad"] * 20, ["bad"] * 20 + ["good"] * 20)
    )
    assert mixed.found == "neighbours differ in 100% of rows, in random order in 50%"
    assert in_order.found.startswith("neighbours differ in 3% of rows, in random order in 50%: sor")
    assert not in_order.advice


def test_cut_texts_and_unknown_tokens_are_found(tmp_path, model_dir):
    tokenizer = FullTokenizer(str(GOLDEN / "vocab.txt"))
    labels = ["good", "bad"] * 10
    rows = data(labels)
    known = [row._replace(text_a="the people " * 3) for row in rows.train]
    long = [row._replace(text_a="the people " * 20) for row in rows.train]
    strange = [row._replace(text_a="\u05d0\u05d1") for row in rows.train]
    given = options(tmp_path, model_dir)
    names = []
    for texts in (known, long, strange):
        one = Data(rows.problem, "accuracy", texts, {}, {})
        names.append([*looks(check_learning.text_findings(one, given, tokenizer))])
    assert names == [[], ["cut texts"], ["[UNK]"]]


@pytest.mark.parametrize(
    ("problem", "labels", "expected"),
    [
        (Problem(SINGLE, ("a", "b")), ["a", "b"], math.log(2)),
        (Problem(SINGLE, ("a", "b")), ["a", "a"], 0.0),
        (Problem(SINGLE, ("a", "b", "c", "d")), ["a", "b", "c", "d"], math.log(4)),
        (Problem(REGRESSION), [1.0, 3.0], 1.0),
        (Problem(MULTI, ("a", "b")), [("a",), ("a", "b")], math.log(2) / 2),
    ],
)
def test_what_a_batch_can_be_answered_with_unread(problem, labels, expected):
    """The least loss over all answers that are the same for every row, found by trying many."""
    rows = [Example("0", "", None, label) for label in labels]
    assert check_learning.blind_loss(problem, rows) == pytest.approx(expected)
    values = np.array([problem.values(label) for label in labels])
    targets = values if problem.kind == MULTI else values[:, 0]
    grid = np.random.default_rng(0).normal(0, 5, [20_000, problem.outputs])
    tried = [problem.losses(np.tile(one, (len(rows), 1)), targets).mean() for one in grid]
    assert min(tried) >= expected - 1e-9
    assert min(tried) == pytest.approx(expected, abs=0.05)


def test_the_batch_has_all_labels_alike_and_no_text_twice():
    rows = data(["good"] * 30 + ["bad"] * 4)
    rows.train[:3] = [row._replace(text_a="the same") for row in rows.train[:3]]
    found = check_learning.batch(rows, 8, seed=1)
    assert sorted(row.label for row in found) == ["bad"] * 4 + ["good"] * 4
    assert len({row.text_a for row in check_learning.batch(rows, 100, seed=1)}) == 32


def test_training_data_is_needed():
    with pytest.raises(UserError, match=r"--train_file is required \(or --task_name\)"):
        check_learning.Options(eval_file="x", bert_dir="y")
