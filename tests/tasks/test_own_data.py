"""Data without code: tables of every kind, labels inferred, bad rows, divisions, reports."""

import csv
import gzip
import json

import numpy as np
import pytest

from bert_toolkit import problems
from bert_toolkit.errors import UserError
from bert_toolkit.io import tables
from bert_toolkit.problems import MULTI, REGRESSION, SINGLE
from bert_toolkit.tasks.base import EncodedSplit
from bert_toolkit.tasks.classification import task_data
from bert_toolkit.tasks.classification.data_options import DataOptions

ALL = task_data.Wanted(True, True, True)
TRAIN = task_data.Wanted(True, False, False)


def load(wanted=TRAIN, model_dirs=(), **flags):
    options = DataOptions(**{name: str(v) if "file" in name else v for name, v in flags.items()})
    return task_data.load(options.task(), options, wanted, 0, model_dirs)


ROWS = [
    ("a", "plain", "good"),
    ("b", 'with "quotes", commas\tand tabs', "bad"),
    ("c", "two\nlines", "good"),
    ("d", "umlauts: \u00e4\u00f6\u00fc \u2028 and more", "bad"),
]


def spreadsheet(path, delimiter, opened=open):
    """As spreadsheet programs write it: byte-order mark, CRLF, quotes where needed."""
    with opened(path, "wt", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\r\n")
        writer.writerows([("id", "text", "label"), *ROWS])


def test_the_same_rows_from_every_kind_of_file(tmp_path):
    spreadsheet(tmp_path / "a.csv", ",")
    spreadsheet(tmp_path / "a.tsv", "\t")
    spreadsheet(tmp_path / "a.csv.gz", ",", gzip.open)
    with open(tmp_path / "a.jsonl", "w", encoding="utf-8") as file:
        for row in ROWS:
            file.write(json.dumps(dict(zip(("id", "text", "label"), row))) + "\n")
    found = [
        load(train_file=tmp_path / "a.csv", id_column="id"),
        load(train_file=tmp_path / "a.tsv", id_column="id", quoting=True),
        load(train_file=tmp_path / "a.csv.gz", id_column="id"),
        load(train_file=tmp_path / "a.jsonl", id_column="id"),
    ]
    for data in found:
        rows = [(example.name, example.text_a, example.label) for example in data.train]
        assert rows == ROWS
        assert data.problem == problems.Problem(SINGLE, ("bad", "good"))
    lines = [example.line for example in found[0].train]
    assert lines == [2, 3, 4, 6]


@pytest.mark.parametrize(
    ("name", "text", "flags"),
    [
        ("a.tsv", "x\tfine\tyes\ny\tpoor\tno\n", {"header": False, "text_column": "2", "label_column": "3"}),
        ("a.tsv", "fine\tyes\npoor\tno\n", {"header": False}),
        ("a.csv", "Review,Stars\nfine,yes\npoor,no\n", {"text_column": "Review", "label_column": "Stars"}),
        ("a.csv", "Stars,Review\nyes,fine\nno,poor\n", {"text_column": "2", "label_column": "1"}),
        ("a.tsv", "label\tsentence\nyes\tfine\nno\tpoor\n", {}),
    ],
)  # fmt: skip
def test_columns_by_name_and_number(tmp_path, name, text, flags):
    (tmp_path / name).write_text(text)
    data = load(train_file=tmp_path / name, **flags)
    assert [(example.text_a, example.label) for example in data.train] == [
        ("fine", "yes"),
        ("poor", "no"),
    ]


def test_pairs_and_texts_to_predict(tmp_path):
    (tmp_path / "a.tsv").write_text("text\tother\tlabel\na\tb\t1\nc\td\t0\n")
    (tmp_path / "p.txt").write_text("one\ttext\n\nanother\n")
    flags = {"train_file": tmp_path / "a.tsv", "text_b_column": "other"}
    assert [example[1:4] for example in load(**flags).train] == [("a", "b", "1"), ("c", "d", "0")]
    data = load(
        task_data.Wanted(True, False, True),
        train_file=tmp_path / "a.tsv",
        predict_file=tmp_path / "p.txt",
    )
    assert [example[:4] for example in data.test[""]] == [
        ("0", "one\ttext", None, None),
        ("1", "", None, None),
        ("2", "another", None, None),
    ]


@pytest.mark.parametrize(
    ("labels", "kind", "names"),
    [
        (["b", "a", "b"], SINGLE, ("a", "b")),
        (["10", "9", "1"], SINGLE, ("1", "9", "10")),
        (["0.5", "1", "2"], REGRESSION, ()),
        (["0.5", "1", "many"], SINGLE, ("0.5", "1", "many")),
        ([("x", "y"), (), ("z",)], MULTI, ("x", "y", "z")),
    ],
)
def test_problems_are_inferred(labels, kind, names):
    assert problems.infer(labels) == problems.Problem(kind, names)


def test_several_labels(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"text": "t", "label": ["x", "y"]}\n{"text": "u", "label": []}\n{"text": "v", "label": ["z"]}\n'
    )
    (tmp_path / "a.tsv").write_text("text\tlabel\nt\tx, y\nu\t\nv\tz\n")
    for data in (
        load(train_file=tmp_path / "a.jsonl"),
        load(train_file=tmp_path / "a.tsv", problem_type=MULTI),
    ):
        assert data.problem == problems.Problem(MULTI, ("x", "y", "z"))
        assert [example.label for example in data.train] == [("x", "y"), (), ("z",)]
        assert [data.problem.values(example.label) for example in data.train] == [
            [1, 1, 0],
            [0, 0, 0],
            [0, 0, 1],
        ]


BAD = "text\tlabel\nfine\tyes\nshort\n\textra\tyes\t!\npoor\tno\n \tyes\n"


def test_bad_rows_are_all_named(tmp_path):
    (tmp_path / "a.tsv").write_text(BAD)
    with pytest.raises(UserError) as error:
        load(train_file=tmp_path / "a.tsv")
    lines = str(error.value).splitlines()
    assert [line.split("a.tsv ")[1] for line in lines] == [
        "line 3: 1 columns, expected 2 (text, label). Are its columns separated by tabs?",
        "line 4: 4 columns, expected 2 (text, label). Remove the extra tab.",
        "line 6: its text is empty",
    ]


def test_bad_rows_are_left_out_and_listed(tmp_path, caplog):
    (tmp_path / "a.tsv").write_text(BAD)
    data = load(train_file=tmp_path / "a.tsv", on_bad_row="skip", output_dir=str(tmp_path))
    assert [example.text_a for example in data.train] == ["fine", "poor"]
    listed = (tmp_path / "bad_rows.tsv").read_text().splitlines()
    assert len(listed) == 4
    assert listed[1].split("\t")[1] == "3"
    assert "3 bad rows left out" in caplog.text


@pytest.mark.parametrize(
    ("name", "text", "flags", "message"),
    [
        ("a.csv", "text,label\na,1\n", {"text_column": "Text"}, "no column 'Text'; its columns: 'text', 'label'"),
        ("a.tsv", "text\tlabel\na\t1\nb\t1\n", {}, "all rows have the label '1'"),
        ("a.csv", 'text,label\n"a,1\nb,2\n', {}, "line 2: unexpected end of data"),
        ("a.jsonl", '{"text": "a", "label": "1"}\n{"text": 3\n', {}, "line 2: not JSON"),
        ("a.jsonl", '{"text": 5, "label": "1"}\n', {}, "line 1: .*is 5; expected text"),
        ("a.jsonl", '{"body": "x", "label": "1"}\n', {}, "line 1: no 'text' or 'sentence', only 'body', 'label'"),
        ("a.tsv", "text\tlabel\na\tx\n", {"problem_type": REGRESSION}, "line 2: label 'x', expected a number"),
        ("a.tsv", "text\tlabel\na\tx\nb\ty\n", {"labels": ["x", "z"]}, "line 3: label 'y', expected one of x, z"),
        ("a.tsv", "text\tlabel\n" + "".join(f"t{i}\tl{i}\n" for i in range(30)), {}, "30 different labels in 30 rows"),
        ("missing.tsv", None, {}, "missing.tsv: no such file"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_used(tmp_path, name, text, flags, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        load(train_file=tmp_path / name, **flags)


def write_rows(path, rows):
    path.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows))


def test_a_division_keeps_the_shares_of_labels(tmp_path):
    write_rows(
        tmp_path / "a.tsv", [(f"t{n}", "rare" if n % 10 == 0 else "often") for n in range(100)]
    )
    data = load(task_data.Wanted(True, True, False), train_file=tmp_path / "a.tsv", eval_split=0.2)
    assert len(data.train) == 80
    for rows, count in ((data.train, 8), (data.dev[""], 2)):
        assert sum(example.label == "rare" for example in rows) == count
    assert not {e.text_a for e in data.train} & {e.text_a for e in data.dev[""]}
    # Without training, the same rows are evaluated on.
    again = load(
        task_data.Wanted(False, True, False), train_file=tmp_path / "a.tsv", eval_split=0.2
    )
    assert again.train is None
    assert again.dev == data.dev


def test_what_is_told_before_training(tmp_path):
    write_rows(tmp_path / "a.tsv", [(f"t{n // 2}", "yes") for n in range(40)] + [("no", "no")])
    write_rows(tmp_path / "b.tsv", [("t3", "yes"), ("new", "no")])
    data = load(
        task_data.Wanted(True, True, False),
        train_file=tmp_path / "a.tsv",
        eval_file=tmp_path / "b.tsv",
    )
    lines = task_data.describe(data)
    assert lines[0] == "train: 41 rows, yes 40, no 1"
    assert any("20 rows are repetitions" in line for line in lines)
    assert any("dev: 1 rows are in the training data too" in line for line in lines)
    assert any(
        "few rows have the label no;" in line and "--class_weights" in line for line in lines
    )


def test_labels_are_known_to_a_model(tmp_path):
    write_rows(tmp_path / "a.tsv", [("a", "x"), ("b", "y")])
    write_rows(tmp_path / "b.tsv", [("c", "y")])
    data = load(train_file=tmp_path / "a.tsv")
    task_data.store(str(tmp_path), data)
    only_dev = task_data.Wanted(False, True, False)
    found = load(only_dev, [str(tmp_path)], eval_file=tmp_path / "b.tsv")
    assert found.problem == data.problem
    with pytest.raises(UserError, match="the labels are not known: --output_dir holds no model"):
        load(only_dev, [], eval_file=tmp_path / "b.tsv")


def test_outputs_of_windows_are_averaged_in_the_order_of_examples():
    """Records are sorted by length, and an example may have several."""
    examples = [task_data.Example(str(number), "t", None, "x") for number in range(3)]
    split = EncodedSplit("path", examples, np.array([2, 0, 2, 1]), [3] * 4)
    outputs = np.array([[1.0, 4.0], [5.0, 5.0], [3.0, 0.0], [7.0, 8.0]])
    assert split.of_examples(outputs).tolist() == [[5.0, 5.0], [7.0, 8.0], [2.0, 2.0]]


def test_quotes_of_published_files_are_text(tmp_path):
    (tmp_path / "a.tsv").write_text('text\tlabel\n"a quote\t1\nb"\t0\n')
    table = tables.Table(str(tmp_path / "a.tsv"), tables.TableFormat())
    assert [row.fields for row in table.rows()] == [['"a quote', "1"], ['b"', "0"]]
