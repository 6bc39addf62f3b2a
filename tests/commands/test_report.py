"""bert report: the page's numbers are those of the run, it loads nothing, and what it refuses."""

import html
import json
import re

import numpy as np
import pytest
from conftest import ROOT, run_stage
from sklearn import metrics

import run_classifier
from bert_toolkit.commands import report
from bert_toolkit.errors import UserError
from bert_toolkit.pages.charts import Axis, Series, chart, shown, table
from bert_toolkit.problems import MULTI, REGRESSION, SINGLE, Problem
from bert_toolkit.tasks.classification import predictions, scores
from bert_toolkit.tasks.classification.report import interval
from bert_toolkit.tasks.classification.task_data import Example

LOADS = r"""https?:|src=|href="[^#]|@import|url\("""


def write_run(directory, kind, rows=60, suffix=""):
    """Writes what bert classify leaves of an evaluation; returns logits and targets."""
    generator = np.random.default_rng(3)
    labels = () if kind == REGRESSION else ("<b>", "b & c", "d")
    problem = Problem(kind, labels)
    logits = generator.normal(size=(rows, problem.outputs)) * 2
    if kind == SINGLE:
        targets = generator.integers(3, size=rows)
        given = [labels[n] for n in targets]
    elif kind == MULTI:
        targets = generator.integers(2, size=(rows, 3))
        given = [tuple(np.array(labels)[row == 1].tolist()) for row in targets]
    else:
        targets = logits[:, 0] + generator.normal(size=rows)
        given = [float(number) for number in targets]
    examples = [Example(str(n), "a text", None, label, n + 2) for n, label in enumerate(given)]
    directory.mkdir(exist_ok=True)
    path = directory / predictions.EVALUATED.format(suffix)
    predictions.write_evaluated(str(path), problem, examples, logits)
    found = {**scores.score(problem, logits, targets), "global_step": 7}
    (directory / f"eval_results{suffix}.json").write_text(json.dumps(found))
    content = {"problem_type": kind, "labels": labels, "metric": {SINGLE: "accuracy", MULTI: "f1_micro", REGRESSION: "spearman"}[kind]}  # fmt: skip
    (directory / "task.json").write_text(json.dumps(content))
    header = "loss\tid\tline\tlabel\tprediction\ttext\n"
    text = "<script>alert(1)</script>"
    (directory / f"eval_top_losses{suffix}.tsv").write_text(f"{header}2.5\t0\t2\t1.0\t0.123456789\t{text}\n")  # fmt: skip
    return problem, logits, targets


def page_of(directory, **flags):
    report.run(report.Options(output_dir=str(directory), **flags))
    page = (directory / "report.html").read_text(encoding="utf-8")
    assert not re.search(LOADS, page)
    assert "{{" not in page
    assert "<script" not in page
    for name in re.findall(r'href="#([^"]+)"', page):
        assert f'id="{name}"' in page
    return page


def cells(page, caption):
    """Returns the cells of the body of the table with that caption, in rows."""
    [body] = re.findall(rf"<caption[^>]*>{re.escape(caption)}.*?<tbody>(.*?)</tbody>", page)
    rows = re.findall(r"<tr>(.*?)</tr>", body)
    return [
        [html.unescape(re.sub("<[^>]*>", " ", cell)).split() for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
        for row in rows
    ]  # fmt: skip


def test_the_numbers_are_those_of_the_run(tmp_path):
    problem, logits, targets = write_run(tmp_path / "run", SINGLE)
    page = page_of(tmp_path / "run")
    predicted = logits.argmax(-1)
    matrix = metrics.confusion_matrix(targets, predicted)
    found = cells(page, "Confusion matrix")
    assert [[int(cell[0]) for cell in row[1:]] for row in found] == matrix.tolist()
    by_label = cells(page, "Precision, recall and F1 of each label")
    assert [row[0] for row in by_label] == [["<b>"], ["b", "&", "c"], ["d"]]
    recall = metrics.recall_score(targets, predicted, average=None)
    assert [float(row[2][0]) for row in by_label] == pytest.approx(recall, abs=5e-5)
    accuracy = metrics.accuracy_score(targets, predicted)
    assert f"<dt>accuracy</dt><dd>{accuracy:.4f}</dd>" in page
    answered = {row[0][0]: float(row[2][0]) for row in cells(page, "Accuracy by share answered")}
    sure = problem.probabilities(logits).max(-1)
    half = np.argsort(-sure)[:30]
    assert answered["50%"] == pytest.approx((predicted == targets)[half].mean(), abs=5e-5)
    assert answered["100%"] == pytest.approx(accuracy, abs=5e-5)
    error = scores.calibration_error(problem.probabilities(logits), targets)
    [row] = cells(page, "Expected calibration error")
    assert float(row[1][0]) == pytest.approx(error, abs=5e-5)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


@pytest.mark.parametrize(
    ("kind", "sections"),
    [
        (MULTI, ["Metrics", "Calibration", "Top losses"]),
        (REGRESSION, ["Metrics", "Numbers", "Top losses"]),
    ],
)
def test_other_problems(tmp_path, kind, sections):
    write_run(tmp_path / "run", kind)
    page = page_of(tmp_path / "run")
    assert re.findall(r"<h2[^>]*>(.*?)</h2>", page) == sections
    if kind == REGRESSION:
        assert "0.1235" in page
        assert "0.123456789" not in page


def test_logs_that_went_back_or_diverged(tmp_path):
    write_run(tmp_path / "run", SINGLE)
    lines = [(1, 2.0), (2, 1.5), (3, float("nan")), (2, 1.25)]
    text = "".join(json.dumps({"step": n, "loss": loss, "learning_rate": 1e-5}) + "\n" for n, loss in lines)  # fmt: skip
    (tmp_path / "run/training_log.jsonl").write_text(text)
    (tmp_path / "run/eval_log.jsonl").write_text('{"step": 2, "eval_loss": 1.1, "eval_accuracy": 0.5}\n')  # fmt: skip
    page = page_of(tmp_path / "run")
    assert cells(page, "Loss: numbers") == [[["1"], ["2"], []], [["2"], ["1.25"], ["1.1"]]]
    assert cells(page, "Accuracy on the dev data: numbers") == [[["2"], ["0.5"]]]


def test_parts_slices_settings_and_findings(tmp_path):
    run = tmp_path / "run"
    write_run(run, SINGLE, suffix="_test")
    results = json.loads((run / "eval_results_test.json").read_text())
    results["slices"] = {"author": {"<i>": {"rows": 50, "accuracy": 0.8, "f1_macro": None}}}
    (run / "eval_results_test.json").write_text(json.dumps(results))
    (run / "trained_with.json").write_text('{"flags": {"learning_rate": 2e-05, "freeze": null}}')
    finding = {"check": "duplicates", "file": "a/dev.tsv", "line": 3, "label": "d", "alternative": "d",
               "score": 0.97, "compared_with": "a/train.tsv:8", "text": "<u>"}  # fmt: skip
    (tmp_path / "review").mkdir()
    (tmp_path / "review/review.jsonl").write_text(json.dumps(finding) + "\n")
    page = page_of(run, review_dir=str(tmp_path / "review"))
    assert "60 test texts" in page
    assert cells(page, "Slices by author") == [[["<i>"], ["50"], ["0.8000"], [], ["0.670", "to", "0.888"]]]  # fmt: skip
    assert cells(page, "What the model was trained with") == [[["--learning_rate"], ["2e-05"]]]
    assert cells(page, "duplicates") == [[["dev.tsv:3"], ["d"], ["d"], ["0.970"], ["train.tsv:8"], ["<u>"]]]  # fmt: skip
    with pytest.raises(UserError, match="--part=dev: not evaluated in .*run; there is test"):
        page_of(run, part="dev")


def test_an_interval_is_wilsons():
    from scipy.stats import binomtest

    for right, rows in ((842, 1000), (0, 5), (5, 5), (1, 3)):
        expected = binomtest(right, rows).proportion_ci(method="wilson")
        assert interval(right / rows, rows) == pytest.approx(tuple(expected), abs=1e-4)


def test_a_run_without_predictions_of_its_own(tmp_path, caplog):
    """As earlier versions left it."""
    write_run(tmp_path / "run", SINGLE)
    (tmp_path / "run/eval_predictions.jsonl").unlink()
    page = page_of(tmp_path / "run")
    assert re.findall(r"<h2[^>]*>(.*?)</h2>", page) == ["Metrics", "Top losses"]
    assert "run bert classify --do_eval again" in caplog.text


def test_learning_curves_of_runs_that_diverged(tmp_path):
    run = tmp_path / "run"
    write_run(run, SINGLE)
    table = "rows\tseed\teval_accuracy\n10\t1\tnan\n10\t2\t0.5\n10\t3\t0.75\n20\t1\tnan\n"
    (run / "learning_curve.tsv").write_text(table)
    assert cells(page_of(run), "Learning curve") == [[["10"], ["2"], ["0.6250"], ["0.1768"]]]
    (run / "learning_curve.tsv").write_text("rows\teval_accuracy\n10\tnan\n")
    assert "Learning curve" not in page_of(run)
    for damaged in (
        "",
        "a\n",
        "rows\teval_loss\nnan\t1\n",
        "rows\teval_loss\ninf\t1\n",
        "eval_loss\n1\n",
    ):
        (run / "learning_curve.tsv").write_text(damaged)
        with pytest.raises(UserError, match=r"learning_curve\.tsv: .+; expected the table that"):
            page_of(run)


def test_the_best_of_several_runs_knows_the_task(tmp_path):
    run = tmp_path / "run"
    write_run(run, SINGLE)
    (run / "best").mkdir()
    (run / "task.json").rename(run / "best/task.json")
    (run / "best/trained_with.json").write_text('{"flags": {"learning_rate": 2e-05}}')
    page = page_of(run)
    assert cells(page, "What the model was trained with") == [[["--learning_rate"], ["2e-05"]]]


def test_other_ends_of_lines_in_texts_end_no_line(tmp_path):
    run = tmp_path / "run"
    write_run(run, SINGLE)
    path = run / "eval_predictions.jsonl"
    ends = "a\u2028b\u2029c\x85d"
    path.write_text(path.read_text("utf-8").replace('"id": "0"', f'"id": "{ends}"'), "utf-8")
    finding = {"check": "duplicates", "file": "dev.tsv", "line": 3, "label": "d", "alternative": "d",
               "score": 0.97, "compared_with": "train.tsv:8", "text": ends}  # fmt: skip
    (run / "review.jsonl").write_text(json.dumps(finding, ensure_ascii=False) + "\n", "utf-8")
    [[*_, text]] = cells(page_of(run), "duplicates")
    assert text == ["a", "b", "c", "d"]


def test_what_cannot_be_reported(tmp_path):
    def message(**flags):
        with pytest.raises(UserError) as caught:
            page_of(tmp_path / "run", **flags)
        return str(caught.value)

    run = tmp_path / "run"
    assert message() == f"--output_dir={run}: no such directory"
    run.mkdir()
    assert message() == (
        f"--output_dir={run}: no eval_results.json in it; expected the directory of a run of bert"
        " classify with --do_eval, --num_runs or --learning_curve"
    )
    write_run(run, SINGLE)
    assert message(output_file="a.pdf") == "--output_file=a.pdf: expected a name that ends in .html"
    assert message(review_dir=str(run)).startswith(f"--review_dir={run}: no review.jsonl in it")
    lines = (run / "eval_predictions.jsonl").read_text()
    for damaged in (lines.replace('"b & c":', '"e":'), "[]\n", "", lines[:-20]):
        (run / "eval_predictions.jsonl").write_text(damaged)
        assert message().startswith(f"{run}/eval_predictions.jsonl: ")
        assert message().endswith("for the labels of task.json; evaluate again")
    (run / "eval_results.json").write_text("[1]")
    assert message() == f"{run}/eval_results.json: not a JSON object; evaluate again"
    assert not (run / "report.html").exists()


def test_charts():
    points = [(0.0, 0.5), (10.0, 0.25)]
    found = chart("A < B", Axis("x & y"), Axis("z"), [Series("one", points, "first dots")])
    assert (
        '<svg viewBox="0 0 480 300" role="img" aria-label="Chart: A &lt; B. z by x &amp; y' in found
    )
    assert found.count("<circle") == 2
    assert "<td class=\"number\">0.25</td>" in found  # fmt: skip
    one = chart("t", Axis("x", is_log=True), Axis("y"), [Series("s", [(500.0, 0.8)])])
    assert "nan" not in one
    assert [shown(n) for n in (12000.0, 0.85311, 3e-05, 1234.56, 0.5)] == ["12,000", "0.8531", "3e-05", "1,234.6", "0.5"]  # fmt: skip
    assert '<th scope="row" class="number">1</th>' in table("c", ["a", "b"], [["1", "x"]])


@pytest.mark.slow
def test_learning_curve_and_report_as_a_user_runs_them(tmp_path, model_dir):
    flags = {
        "task_name": "sst-2",
        "data_dir": ROOT / "sample_data/reviews",
        "bert_dir": model_dir,
        "output_dir": tmp_path / "out",
        "max_seq_length": 24,
        "num_train_epochs": 1,
        "learning_rate": 1e-3,
        "evaluate_every": "epoch",
        "learning_curve": "40,all",
        "num_runs": 2,
    }
    result = run_stage("run_classifier", "--do_train", "--do_eval", flags)
    assert result.returncode == 0, result.stderr
    lines = (tmp_path / "out/learning_curve.tsv").read_text().splitlines()
    rows = [dict(zip(lines[0].split("\t"), line.split("\t"))) for line in lines[1:]]
    assert [(row["rows"], row["seed"]) for row in rows] == [("40", "12345"), ("40", "12346"), ("160", "12345"), ("160", "12346")]  # fmt: skip
    one = tmp_path / "out/rows_40/run_2"
    results = json.loads((one / "eval_results.json").read_text())
    assert float(rows[1]["eval_accuracy"]) == results["eval_accuracy"]
    assert "rows  runs    mean  deviation" in result.stderr
    # Each evaluation while training is a line.
    [line] = (one / "eval_log.jsonl").read_text().splitlines()
    assert json.loads(line)["eval_loss"] == pytest.approx(results["eval_loss"], abs=1e-5)
    # The same command goes on: nothing is trained again.
    before = (one / "training_log.jsonl").read_text()
    assert run_stage("run_classifier", "--do_train", "--do_eval", flags).returncode == 0
    assert (one / "training_log.jsonl").read_text() == before
    for directory, sections in ((tmp_path / "out", ["Learning curve"]), (one, ["Metrics", "Calibration", "Leaving texts unanswered", "Training", "Top losses", "Settings"])):  # fmt: skip
        result = run_stage("report", {"output_dir": directory})
        assert result.returncode == 0, result.stderr
        assert re.search(r"^wrote .*report.html: \d", result.stderr)
        page = (directory / "report.html").read_text()
        assert re.findall(r"<h2[^>]*>(.*?)</h2>", page) == sections
        assert not re.search(LOADS, page)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"learning_curve": ["10", "many"]}, "--learning_curve=10,many: 'many': expected numbers of rows, and all"),
        ({"learning_curve": ["10"], "max_train_examples": 5}, "both choose rows; pass one"),
        ({"learning_curve": ["10"], "do_train": True}, "pass --do_train and --do_eval"),
        ({"learning_curve": ["10"], "predict_file": "a.txt"}, "--learning_curve predicts nothing"),
    ],
)  # fmt: skip
def test_flags_of_learning_curves_that_do_not_fit(flags, message):
    with pytest.raises(UserError, match=message):
        run_classifier.Options(train_file="a.csv", eval_file="b.csv", output_dir="o", **flags)


def test_more_rows_than_there_are(tmp_path, reviews, model_dir):
    options = run_classifier.Options(
        task_name="sst-2",
        data_dir=str(reviews),
        bert_dir=str(model_dir),
        output_dir=str(tmp_path / "out"),
        do_train=True,
        do_eval=True,
        learning_curve=["10", "500"],
    )
    with pytest.raises(UserError, match="--learning_curve=10,500: 500 rows, but there are 36 to"):
        run_classifier.run(options)
    assert not (tmp_path / "out").exists()
