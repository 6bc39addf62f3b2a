"""Files that people really feed it: labelled data from public reports and of today's programs.

Each case is a row: the file, the flags, and what is read, or the sentence that says why not.
"""

import codecs
import gzip
import io
import json
import re
import sys

import pytest
from conftest import run_stage

import tokenization
from bert_toolkit import problems
from bert_toolkit.checkpoints import task_file
from bert_toolkit.commands import convert_checkpoint
from bert_toolkit.errors import UserError
from bert_toolkit.io import files
from bert_toolkit.problems import MULTI, REGRESSION, SINGLE
from bert_toolkit.tasks.classification import glue, task_data
from bert_toolkit.tasks.classification.data_options import DataOptions

TRAIN = task_data.Wanted(True, False, False)


def load(splits=TRAIN, **flags):
    options = DataOptions(**flags)
    problems = options.data_conflicts()
    if problems:
        raise UserError("\n".join(problems))
    return task_data.load(options.task(), options, splits, 0, [])


def load_own(path, data, **flags):
    """Returns (text, label) of the rows of a training file; `data` is text or bytes."""
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return [(row.text_a, row.label) for row in load(train_file=str(path), **flags).train]


# --- A task's file is checked against the task ---

MRPC = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
MRPC_ROWS = "1\t7\t8\tone\ttwo\n0\t9\t10\tthree\tfour\n"
COLA_ROWS = "gj04\t1\t\tfine\ngj04\t0\t*\tnot fine\n"
RTE = "index\tsentence1\tsentence2\tlabel\n"
QQP = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
STSB = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
MNLI = (
    "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse"
    "\tsentence2_parse\tsentence1\tsentence2\t"
)
MNLI_CELLS = "5\tx\tx\tx\tx\tx\tx\tx\tp\th\t"
XNLI = (
    "language\tgold_label\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse"
    "\tsentence2_parse\tsentence1\tsentence2\tpromptID\tpairID\tgenre\tlabel1\tlabel2\tlabel3\tlabel4"
    "\tlabel5\tsentence1_tokenized\tsentence2_tokenized\tmatch\n"
)
XNLI_TAIL = "\tx" * 11 + "\n"


def load_task(directory, name, file, data):
    """Returns (name, text, second text, label) of the rows of a file of a task."""
    path = directory / file
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    task = glue.find(name)
    kinds = (file == task.train.file, file in [split.file for split in task.dev.values()])
    splits = task_data.Wanted(*kinds, not any(kinds))
    data = load(splits, task_name=name, data_dir=str(directory))
    rows = data.train or next(iter((*data.dev.values(), *data.test.values())))
    return [row[:4] for row in rows]


@pytest.mark.parametrize(
    ("name", "file", "data", "expected"),
    [
        ("mrpc", "train.tsv", "\ufeff" + MRPC + MRPC_ROWS, ("0", "one", "two", "1")),  # as MSR gives it
        ("mrpc", "train.tsv", "\ufeff" + MRPC.replace("\n", "\r\n") + MRPC_ROWS.replace("\n", "\r\n"), ("0", "one", "two", "1")),
        ("mrpc", "test.tsv", "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n3\t1\t2\tone\ttwo\n", ("3", "one", "two", None)),
        ("mrpc", "test.tsv", "\ufeff" + MRPC + MRPC_ROWS, ("0", "one", "two", None)),
        ("cola", "train.tsv", COLA_ROWS, ("0", "fine", None, "1")),
        ("cola", "test.tsv", "index\tsentence\n17\tfine\n", ("17", "fine", None, None)),
        ("cola", "test.tsv", "Id\tSentence\n17\tfine\n", ("17", "fine", None, None)),
        ("cola", "test.tsv", COLA_ROWS, ("0", "fine", None, None)),
        ("sst-2", "train.tsv", "sentence\tlabel\nfine\t1\n", ("0", "fine", None, "1")),
        ("sst-2", "train.tsv", "label\tsentence\n1\tfine\n", ("0", "fine", None, "1")),
        ("sst-2", "train.tsv", "idx\tsentence\tlabel\n9\tfine\t1\n", ("0", "fine", None, "1")),
        ("sst-2", "test.tsv", "index\tsentence\n4\tfine\n", ("4", "fine", None, None)),
        ("sst-2", "test.tsv", "sentence\tlabel\nfine\t1\n", ("0", "fine", None, None)),
        ("sst-2", "test.tsv", "sentence\tlabel\nfine\t-1\n", ("0", "fine", None, None)),
        ("qqp", "train.tsv", QQP + "7\t1\t2\tone\ttwo\t0\n", ("0", "one", "two", "0")),
        ("qqp", "test.tsv", "id\tquestion1\tquestion2\n7\tone\ttwo\n", ("7", "one", "two", None)),
        ("qqp", "test.tsv", QQP + "7\t1\t2\tone\ttwo\t0\n", ("7", "one", "two", None)),
        ("sts-b", "train.tsv", STSB + "0\tx\tx\tx\tx\tx\tx\tone\ttwo\t2.500\n", ("0", "one", "two", 2.5)),
        ("sts-b", "test.tsv", STSB.replace("\tscore", "") + "8\tx\tx\tx\tx\tx\tx\tone\ttwo\n", ("8", "one", "two", None)),
        ("mnli", "train.tsv", MNLI + "label1\tgold_label\n" + MNLI_CELLS + "neutral\tneutral\n", ("0", "p", "h", "neutral")),
        ("mnli", "dev_matched.tsv", MNLI + "label1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label\n" + MNLI_CELLS + "neutral\t" * 5 + "entailment\n", ("0", "p", "h", "entailment")),
        ("mnli", "test_matched.tsv", MNLI[:-1] + "\n" + MNLI_CELLS[:-1] + "\n", ("5", "p", "h", None)),
        ("mnli", "test_matched.tsv", MNLI + "label1\tgold_label\n" + MNLI_CELLS + "neutral\tneutral\n", ("5", "p", "h", None)),
        ("qnli", "train.tsv", "index\tquestion\tsentence\tlabel\n0\tq\ts\tnot_entailment\n", ("0", "q", "s", "not_entailment")),
        ("rte", "train.tsv", RTE + "0\tone\ttwo\tentailment\n", ("0", "one", "two", "entailment")),
        ("rte", "test.tsv", RTE.replace("\tlabel", "") + "6\tone\ttwo\n", ("6", "one", "two", None)),
        ("wnli", "train.tsv", RTE + "0\tone\ttwo\t1\n", ("0", "one", "two", "1")),
        ("xnli", "xnli.dev.tsv", XNLI + "de\tneutral\tx\tx\tx\tx\tp\th" + XNLI_TAIL + "zh\tneutral\tx\tx\tx\tx\tP\tH" + XNLI_TAIL, ("0", "P", "H", "neutral")),
        ("xnli-de", "multinli/multinli.train.de.tsv", "premise\thypo\tlabel\np\th\tcontradictory\n", ("0", "p", "h", "contradiction")),
    ],
)  # fmt: skip
def test_files_of_tasks(tmp_path, name, file, data, expected, caplog):
    assert load_task(tmp_path, name, file, data)[0] == expected
    assert "header" not in caplog.text


@pytest.mark.parametrize(
    ("name", "file", "data", "message"),
    [
        # Without its header.
        ("mrpc", "train.tsv", MRPC_ROWS, "no header, line 1 is a row: '1', '7', '8', 'one', 'two'; expected the header Quality, #1 ID, #2 ID, #1 String, #2 String; put that line before it, or read it with --train_file={path} --noheader --text_column=4 --text_b_column=5 --label_column=1 in place of --task_name and --data_dir"),
        ("mrpc", "test.tsv", MRPC_ROWS, "no header, line 1 is a row: .* --predict_file={path} --noheader --text_column=4 --text_b_column=5 in"),
        ("sst-2", "dev.tsv", "fine\t1\npoor\t0\n", "no header, .* --eval_file={path} --noheader --text_column=1 --label_column=2 in"),
        ("sst-2", "test.tsv", "0\tfine\n1\tpoor\n", "no header, .* expected the header index, sentence"),
        ("sts-b", "train.tsv", "0\tx\tx\tx\tx\tx\tx\tone\ttwo\t2.5\n", "no header"),
        ("mnli", "train.tsv", MNLI_CELLS + "neutral\tneutral\n", "no header, .* expected a header of 12 columns, with sentence1, sentence2, gold_label among them"),
        ("xnli", "multinli/multinli.train.zh.tsv", "p\th\tcontradictory\n", "no header"),
        ("xnli", "xnli.dev.tsv", "zh\tneutral\tx\tx\tx\tx\tP\tH" + XNLI_TAIL, "no header"),
        # Another task's.
        ("sst-2", "train.tsv", COLA_ROWS, "columns 'gj04', '1', '', 'fine', as in train.tsv of cola; expected the header sentence, label; pass --task_name=cola, or the --data_dir of sst-2"),
        ("cola", "train.tsv", "sentence\tlabel\nfine\t1\n", r"as in train.tsv of sst-2; expected 4 columns without a header \(source, label, mark, sentence\); pass --task_name=sst-2"),
        ("rte", "train.tsv", "index\tquestion\tsentence\tlabel\n0\tq\ts\tentailment\n", "as in train.tsv of qnli"),
        ("rte", "train.tsv", RTE + "0\tone\ttwo\t1\n", "as in train.tsv of wnli; .* pass --task_name=wnli, or the --data_dir of rte"),
        ("mrpc", "test.tsv", RTE.replace("\tlabel", "") + "6\tone\ttwo\n", "pass --task_name=.*rte or wnli"),
        ("rte", "test.tsv", MNLI[:-1] + "\n" + MNLI_CELLS[:-1] + "\n", "as in test_matched.tsv of mnli"),
        ("cola", "test.tsv", RTE + "0\tone\ttwo\tentailment\n", "as in train.tsv of rte"),
        ("mnli", "dev_matched.tsv", XNLI + "zh\tneutral\tx\tx\tx\tx\tP\tH" + XNLI_TAIL, "as in xnli.dev.tsv of xnli"),
        ("sst-2", "train.tsv", "index\tsentence\n0\tfine\n", "as in test.tsv of sst-2 and test.tsv of cola|as in test.tsv of sst-2; .* put the task's own train.tsv there"),
        # No task's.
        ("sst-2", "train.tsv", "text\nfine\n", "1 columns, 'text'; expected the header sentence, label, for sst-2; other columns are read with --train_file, --text_column and --label_column in place"),
        ("sst-2", "test.tsv", "a\tb\tc\n0\tfine\t1\n", "3 columns, 'a', 'b', 'c'; expected the header index, sentence"),
        ("sst-2", "train.tsv", "label\ttext_a\n1\tfine\n", "2 columns, 'label', 'text_a'; expected the header sentence, label"),
        ("xnli-sw", "xnli.dev.tsv", XNLI + "zh\tneutral\tx\tx\tx\tx\tP\tH" + XNLI_TAIL, "no row of sw to use in it"),
    ],
)  # fmt: skip
def test_files_that_are_not_the_task_s(tmp_path, name, file, data, message):
    with pytest.raises(UserError) as error:
        load_task(tmp_path, name, file, data)
    path = str(tmp_path / file)
    assert re.search(f"^{path}: .*{message.replace('{path}', path)}", str(error.value))
    assert len(str(error.value).splitlines()) == 1


def test_an_unknown_header_of_the_right_width_is_told(tmp_path, caplog):
    rows = load_task(tmp_path, "mrpc", "dev.tsv", "gold\ta\tb\tfirst\tsecond\n1\t7\t8\tone\ttwo\n")
    assert rows == [("0", "one", "two", "1")]
    assert "its header is 'gold', 'a', 'b', 'first', 'second', not Quality, #1 ID" in caplog.text


def test_flags_of_own_files_do_not_go_with_a_task():
    for flags in ({"text_column": "2"}, {"labels": ["a", "b"]}, {"header": False}):
        with pytest.raises(UserError, match="is for files of your own; a task has its own"):
            load(task_name="sst-2", data_dir="x", **flags)


# --- Files of one's own ---

TWO = [("cat", "0"), ("dog", "1")]
ROWS = "cat,0\ndog,1\n"


@pytest.mark.parametrize(
    ("name", "data", "flags", "expected"),
    [
        ("a.csv", "text;label\r\ncat;0\r\ndog;1\r\n", {"delimiter": ";"}, TWO),
        ("a.txt", "text|label\ncat|0\ndog|1\n", {"delimiter": "|"}, TWO),
        ("a.csv", "text\tlabel\ncat\t0\ndog\t1\n", {"delimiter": "tab"}, TWO),
        ("a.csv", "text,label,text\ncat,0,z\ndog,1,z\n", {"text_column": "1"}, TWO),
        ("a.csv", "text,label,,\ncat,0,,\ndog,1,,\n", {}, TWO),
        ("a.csv", "text,label,note,note\ncat,0,a,b\ndog,1,a,b\n", {}, TWO),
        ("a.tsv", 'text\tlabel\n"a\nb"\t0\n"say ""hi"""\t1\n', {"quoting": True}, [("a\nb", "0"), ('say "hi"', "1")]),
        ("a.json", '[{"text": "cat", "label": 0}, {"text": "dog", "label": 1}]', {}, TWO),
        ("a.json", '\n[\n {\n  "text": "cat",\n  "label": 0\n },\n {"text": "dog", "label": 1}\n]\n', {}, TWO),
        ("a.json", '\ufeff{"text": "cat", "label": 0}\n{"text": "dog", "label": 1}\n', {}, TWO),
        ("a.jsonl", '{"text": "cat", "label": 0}\n{"text": "dog", "label": "1"}\n', {"header": False}, TWO),
        ("a.csv.gz", gzip.compress(b"\xef\xbb\xbftext,label\n" + ROWS.encode(), mtime=0), {}, TWO),
        ("a.tsv", "0\t1\ncat\t0\ndog\t1\n", {"text_column": "1", "label_column": "2"}, TWO),  # of pandas
    ],
)  # fmt: skip
def test_own_files(tmp_path, name, data, flags, expected):
    assert load_own(tmp_path / name, data, **flags) == expected


LONG = "word " * 30


@pytest.mark.parametrize(
    ("name", "data", "flags", "message"),
    [
        # Columns.
        ("a.csv", "text,label\n" + ROWS, {"text_column": "0"}, "--text_column=0: columns count from 1; pass 1 for the first"),
        ("a.csv", "text,label\n" + ROWS, {"label_column": "-1"}, "--label_column=-1: columns count from 1"),
        ("a.csv", "text,label\n" + ROWS, {"text_b_column": "-2"}, "--text_b_column=-2: columns count from 1"),
        ("a.csv", "text,label\n" + ROWS, {"id_column": "00"}, "--id_column=00: columns count from 1"),
        ("a.csv", "text,label,text\ncat,0,z\n", {}, "{path} line 1: columns 1 and 3 are both named 'text'; rename one, or pass the number of the column in place of its name"),
        ("a.jsonl", '{"text": "cat", "text": "dog", "label": 1}\n', {}, "{path} line 1: 'text' is there twice"),
        ("a.jsonl", '{"text": "cat", "label": 1}\n', {"text_column": "1"}, "{path}: no column number 1; the columns of JSON objects have names only: 'text', 'label'; pass the name"),
        ("a.tsv", "cat\t0\ndog\t1\n", {}, "{path}: no column 'label' or 'labels'; its columns: 'cat', '0'. .*--noheader that line 1 is a row"),
        ("a.tsv", "cat\t0\ndog\t1\n", {"header": False, "label_column": "x"}, "no column 'x'; its columns: 2, without a header. With --noheader columns have numbers"),
        ("a.tsv", f"{LONG}\t0\ndog\t1\n", {"text_column": "1", "label_column": "2"}, r"{path} line 1: 'word word .*\.\.\.' is no name of a column, and line 1 no header; pass --noheader if the file has none"),
        # Separators and quotes.
        ("a.csv", "text;label\r\ncat;0\r\n", {}, "{path} line 1: columns separated by semicolons, 'text;label'; expected commas; pass --delimiter=';'"),
        ("a.csv", "text;label\r\ncat;0\r\n", {"text_column": "1", "label_column": "2"}, "pass --delimiter=';'"),
        ("a.csv", "cat;0\ndog;1\n", {"header": False}, "{path}: no column number 2; its columns: 1, without a header. Are they separated by semicolons. Pass --delimiter=';'"),
        ("a.csv", "text\tlabel\ncat\t0\n", {}, "columns separated by tabs, .* pass --delimiter=tab"),
        ("a.tsv", "text,label\ncat,0\n", {}, "columns separated by commas, .* pass --delimiter=','"),
        ("a.csv", "text,label\n" + ROWS, {"delimiter": "ab"}, "--delimiter=ab: expected one character, such as ';', or tab"),
        ("a.tsv", 'text\tlabel\ncat\t0\n"two\nlines"\t1\n', {}, "{path} line 3: 1 columns, expected 2 .*. If fields stand in quotes here, pass --quoting."),
        ("a.tsv", 'text\tlabel\n"a\tb"\t0\n', {}, "{path} line 2: 3 columns, .* pass --quoting"),
        ("a.tsv", '"text"\t"label"\n"cat"\t"0"\n', {}, "{path} line 1: names in quotes, .* pass --quoting"),
        ("a.csv", "text,label\ncat,0\ndog,1,,\n", {}, r"{path} line 3: 4 columns, expected 2 \(text, label\). Remove the commas at its end."),
        ("a.csv", "text,label\ncat,0\ndog\n", {}, r"{path} line 3: 1 columns, expected 2 \(text, label\). Are its columns separated by commas"),
        # JSON.
        ("a.json", '[{"text": "cat", "label": 0},\n{"text": 5, "label": 1}]', {}, "{path} line 2: .* is 5; expected text"),
        ("a.json", '[{"text": "cat", "label": 0},\n\n{"text": "dog", "label" 1}]', {}, "{path} line 3: not JSON .*; expected an object a line, or one array of objects"),
        ("a.json", '[["cat", 0], ["dog", 1]]', {}, "{path} line 1: no JSON object"),
        ("a.jsonl", '["cat", 0]\n["dog", 1]\n', {}, "{path} line 2: not JSON .Extra data.; expected an object a line"),
        ("a.json", '{\n "text": "cat"\n}\n', {}, "{path} line 1: not JSON .*; expected an object a line, or one array of objects"),
        ("a.json", '{"text": {"0": "' + LONG + '"}, "label": {"0": 1}}\n', {}, "{path} line 1: label .*; expected a string, a number, or a list of them"),
        # Encodings and line ends.
        ("a.csv", ("text,label\n" + ROWS).encode("utf-16"), {}, "{path}: UTF-16 text; expected UTF-8 text; convert it: iconv -f UTF-16 -t UTF-8"),
        ("a.csv", codecs.BOM_UTF16_BE + "text,label\n".encode("utf-16-be"), {}, "{path}: UTF-16 text; expected UTF-8"),
        ("a.csv", ("text,label\n" + ROWS).encode("utf-16-le"), {}, "UTF-16 text without a byte-order mark; .*: iconv -f UTF-16LE -t UTF-8"),
        ("a.csv", ("text,label\n" + ROWS).encode("utf-16-be"), {}, "iconv -f UTF-16BE -t UTF-8"),
        ("a.csv", ("text,label\n" + ROWS).encode("utf-32"), {}, "UTF-32 text"),
        ("a.jsonl", '{"text": "cat", "label": 1}\n'.encode("utf-16"), {}, "UTF-16 text"),
        ("a.csv", "text,label\rcat,0\rdog,1\r", {}, r"{path}: all one line, whose parts end in carriage returns only; expected line feeds; convert it: tr '\\r' '\\n'"),
        ("a.tsv", "text\tlabel\rcat\t0\rdog\t1", {}, "carriage returns only"),
        ("a.csv", gzip.compress(b"text,label\n", mtime=0), {}, "{path}: gzip data; expected UTF-8 text; unpack it with gzip -dc, or let its name end in .gz"),
        ("a.csv", b"PK\x03\x04\x14\0\x06\0\n", {}, "{path}: a zip archive or a spreadsheet; .* save it as CSV in UTF-8"),
        # Labels.
        ("a.csv", 'text,label\ncat,"b\nz"\ndog,a\n', {}, r"{path} line 2: label 'b\\nz'; expected one without tabs and line ends"),
        ("a.jsonl", '{"text": "cat", "label": ["a", "b\\tc"]}\n', {}, r"{path} line 1: label 'b\\tc'; expected one without tabs"),
        ("a.jsonl", '{"text": "cat", "label": "a\\u2028b"}\n', {}, "{path} line 1: label .*; expected one without tabs and line ends"),
        ("a.jsonl", '{"text": "c", "label": "a"}\n{"text": "d", "label": "b"}\n{"text": "e", "label": null}\n', {}, "{path} line 3: no label, expected one of a, b"),
        ("a.jsonl", '{"text": "c", "label": ["a"]}\n{"text": "d", "label": ["b"]}\n{"text": "e", "label": null}\n', {}, "{path} line 3: no label, expected one of a, b"),
        ("a.jsonl", '{"text": "c", "label": 0.5}\n{"text": "d", "label": null}\n', {}, "{path} line 2: no label, expected a number"),
        ("a.jsonl", '{"text": "c", "label": 1}\n{"text": "d", "label": 0}\n{"text": "e", "label": NaN}\n', {}, "{path} line 3: no label, expected one of 0, 1"),
        ("a.jsonl", '{"text": "c", "label": ["a", null]}\n', {}, "{path} line 1: label .*; expected a string"),
        ("a.jsonl", '{"text": "c", "label": ["a", "b"]}\n{"text": "d", "label": "b"}\n', {"problem_type": SINGLE}, "{path} line 1: 2 labels, expected one"),
        ("a.jsonl", '{"text": "c", "label": [1]}\n', {"problem_type": REGRESSION}, "{path} line 1: label .*, expected a number"),
        ("a.csv", "text,label\n" + ROWS, {"labels": ["0", "1"], "problem_type": REGRESSION}, "--labels: --problem_type=regression has none"),
        ("a.csv", "text,label\n" + ROWS, {"labels": ["0", "1", "0"]}, "--labels=0,1,0: '0' is there twice"),
        ("a.csv", "text,label\n" + ROWS, {"labels": ["0", "a\nb"]}, r"--labels: 'a\\nb' has a tab or a line end"),
        ("a.csv", "text,label\n" + ROWS, {"labels": ["0"]}, "--labels=0: one label; expected two or more"),
    ],
)  # fmt: skip
def test_own_files_that_cannot_be_read(tmp_path, name, data, flags, message):
    path = tmp_path / name
    with pytest.raises(UserError) as error:
        load_own(path, data, **flags)
    assert re.search(message.replace("{path}", str(path)), str(error.value).splitlines()[0])


@pytest.mark.parametrize(
    ("data", "flags", "level", "message"),
    [
        ("cat\t0\ndog\t1\nfox\t0\n", {"text_column": "1", "label_column": "2"}, "WARNING", "line 1: taken for the header, though '0' in it may be a label: 'cat', '0'; pass --noheader if it is a row"),
        ("cat\t0\ndog\t1.0\nfox\t0.0\n", {"text_column": "1", "label_column": "2"}, "WARNING", "though '0' in it may be a label"),
        ("cat\t4\ndog\t2.5\nfox\t1\n", {"text_column": "1", "label_column": "2"}, "WARNING", "though '4' in it may be a label"),
        ("review\tstars\ncat\t0\ndog\t1\n", {"text_column": "1", "label_column": "2"}, "INFO", "line 1: taken for the header: 'review', 'stars'; pass --noheader if it is a row"),
        ('text\tlabel\n"say ""hi"""\t0\ndog\t1\n', {}, "WARNING", '1 fields stand in quotes with "" inside, and are taken as they stand; pass --quoting if'),
        ("text\tlabel\ncat\t0\n\ndog\t1\n", {}, "WARNING", "1 blank lines left out (lines 3)"),
        ("text\tlabel\ncat\t0.0\ndog\t1.0\n", {}, "INFO", "taken for single_label with 2 labels ('0.0', '1.0'); if it is not, pass --problem_type=multi_label or regression"),
        ("text\tlabel\ncat\t0.5\ndog\t1.0\n", {}, "INFO", "taken for regression; if it is not, pass --problem_type=single_label or multi_label"),
    ],
)  # fmt: skip
def test_what_is_told(tmp_path, caplog, data, flags, level, message):
    caplog.set_level("INFO")
    load_own(tmp_path / "a.tsv", data, **flags)
    assert [r.levelname for r in caplog.records if message in r.getMessage()] == [level]


def test_names_of_columns_confirm_a_header(tmp_path, caplog):
    caplog.set_level("INFO")
    load_own(tmp_path / "a.tsv", "text\tlabel\ncat\t0\ndog\t1\n", text_column="1")
    assert "taken for the header" not in caplog.text


@pytest.mark.parametrize(
    ("labels", "kind", "names"),
    [
        (["0.0", "1.0", "0.0"], SINGLE, ("0.0", "1.0")),
        (["2.0", "10.0", "0.0"], SINGLE, ("0.0", "2.0", "10.0")),
        (["0", "0.0", "1"], SINGLE, ("0", "1")),
        (["-1.0", "1.5"], REGRESSION, ()),
        (["1e-3", "2"], REGRESSION, ()),
        ([("good",), "bad"], MULTI, ("bad", "good")),
    ],
)
def test_kinds_of_problems(labels, kind, names):
    assert problems.infer(labels) == problems.Problem(kind, names)


def test_whole_numbers_are_one_label_in_either_spelling(tmp_path):
    (tmp_path / "dev.csv").write_text("text,label\ncat,0\ndog,1.0\n")
    (tmp_path / "train.csv").write_text("text,label\ncat,0.0\ndog,1.0\nfox,0\n")
    data = load(
        task_data.Wanted(True, True, False),
        train_file=str(tmp_path / "train.csv"),
        eval_file=str(tmp_path / "dev.csv"),
    )
    assert data.problem.labels == ("0", "1.0")
    assert [row.label for row in data.train] == ["0", "1.0", "0"]
    assert [row.label for row in data.dev[""]] == ["0", "1.0"]


def test_strings_among_lists_are_labels(tmp_path):
    rows = load_own(
        tmp_path / "a.jsonl",
        '{"text": "c", "label": "good"}\n{"text": "d", "label": ["bad", "good"]}\n{"text": "e", "label": []}\n',
    )
    assert rows == [("c", ("good",)), ("d", ("bad", "good")), ("e", ())]


def test_another_kind_than_the_model_s(tmp_path):
    path = tmp_path / "a.csv"
    load_own(path, "text,label\ncat,0\ndog,1\n")
    task_data.store(str(tmp_path), load(train_file=str(path)))
    options = DataOptions(eval_file=str(path), problem_type=MULTI)
    message = "--problem_type=multi_label, but the model was trained for single_label; leave"
    with pytest.raises(UserError, match=message):
        task_data.load(
            options.task(), options, task_data.Wanted(False, True, False), 0, [str(tmp_path)]
        )


# --- Rows keep their place ---


def load_to_predict(file, data, monkeypatch, **flags):
    if file == "-":
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    else:
        file.write_bytes(data)
    splits = task_data.Wanted(False, False, True)
    return load(splits, predict_file=str(file), labels=["a", "b"], problem_type=SINGLE, **flags)


@pytest.mark.parametrize(
    ("name", "data", "flags", "expected"),
    [
        ("-", "cat\n\ndog\n", {}, [("0", "cat"), ("1", ""), ("2", "dog")]),
        ("-", "\ufeffcat\r\n \r\ndog\r\n\r\n", {}, [("0", "cat"), ("1", ""), ("2", "dog"), ("3", "")]),
        ("-", "\ncat\tx\n\n", {"text_b_column": "2"}, [("0", ""), ("1", "cat"), ("2", "")]),
        ("a.txt", "cat\n\ndog\n", {}, [("0", "cat"), ("1", ""), ("2", "dog")]),
        ("a.tsv", "text\ncat\n\ndog\n", {}, [("0", "cat"), ("1", ""), ("2", "dog")]),
        ("a.tsv", "id\ttext\nx\tcat\n\ny\tdog\n", {"id_column": "id"}, [("x", "cat"), ("", ""), ("y", "dog")]),
        ("a.csv", "text,n\ncat,1\n,\ndog,2\n", {}, [("0", "cat"), ("1", ""), ("2", "dog")]),
        ("a.jsonl", '{"text": "cat"}\n\n{"text": "dog"}\n', {}, [("0", "cat"), ("1", ""), ("2", "dog")]),
        ("a.tsv", "text\tn\ncat\t1\nodd\ndog\t2\n", {"on_bad_row": "skip"}, [("0", "cat"), ("2", "dog")]),
    ],
)  # fmt: skip
def test_blank_lines_keep_their_place(tmp_path, name, data, flags, expected, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = name if name == "-" else tmp_path / name
    rows = load_to_predict(file, data.encode(), monkeypatch, **flags).test[""]
    assert [(row.name, row.text_a) for row in rows] == expected
    assert [row.is_blank for row in rows] == [not text for _, text in expected]


@pytest.mark.parametrize(
    ("data", "flags", "message"),
    [
        (b"cat\nd\xe9j\xe0\n", {}, "standard input line 2: not UTF-8 .byte 0xe9.; convert it with iconv"),
        ("cat\ndog\n".encode("utf-16"), {}, "standard input: UTF-16 text; expected UTF-8 text"),
        (b"cat\rdog\r", {}, "standard input: all one line"),
        (b"", {}, "standard input: no row to use in it"),
        (b"cat\tdog\ncat\n", {"text_b_column": "2"}, "standard input line 2: 1 columns, expected 2"),
        (b"cat\n", {"text_b_column": "other"}, "--predict_file=-: lines have no column 'other'; pass the two texts with a tab between them and --text_b_column=2"),
    ],
)  # fmt: skip
def test_standard_input_is_read_as_files_are(data, flags, message, monkeypatch):
    with pytest.raises(UserError, match=f"^{message}"):
        load_to_predict("-", data, monkeypatch, **flags)


def test_only_texts_to_predict_come_from_standard_input():
    with pytest.raises(UserError, match="--train_file=-: only --predict_file reads standard input"):
        load(train_file="-")


# --- A byte-order mark, everywhere ---


def test_a_byte_order_mark_is_dropped_from_every_file(tmp_path, model_dir):
    import modeling

    for name in ("vocab.txt", "bert_config.json"):
        path = model_dir / name
        path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    assert next(iter(tokenization.load_vocab(str(model_dir / "vocab.txt")))) == "[PAD]"
    config = modeling.BertConfig.from_json_file(str(model_dir / "bert_config.json"))
    assert config.hidden_size == 32
    (tmp_path / "task.json").write_text(
        '\ufeff{"problem_type": "single_label", "labels": ["a", "b"]}', encoding="utf-8"
    )
    assert task_file.read([str(tmp_path)]).labels == ("a", "b")
    convert_checkpoint.run(
        convert_checkpoint.Options(bert_dir=str(model_dir), output_dir=str(tmp_path / "hf"))
    )
    assert (tmp_path / "hf" / "vocab.txt").read_bytes().startswith(b"[PAD]\n")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_json_and_corpora_in_utf_16_are_named(tmp_path, encoding):
    path = tmp_path / "a.json"
    path.write_bytes(json.dumps({"labels": ["é"]}, ensure_ascii=False).encode(encoding))
    with pytest.raises(UserError, match=r"a.json: (UTF-16|binary)"):
        files.read_text(str(path))
    with pytest.raises(UserError, match="a.json: UTF-16"):
        list(files.read_lines_from(str(path), 0))


# --- As a user runs it ---


@pytest.mark.slow
def test_one_sentence_and_exit_code_1(tmp_path):
    (tmp_path / "train.tsv").write_text(MRPC_ROWS * 10)
    (tmp_path / "dev.tsv").write_text(MRPC_ROWS)
    result = run_stage("baselines", "--task_name=mrpc", "--data_dir=.", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stdout == ""
    assert re.fullmatch(r"error: ./train.tsv: no header, line 1 is a row: .*\n", result.stderr)
    (tmp_path / "little.tsv").write_text("cat\t0\ndog\t1\nfox\t0\nowl\t1\n")
    result = run_stage(
        "baselines", "--train_file=little.tsv", "--noheader", "--eval_split=0.5", cwd=tmp_path
    )
    assert result.returncode == 1
    assert "error: train: no characters in a row that two of 2 texts share" in result.stderr


@pytest.mark.slow
def test_predictions_and_lines_stand_side_by_side(tmp_path, model_dir, reviews):
    out = {"output_dir": tmp_path / "out", "max_seq_length": 32}
    trained = run_stage(
        "run_classifier",
        out,
        {"bert_dir": model_dir, "train_file": reviews / "train.tsv", "num_train_epochs": 1},
    )
    assert trained.returncode == 0, trained.stderr
    text = "the people rejoice\n\nthe wicked perish\n\n"
    piped = run_stage("run_classifier", out, {"predict_file": "-"}, input=text)
    assert piped.returncode == 0, piped.stderr
    assert "standard input: 2 blank lines have an empty answer (lines 2, 4)" in piped.stderr
    rows = [line.split("\t") for line in piped.stdout.splitlines()]
    assert [row[0] for row in rows] == ["0", "1", "2", "3"]
    assert rows[1][1:] == rows[3][1:] == [""] * 4
    assert all(row[1] in "01" and float(row[2]) > 0 for row in (rows[0], rows[2]))
    (tmp_path / "lines.txt").write_text(text)
    filed = run_stage("run_classifier", out, {"predict_file": tmp_path / "lines.txt"})
    assert filed.returncode == 0, filed.stderr
    _, *lines = (tmp_path / "out" / "test_predictions.tsv").read_text().splitlines()
    assert [line.split("\t") for line in lines] == rows
    results = (tmp_path / "out" / "test_results.tsv").read_text().splitlines()
    assert [line.split("\t") for line in results] == [row[2:4] for row in rows]
