"""Training data divided, thinned, its rare labels joined, its texts made of several columns."""

import collections
import json

import pytest

import run_classifier
from bert_toolkit.checkpoints import task_file
from bert_toolkit.errors import UserError
from bert_toolkit.options import check
from bert_toolkit.problems import MULTI, SINGLE, Problem
from bert_toolkit.tasks.classification import division, task_data
from bert_toolkit.tasks.classification.data_options import DataOptions

ALL = task_data.Wanted(True, True, True)
TRAIN = task_data.Wanted(True, False, False)


def load(wanted=ALL, seed=0, model_dirs=(), **flags):
    options = DataOptions(**{name: str(v) if "file" in name else v for name, v in flags.items()})
    check(options.data_conflicts())
    return task_data.load(options.task(), options, wanted, seed, model_dirs)


def write(path, header, rows):
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in [header, *rows]))
    return path


@pytest.fixture
def texts(tmp_path):
    """200 rows of which a tenth is rare, by 20 authors, each day a row but for the last five."""
    rows = [
        (f"t{n}", "rare" if n % 10 == 0 else "often", f"author {n * 7 % 20}", min(n, 195), n)
        for n in range(200)
    ]
    return write(tmp_path / "a.tsv", ("text", "label", "author", "day", "year"), rows)


def texts_of(rows):
    return [example.text_a for example in rows]


def test_a_test_part_is_held_out_of_both_others(texts):
    data = load(train_file=texts, eval_split=0.2, test_split=0.1)
    parts = [data.train, data.dev[""], data.dev[task_data.TEST]]
    assert [len(part) for part in parts] == [140, 40, 20]
    assert [sum(one.label == "rare" for one in part) for part in parts] == [14, 4, 2]
    together = sum(map(texts_of, parts), [])
    assert sorted(together) == sorted(f"t{n}" for n in range(200))
    # It is what is predicted, with the rows numbered as in the file.
    assert data.test[""] == parts[2]
    assert all(f"t{one.name}" == one.text_a for one in parts[2])
    # A file to predict comes before it.
    own = load(train_file=texts, eval_split=0.2, test_split=0.1, predict_file=texts)
    assert len(own.test[""]) == 200
    assert own.dev == data.dev
    # A later evaluation finds the same rows, another seed others.
    later = load(task_data.Wanted(False, True, False), train_file=texts, eval_split=0.2, test_split=0.1)  # fmt: skip
    assert later.dev == data.dev
    other = load(seed=1, train_file=texts, eval_split=0.2, test_split=0.1)
    assert other.dev != data.dev
    # --split_seed keeps the parts while --seed varies.
    fixed = [load(seed=n, train_file=texts, eval_split=0.2, split_seed=3).dev for n in (1, 2)]
    assert fixed[0] == fixed[1]


def test_training_alone_leaves_out_what_a_later_evaluation_needs(texts):
    alone = load(TRAIN, train_file=texts, eval_split=0.2, test_split=0.1)
    assert alone.train == load(train_file=texts, eval_split=0.2, test_split=0.1).train
    assert not alone.dev
    assert not alone.test


def test_groups_stay_together(texts):
    data = load(train_file=texts, eval_split=0.2, test_split=0.1, split_column="author")
    parts = [data.train, data.dev[""], data.dev[task_data.TEST]]
    authors = [{one.part_by for one in part} for part in parts]
    assert [len(names) for names in authors] == [14, 4, 2]
    assert len(set.union(*authors)) == 20
    assert sum(map(len, parts)) == 200


def test_the_last_rows_are_held_out(texts, caplog):
    caplog.set_level("INFO")
    flags = {"train_file": texts, "eval_split": 0.2, "test_split": 0.1, "split_by": "time"}
    data = load(split_column="year", **flags)
    assert texts_of(data.train) == [f"t{n}" for n in range(140)]
    assert texts_of(data.dev[""]) == [f"t{n}" for n in range(140, 180)]
    assert texts_of(data.test[""]) == [f"t{n}" for n in range(180, 200)]
    assert "by year: train until 139, dev until 179, test until 199" in caplog.text
    # Five rows of the last day are in one part, though two of them would do.
    few = load(train_file=texts, eval_split=0.01, split_column="day", split_by="time")
    assert texts_of(few.dev[""]) == [f"t{n}" for n in range(195, 200)]


@pytest.mark.parametrize(
    "days",
    [
        ["9", "10", "-3", "2.5"],
        ["2026-01-02", "2026-01-10", "2025-12-31", "2026-01-01"],
        # The second is the latest, as its zone is far in the west.
        ["2026-01-01 12:00Z", "2026-01-01T11:00:00-09:00", "2025-12-31", "2026-01-01"],
    ],
)
def test_times_are_numbers_or_dates(tmp_path, days):
    rows = [(f"t{n}", "ab"[n % 2], day) for n, day in enumerate(days)]
    path = write(tmp_path / "a.tsv", ("text", "label", "day"), rows)
    data = load(train_file=path, eval_split=0.5, split_column="day", split_by="time")
    assert texts_of(data.train) == ["t2", "t3"]
    assert texts_of(data.dev[""]) == ["t0", "t1"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"split_column": "author"}, "--split_column goes with --eval_split or --test_split"),
        ({"eval_split": 0.1, "split_by": "time"}, "--split_by=time: pass the column of the time"),
        ({"eval_split": 0.5, "test_split": 0.5}, "leave nothing to train on; pass smaller shares"),
        ({"eval_split": 0.1, "split_column": "writer"}, "no column 'writer'; its columns: 'text', 'label', 'author'"),
        ({"eval_split": 0.1, "split_column": "author", "split_by": "time"}, "line 2: 'author 0' in the column of --split_column; expected a date such as 2026-01-31"),
        ({"eval_split": 0.01, "test_split": 0.01, "split_column": "day", "split_by": "time"}, "--split_by=time leaves no row to dev"),
        ({"labels": ["often", "rare"], "min_label_count": 3}, "--labels and --min_label_count: both choose"),
        ({"min_label_count": 500}, "no label has the 500 rows that --min_label_count=500 asks for .the most frequent has 180.; pass a smaller number"),
        ({"other_label": "a\tb", "min_label_count": 5}, "--other_label=a\tb: expected a label, on one line"),
        ({"label_column": "year", "min_label_count": 5, "problem_type": "regression"}, "--min_label_count: numbers are to be predicted"),
        ({"text_template": "{title}: {text}"}, "--text_template: no column 'title' in .*a.tsv; its columns: 'text', 'label', 'author', 'day', 'year'$"),
        ({"text_template": "{9}"}, "--text_template: no column number 9 in "),
        ({"text_template": "{text"}, "--text_template={text: expected '}' before end of string; expected names"),
        ({"text_template": "title"}, "--text_template=title: no column in it; expected names of columns in braces"),
        ({"text_template": "{text!r}"}, "{text} is no column; expected names"),
        ({"text_template": "{text}", "text_column": "text"}, "--text_template and --text_column: both make the text"),
        ({"text_template": "{text}", "predict_file": "-"}, "--predict_file=-: lines have no columns for --text_template"),
    ],
)  # fmt: skip
def test_flags_and_data_that_do_not_fit(texts, flags, message):
    with pytest.raises(UserError, match=message):
        load(ALL if "eval_split" in flags else TRAIN, train_file=texts, **flags)


def test_a_rare_label_and_an_empty_group(tmp_path):
    rows = [(f"t{n}", "ab"[n % 2], "x") for n in range(9)]
    one = write(tmp_path / "one.tsv", ("text", "label", "author"), [*rows, ("u", "c", "y")])
    with pytest.raises(UserError, match="--test_split: the label 'c' has one row, which cannot"):
        load(train_file=one, test_split=0.2)
    gap = write(tmp_path / "gap.tsv", ("text", "label", "author"), [*rows, ("u", "b", "")])
    with pytest.raises(UserError, match="gap.tsv line 11: nothing in the column of --split_column"):
        load(train_file=gap, test_split=0.2, split_column="author")
    same = write(tmp_path / "same.tsv", ("text", "label", "author"), rows)
    with pytest.raises(UserError, match="--test_split=0.2: .*n_samples=1"):
        load(train_file=same, test_split=0.2, split_column="author")
    tasks = {"task_name": "sst-2", "data_dir": str(tmp_path)}
    with pytest.raises(UserError) as error:
        run_classifier.Options(output_dir="x", do_train=True, test_split=0.1, split_column="x", **tasks)  # fmt: skip
    assert "--test_split is for files of your own" in str(error.value)
    assert "--split_column is for files of your own" in str(error.value)


def test_runs_are_compared_on_dev_data():
    flags = {"train_file": "a.tsv", "test_split": 0.1, "output_dir": "x", "bert_dir": "y"}
    choosing = {"num_runs": 2, "learning_curve": ["10"], "calibrate": True, "reject_below": "10%"}
    with pytest.raises(UserError) as error:
        run_classifier.Options(**choosing, **flags)
    lines = str(error.value).splitlines()
    assert len(lines) == len(choosing)
    for line, name in zip(lines, choosing):
        assert line.startswith(f"--{name} goes by dev data: pass --eval_file or --eval_split")
    assert run_classifier.Options(**flags).actions() == (True, True, True)


def test_fewer_examples_have_the_labels_in_proportion(texts):
    data = load(train_file=texts, eval_split=0.2, max_train_examples=50)
    assert len(data.train) == 50
    assert sum(one.label == "rare" for one in data.train) == 5
    whole = load(train_file=texts, eval_split=0.2)
    assert set(data.train) <= set(whole.train)
    assert data.dev == whole.dev
    lines = [one.line for one in data.train]
    assert lines == sorted(lines)
    assert load(train_file=texts, eval_split=0.2, max_train_examples=500).train == whole.train
    numbers = [task_data.Example(str(n), "t", None, 0.5, n) for n in range(10)]
    assert len(division.sample(numbers, 4, Problem("regression"), 0)) == 4


def test_rare_labels_become_one(tmp_path, caplog):
    caplog.set_level("INFO")
    labels = ["a"] * 5 + ["b"] * 4 + ["c"] * 2 + ["d"]
    train = write(tmp_path / "a.tsv", ("text", "label"), [(f"t{n}", name) for n, name in enumerate(labels)])  # fmt: skip
    dev = write(tmp_path / "b.tsv", ("text", "label"), [("u", "c"), ("v", "new"), ("w", "b")])
    data = load(
        task_data.Wanted(True, True, False),
        train_file=train,
        eval_file=dev,
        min_label_count=3,
        other_label="rest",
    )
    assert data.problem.labels == ("a", "b", "rest")
    counts = collections.Counter(one.label for one in data.train)
    assert counts == {"a": 5, "b": 4, "rest": 3}
    assert [one.label for one in data.dev[""]] == ["rest", "rest", "b"]
    assert "a.tsv: 2 rare labels of 3 rows are 'rest': 'c', 'd'" in caplog.text
    # The model knows it, so that a later evaluation needs no flag.
    task_data.store(str(tmp_path), data)
    later = load(task_data.Wanted(False, True, False), 0, [str(tmp_path)], eval_file=dev)
    assert later.dev == data.dev
    # A label of that name is one of its own; without rare labels nothing is added.
    assert load(TRAIN, train_file=train, min_label_count=3, other_label="b").problem.labels == (
        "a",
        "b",
    )
    assert load(TRAIN, train_file=train, min_label_count=1).problem.labels == ("a", "b", "c", "d")


def test_rare_labels_of_texts_with_several(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [["x", "y"], ["x"], ["y", "p", "q"], ["x", "y"], []]
    path.write_text("".join(json.dumps({"text": "t", "label": row}) + "\n" for row in rows))
    data = load(TRAIN, train_file=path, min_label_count=2)
    assert data.problem == Problem(MULTI, ("x", "y", "other"))
    assert [one.label for one in data.train] == [
        ("x", "y"),
        ("x",),
        ("y", "other"),
        ("x", "y"),
        (),
    ]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"text_template": "{title}: {body} {{{year}}}"}, "Rain: It fell. {2026}"),
        ({"text_template": "{3} {1}"}, "2026 Rain"),
        ({"text_template": "{1}. {body}", "text_b_column": "year"}, "Rain. It fell."),
    ],
)
def test_a_text_of_several_columns(tmp_path, flags, expected):
    rows = [("Rain", "It fell.", "2026", "a"), ("Sun", "It shone.", "2025", "b")]
    path = write(tmp_path / "a.tsv", ("title", "body", "year", "label"), rows)
    data = load(task_data.Wanted(True, False, True), train_file=path, predict_file=path, **flags)
    assert data.train[0].text_a == data.test[""][0].text_a == expected
    assert data.train[0].text_b == ("2026" if "text_b_column" in flags else None)


def test_columns_of_json_objects(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"title": "Rain", "year": 2026, "label": "a"}\n{"title": "Sun", "year": 2.5, "label": "b"}\n'
    )
    data = load(TRAIN, train_file=path, text_template="{title} {year}")
    assert texts_of(data.train) == ["Rain 2026", "Sun 2.5"]
    path.write_text('{"title": null, "label": "a"}\n{"titel": "x", "label": "b"}\n')
    with pytest.raises(UserError) as error:
        load(TRAIN, train_file=path, text_template="{title}")
    assert str(error.value).splitlines() == [
        f"{path} line 1: 'title' is None; expected text",
        f"{path} line 2: no 'title', only 'titel', 'label'",
    ]


def test_a_trained_models_order_of_labels_stays(tmp_path, texts):
    """Dividing its training file for an evaluation does not put them in that file's order."""
    task_file.write(str(tmp_path), Problem(SINGLE, ("rare", "often")), "accuracy")
    wanted = task_data.Wanted(False, True, True)
    flags = {"train_file": texts, "eval_split": 0.2, "test_split": 0.1}
    found = load(wanted, model_dirs=[str(tmp_path)], **flags)
    assert found.problem.labels == ("rare", "often")
    assert found.dev == load(wanted, **flags).dev
