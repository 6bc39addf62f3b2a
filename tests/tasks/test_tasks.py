import pytest

from bert_toolkit.errors import UserError
from bert_toolkit.tasks.classification import glue, task_data
from bert_toolkit.tasks.classification.data_options import DataOptions


def row(columns, **cells):
    fields = [f"x{number}" for number in range(columns)]
    for position, value in cells.items():
        fields[int(position[1:])] = value
    return "\t".join(fields)


# task -> split -> (file, header columns or None, rows, expected examples)
LAYOUTS = {
    ("cola", "train"): ("train.tsv", None, ["a\t1\t\tfine", "a\t0\t*\tnot fine"], [("0", "fine", None, "1"), ("1", "not fine", None, "0")]),
    ("cola", "dev"): ("dev.tsv", None, ["a\t1\t\tfine"], [("0", "fine", None, "1")]),
    ("cola", "test"): ("test.tsv", 2, ["17\ta text"], [("17", "a text", None, None)]),
    ("mrpc", "train"): ("train.tsv", 5, ["1\ti\tj\tone\ttwo"], [("0", "one", "two", "1")]),
    ("mrpc", "test"): ("test.tsv", 5, ["3\ti\tj\tone\ttwo"], [("3", "one", "two", None)]),
    ("mnli", "train"): ("train.tsv", 12, [row(12, c8="p", c9="h", c11="neutral")], [("0", "p", "h", "neutral")]),
    ("mnli", "dev"): ("dev_matched.tsv", 16, [row(16, c8="p", c9="h", c15="entailment")], [("0", "p", "h", "entailment")]),
    ("mnli", "test"): ("test_matched.tsv", 10, [row(10, c0="5", c8="p", c9="h")], [("5", "p", "h", None)]),
    ("sst-2", "train"): ("train.tsv", 2, ["good \t1", '"a "quoted text\t0'], [("0", "good ", None, "1"), ("1", '"a "quoted text', None, "0")]),
    ("sst-2", "test"): ("test.tsv", 2, ["0\tfine"], [("0", "fine", None, None)]),
    ("xnli", "train"): ("multinli/multinli.train.zh.tsv", 3, ["p\th\tcontradictory"], [("0", "p", "h", "contradiction")]),
    ("xnli", "dev"): ("xnli.dev.tsv", 19, [row(19, c0="de"), row(19, c0="zh", c1="neutral", c6="p", c7="h")], [("0", "p", "h", "neutral")]),
}  # fmt: skip


def read(name, split, directory, **flags):
    """Returns the examples of the main file of a split."""
    options = DataOptions(task_name=name, data_dir=str(directory), **flags)
    wanted = task_data.Wanted(*(split == name for name in ("train", "dev", "test")))
    data = task_data.load(glue.find(name), options, wanted, 0, [])
    return data.train if split == "train" else getattr(data, split)[""]


def write(tmp_path, file, columns, rows):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    header = ["\t".join(f"h{number}" for number in range(columns))] if columns else []
    path.write_text("\n".join(header + rows) + "\n", encoding="utf-8")


@pytest.mark.parametrize("layout", LAYOUTS, ids="-".join)
def test_published_layouts(layout, tmp_path):
    file, columns, rows, expected = LAYOUTS[layout]
    write(tmp_path, file, columns, rows)
    found = [example[:4] for example in read(*layout, tmp_path)]
    assert found == expected


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            ["fine\t1", "only one column"],
            r"train.tsv line 3: 1 columns, expected 2 \(h0, h1\). Are its columns",
        ),
        (["a\tb\t1"], r"train.tsv line 2: 3 columns, expected 2 \(h0, h1\). Remove the extra tab."),
        (["fine\t2"], "train.tsv line 2: label '2', expected one of 0, 1"),
        ([], "train.tsv: no row to use"),
    ],
)
def test_bad_rows_are_named(tmp_path, rows, message):
    write(tmp_path, "train.tsv", 2, rows)
    with pytest.raises(UserError, match=message):
        read("sst-2", "train", tmp_path)


def test_blank_lines_are_left_out_and_told(tmp_path, caplog):
    write(tmp_path, "train.tsv", 2, ["fine\t1", "", "bad\t0", ""])
    assert len(read("sst-2", "train", tmp_path)) == 2
    assert "2 blank lines left out" in caplog.text


def test_unknown_tasks():
    assert glue.find("MRPC") is glue.TASKS["mrpc"]
    with pytest.raises(
        UserError, match=r"--task_name=mnly: unknown task. Known: cola, .*\. Did you mean mnli\?"
    ):
        glue.find("mnly")
