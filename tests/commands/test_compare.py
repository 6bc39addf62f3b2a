"""bert compare: the same texts for all, honest differences, and its messages."""

import json

import numpy as np
import pytest
from conftest import ROOT, run_stage
from scipy import stats

import run_classifier
from bert_toolkit.checkpoints import checkpoint_files
from bert_toolkit.commands import baselines as baselines_command
from bert_toolkit.commands import compare
from bert_toolkit.errors import UserError
from bert_toolkit.problems import SINGLE, Problem
from bert_toolkit.tasks.classification import baselines

REVIEWS = ROOT / "sample_data/reviews"
DATA = {"task_name": "sst-2", "data_dir": str(REVIEWS)}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Directory of the baselines of the sample reviews."""
    directory = tmp_path_factory.mktemp("kept")
    baselines_command.run(baselines_command.Options(**DATA, output_dir=str(directory)))
    return directory


def comparison(*directories, **flags):
    return compare.run(compare.Options(dirs=list(map(str, directories)), **{**DATA, **flags}))


def test_baselines_as_a_user_compares_them(tmp_path, kept):
    table = tmp_path / "table.tsv"
    directories = [f"{kept}/tf-idf/", kept / "words", kept / "majority"]
    result = run_stage("compare", *directories, {**DATA, "output_file": table})
    assert result.returncode == 0, result.stderr
    header, *rows = [line.split("\t") for line in table.read_text().splitlines()]
    assert [line.split() for line in result.stdout.splitlines()][0] == header
    rows = [dict(zip(header, row)) for row in rows]
    assert [row["directory"] for row in rows] == [str(kept / n) for n in ("tf-idf", "words", "majority")]  # fmt: skip
    of_command = dict(
        line.split("\t")[::2][:2] for line in (kept / "baselines.tsv").read_text().splitlines()
    )
    assert rows[0]["accuracy"] == of_command["tf-idf, logistic regression"]
    assert rows[2]["accuracy"] == "0.5000"
    assert rows[0]["difference"] == rows[0]["mcnemar_p"] == ""
    assert float(rows[2]["from"]) <= float(rows[2]["difference"]) <= float(rows[2]["to"]) < -0.2
    size = (kept / "tf-idf/weights.npz").stat().st_size
    assert float(rows[0]["megabytes"]) == pytest.approx(size / 1e6, abs=0.01)


def test_the_difference_has_its_interval_and_probability():
    """Against the normal approximation, and McNemar's test by hand."""
    generator = np.random.default_rng(0)
    targets = generator.integers(2, size=2000)
    first, other = (np.where(generator.random(2000) < p, targets, 1 - targets) for p in (0.8, 0.75))
    judged = [compare.Judged("", np.eye(2)[answers], None, 1.0, 1) for answers in (first, other)]
    problem = Problem(SINGLE, ("a", "b"))
    found = compare._difference(judged[1], judged[0], problem, "accuracy", targets, 1)
    each = (other == targets).astype(float) - (first == targets)
    half = 1.96 * each.std() / np.sqrt(2000)
    assert found["difference"] == pytest.approx(each.mean())
    assert found["from"] == pytest.approx(each.mean() - half, abs=0.003)
    assert found["to"] == pytest.approx(each.mean() + half, abs=0.003)
    won, lost = (each > 0).sum(), (each < 0).sum()
    tail = stats.binom.cdf(min(won, lost), won + lost, 0.5)
    assert found["mcnemar_p"] == pytest.approx(2 * tail)


def test_labels_in_another_order_are_the_same_labels(tmp_path, kept):
    one = baselines.load(str(kept / "tf-idf"), "dirs")
    arrays = {**one.arrays, "weights": one.arrays["weights"][:, ::-1], "bias": one.arrays["bias"][::-1]}  # fmt: skip
    turned = baselines.Linear(one.title, Problem(SINGLE, ("1", "0")), one.settings, arrays)
    baselines.save(str(tmp_path / "turned"), turned, "accuracy")
    rows = comparison(kept / "tf-idf", tmp_path / "turned")
    assert rows[1]["accuracy"] == rows[0]["accuracy"] > 0.9
    assert rows[1]["difference"] == 0.0
    assert rows[1]["mcnemar_p"] == 1.0


@pytest.mark.slow
def test_a_model_beside_baselines(tmp_path, model_dir, kept):
    """Its metrics are those of bert classify --do_eval, calibrated; training's variables count not."""
    out = tmp_path / "out"
    options = run_classifier.Options(
        **DATA,
        bert_dir=str(model_dir),
        output_dir=str(out),
        do_train=True,
        do_eval=True,
        max_seq_length=24,
        num_train_epochs=2.0,
        learning_rate=1e-3,
        calibrate=True,
        reject_below="20%",
    )
    metrics = run_classifier.run(options)
    rows = comparison(out, kept / "tf-idf", batch_size=7)
    assert rows[0]["accuracy"] == metrics["eval_accuracy"]
    calibrated = json.loads((out / "eval_results.json").read_text())["calibration"]
    assert rows[0]["loss"] == pytest.approx(calibrated["loss"], abs=1e-5)
    assert rows[0]["answered"] == pytest.approx(calibrated["answered"])
    assert rows[0]["accuracy_answered"] == pytest.approx(calibrated["accuracy"])
    assert rows[1]["answered"] == 1.0
    weights = checkpoint_files.read(checkpoint_files.find(str(out), "bert_dir"))
    assert rows[0]["megabytes"] == pytest.approx(sum(x.nbytes for x in weights.values()) / 1e6)
    assert all(row["ms_per_text"] > 0 for row in rows)


def test_what_cannot_be_compared(tmp_path, kept):
    def message(*directories, **flags):
        with pytest.raises(UserError) as caught:
            comparison(*directories, **flags)
        return str(caught.value)

    assert message(kept / "x") == f"{kept}/x: no such directory; expected a model or a baseline"
    assert message(kept / "tf-idf", kept / "baselines.tsv").startswith(
        f"{kept}/baselines.tsv: a file; expected the directory of a model or a baseline"
    )
    other = baselines.Constant("", Problem(SINGLE, ("a", "b")), {}, {"shares": np.array([1.0, 0])})
    baselines.save(str(tmp_path / "other"), other, "accuracy")
    assert message(kept / "tf-idf", tmp_path / "other") == (
        f"{tmp_path}/other: single_label with the labels a, b; expected single_label with the"
        " labels 0, 1, as the data and the first directory have; leave it out, or compare it with"
        " models of its own task"
    )
    rows = tmp_path / "dev.tsv"
    rows.write_text("text\tlabel\na text\tgreat\n")
    own = {"task_name": None, "data_dir": None, "eval_file": str(rows)}
    assert "label 'great', expected one of 0, 1" in message(kept / "tf-idf", **own)
    (tmp_path / "empty").mkdir()
    assert message(kept / "tf-idf", tmp_path / "empty") == (
        f"{tmp_path}/empty: no task.json in it; expected a trained classifier or a baseline"
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"eval_file": "a.csv"}, "pass directories to compare: bert compare DIR DIR ..."),
        ({"dirs": ["a"]}, "--eval_file is required .* all are judged on the same texts"),
        ({"dirs": ["a"], "train_file": "a.csv"}, "--eval_file is required"),
    ],
)
def test_flags_that_do_not_fit(flags, message):
    with pytest.raises(UserError, match=message):
        compare.Options(**flags)
