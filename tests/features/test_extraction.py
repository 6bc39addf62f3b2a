"""Formats of features, words, windows, shards and resuming, neighbors and the projector."""

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import ROOT, run_stage
from hypothesis import given, settings
from hypothesis import strategies as st

import extract_features
from bert_toolkit.errors import UserError
from bert_toolkit.features import lines, writers
from bert_toolkit.io import tfrecord
from bert_toolkit.text import encoding as features_module
from bert_toolkit.text import words
from tokenization import FullTokenizer

LINES = [
    "In the beginning God created",
    "  the word ||| was with God,  un-wanted",
    "",
    "and the earth was without form and void",
    "Ünwantéd running",
]


@pytest.fixture
def extract(tmp_path, model_dir):
    """Extracts features of lines to a file of that name, which it returns."""

    def extract(name, texts=LINES, **flags):
        (tmp_path / "lines.txt").write_text("".join(f"{text}\n" for text in texts))
        out = tmp_path / name
        chosen = {"bert_dir": str(model_dir), "input_file": str(tmp_path / "lines.txt")}
        options = extract_features.Options(output_file=str(out), **{**chosen, **flags})
        assert extract_features.run(options) == len(texts)
        return out

    return extract


def rows_of(path):
    opened = gzip.open(path, "rt") if path.name.endswith(".gz") else path.open()
    with opened as reader:
        return [json.loads(line) for line in reader]


def of_json(rows, layer=0):
    """[tokens of all lines, D]."""
    return np.array([f["layers"][layer]["values"] for row in rows for f in row["features"]])


# --- Formats ---


def read_npz(path):
    return dict(np.load(path, allow_pickle=False))


def read_hdf5(path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path) as stored:
        found = {name: stored[name][:] for name in stored}
    if "tokens" in found:
        found["tokens"] = np.array([token.decode() for token in found["tokens"]])
    return found


def read_parquet(path):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(path)
    found = {"linex_index": np.array(table["linex_index"].to_pylist())}
    if "vector" in table.column_names:
        return {**found, "vector": np.array(table["vector"].to_pylist())}
    lists = {name: table[name].to_pylist() for name in table.column_names if name != "linex_index"}
    found["splits"] = np.cumsum([0, *map(len, lists["tokens"])])
    return {
        **found,
        **{name: np.array([x for row in rows for x in row]) for name, rows in lists.items()},
    }


def read_tfrecord(path):
    found = {"linex_index": [], "splits": [0]}
    for data in tfrecord.read_records(str(path)):
        feature = tf.train.Example.FromString(data).features.feature
        found["linex_index"] += feature["linex_index"].int64_list.value
        tokens = [token.decode() for token in feature["tokens"].bytes_list.value]
        found["splits"].append(found["splits"][-1] + len(tokens))
        for name in feature:
            if name == "tokens":
                values = tokens
            elif name in ("offsets", "pieces"):
                values = np.reshape(feature[name].int64_list.value, (-1, 2))
            elif feature[name].bytes_list.value:
                values = np.frombuffer(feature[name].bytes_list.value[0], np.float16)
                values = values.reshape(-1, 32)
            elif name != "linex_index":
                values = np.reshape(feature[name].float_list.value, (-1, 32))
            else:
                continue
            found.setdefault(name, []).extend(values)
    return {name: np.array(values) for name, values in found.items()}


READERS = {
    "npz": read_npz,
    "hdf5": read_hdf5,
    "parquet": read_parquet,
    "tfrecord": read_tfrecord,
}


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("ending", READERS)
def test_formats_hold_what_json_lines_hold(extract, ending, dtype):
    flags = {"layers": "-1,0,embeddings", "align": "words", "batch_size": 2, "batch_tokens": 0}
    rows = rows_of(extract("out.jsonl", **flags))
    found = READERS[ending](extract(f"out.{ending}", dtype=dtype, **flags))
    features = [feature for row in rows for feature in row["features"]]
    assert found["linex_index"].tolist() == [0, 1, 2, 3, 4]
    assert np.diff(found["splits"]).tolist() == [len(row["features"]) for row in rows]
    assert found["tokens"].tolist() == [feature["token"] for feature in features]
    for name in ("offsets", "pieces"):
        assert found[name].tolist() == [feature[name] for feature in features]
    tolerance = 1e-6 if dtype == "float32" else 2e-3
    for place, name in enumerate(("layer_-1", "layer_0", "layer_embeddings")):
        np.testing.assert_allclose(found[name], of_json(rows, place), atol=tolerance)
        if ending in ("npz", "hdf5"):
            assert found[name].dtype == dtype


@pytest.mark.slow
@pytest.mark.parametrize("ending", [*READERS, "npy"])
def test_formats_of_pooled_vectors(extract, ending):
    flags = {"layers": "-1", "pooling": "mean"}
    rows = rows_of(extract("out.jsonl.gz", **flags))
    path = extract(f"out.{ending}", **flags)
    found = np.load(path) if ending == "npy" else READERS[ending](path)["vector"]
    np.testing.assert_allclose(found, [row["vector"] for row in rows], atol=1e-6)


@pytest.mark.slow
def test_compressed_lines_are_the_same_and_so_are_their_bytes(extract):
    plain, packed = extract("a.jsonl", layers="-1"), extract("b.jsonl.gz", layers="-1")
    first = packed.read_bytes()
    assert gzip.decompress(first) == plain.read_bytes()
    assert extract("b.jsonl.gz", layers="-1").read_bytes() == first


@pytest.mark.slow
def test_parquet_of_empty_lines_has_the_same_columns(extract, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(writers, "_BYTES_AT_ONCE", 1)
    path = extract("a.parquet", ["the word", "", ""], layers="-1", align="words")
    assert parquet.read_table(path)["tokens"].to_pylist() == [["the", "word"], [], []]


# --- Order ---


@pytest.mark.parametrize("ahead", [1, 7])
def test_lines_come_out_in_their_order_however_they_are_sorted(extract, monkeypatch, ahead):
    texts = [" ".join(["god"] * (number * 37 % 50)) + f" {number}" for number in range(60)]
    flags = {"layers": "-1", "pooling": "mean", "batch_size": 4}
    expected = [
        row["vector"] for row in rows_of(extract("a.jsonl", texts, **flags, batch_tokens=0))
    ]
    monkeypatch.setattr(lines, "LINES_AHEAD", ahead)
    rows = rows_of(extract("b.jsonl", texts, **flags))
    assert [row["linex_index"] for row in rows] == list(range(60))
    np.testing.assert_allclose([row["vector"] for row in rows], expected, atol=3e-6)


# --- Words ---


@pytest.mark.slow
def test_words_are_the_mean_of_their_pieces_or_the_first(extract):
    pieces = rows_of(extract("pieces.jsonl", layers="-1"))
    for word_vector in ("mean", "first"):
        rows = rows_of(extract("words.jsonl", layers="-1", align="words", word_vector=word_vector))
        for line, row, with_pieces in zip(LINES, rows, pieces):
            states = of_json([with_pieces])
            for feature in row["features"]:
                begin, end = feature["offsets"]
                assert feature["token"] == line[begin:end]
                own = states[slice(*feature["pieces"])]
                expected = own.mean(0) if word_vector == "mean" else own[0]
                np.testing.assert_allclose(feature["layers"][0]["values"], expected, atol=2e-6)
    assert [feature["token"] for feature in rows[0]["features"]] == LINES[0].split()
    assert rows[2]["features"] == []


@pytest.mark.slow
def test_words_of_both_kinds(extract):
    def tokens(align):
        rows = rows_of(extract("out.jsonl", layers="-1", align=align))
        return [[feature["token"] for feature in row["features"]] for row in rows]

    assert tokens("words")[1] == ["the", "word", "was", "with", "God", ",", "un", "-", "wanted"]
    assert tokens("spaces")[1] == ["the", "word", "was", "with", "God,", "un-wanted"]
    assert tokens("words")[4] == ["Ünwantéd", "running"]


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab ,.é中\u0301ÀΣ\u200d\t#", max_size=30))
def test_words_cover_every_piece_once(text):
    tokenizer = _tokenizer()
    names, offsets = tokenizer.tokenize_with_offsets(text)
    for align in ("words", "spaces"):
        found = words.find_words(text, [names], [offsets], align)
        covered = [n for begin, end in found.pieces for n in range(begin, end)]
        assert covered == list(range(1, len(names) + 1))
        if align == "spaces":
            assert len(found.texts) <= len(text.split())
        else:
            assert len(found.texts) == len(tokenizer.basic_tokenizer.tokenize(text))


def _tokenizer():
    return FullTokenizer(str(ROOT / "tests/golden/vocab.txt"))


# --- Windows ---


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(4, 20), st.integers(1, 20))
def test_windows_cover_a_text_once_with_most_around_each_token(first, second, length, stride):
    tokenizer = _tokenizer()
    cls, sep = tokenizer.vocab["[CLS]"], tokenizer.vocab["[SEP]"]
    a, b = list(range(1000, 1000 + first)), list(range(2000, 2000 + second))
    encoder = features_module.SequenceEncoder(tokenizer, length, doc_stride=min(stride, length))
    windows = encoder.windows(a, b)
    kept = [n for w in windows for n in w.encoded.input_ids[w.begin : w.end]]
    if second:
        if first + second + 3 > length:
            a = a[: min(length // 2, length - 4)]
        assert kept == [cls, *a, sep, *b, sep]
    else:
        assert kept == [cls, *a, sep]
    assert all(len(window.encoded.input_ids) <= length for window in windows)
    moving = set(b or a)

    def around(window, position):
        ids = [number in moving for number in window.encoded.input_ids]
        begin, end = ids.index(True), len(ids) - 1 - ids[::-1].index(True)
        return min(position - begin, end - position)

    for window in windows:
        for position in range(window.begin, window.end):
            number = window.encoded.input_ids[position]
            if number in moving:
                elsewhere = [
                    around(other, other.encoded.input_ids.index(number))
                    for other in windows
                    if number in other.encoded.input_ids
                ]
                # The last window is short, but the text ends there.
                full = all(len(other.encoded.input_ids) == length for other in windows)
                assert not full or around(window, position) >= max(elsewhere) - 1


def test_a_long_line_in_windows(extract):
    text = " ".join(["the word was with god and the earth was void"] * 4)
    whole = rows_of(extract("a.jsonl", [text], layers="-1", max_seq_length=128))
    flags = {"max_seq_length": 16, "doc_stride": 8}
    windows = rows_of(extract("b.jsonl", [text, "god"], layers="-1", **flags))
    tokens = [[f["token"] for f in row["features"]] for row in (whole[0], windows[0])]
    assert tokens[0] == tokens[1]
    pooled = rows_of(extract("c.jsonl", [text, "god"], layers="-1", pooling="mean_max", **flags))
    for row, with_tokens in zip(pooled, windows):
        states = of_json([with_tokens])
        expected = np.append(states.mean(0), states.max(0))
        np.testing.assert_allclose(row["vector"], expected, atol=2e-6)


@pytest.mark.slow
def test_a_window_is_what_the_model_says_of_that_text(extract):
    """The first window of a long line has the vectors of that text cut."""
    text = " ".join(f"the word was with god {number}" for number in range(9))
    flags = {"layers": "-1", "max_seq_length": 16}
    [row] = rows_of(extract("a.jsonl", [text], window_stride=14, **flags))
    [cut] = rows_of(extract("b.jsonl", [text], **flags))
    np.testing.assert_allclose(of_json([row])[:15], of_json([cut])[:15], atol=2e-6)


@pytest.mark.slow
def test_special_tokens_can_be_left_out_of_the_mean(extract):
    flags = {"layers": "-1"}
    rows = rows_of(extract("a.jsonl", **flags))
    pooled = rows_of(extract("b.jsonl", pooling="mean", pool_special_tokens=False, **flags))
    for row, vector in zip(rows, pooled):
        names = [feature["token"] for feature in row["features"]]
        inside = [name not in ("[CLS]", "[SEP]") for name in names]
        expected = of_json([row])[inside].mean(0) if any(inside) else np.zeros(32)
        np.testing.assert_allclose(vector["vector"], expected, atol=2e-6)


def test_a_pipe_is_read_once(tmp_path, model_dir):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(
        target=(tmp_path / "pipe").write_text, args=["the word\nof god\n"], daemon=True
    )
    writer.start()
    options = extract_features.Options(
        input_file=str(tmp_path / "pipe"),
        output_file=str(tmp_path / "out.jsonl"),
        bert_dir=str(model_dir),
        layers="-1",
    )
    assert extract_features.run(options) == 2
    writer.join()


# --- Shards ---


def joined(tmp_path, listing="out.shards.json"):
    found = json.loads((tmp_path / listing).read_text())
    assert found["complete"]
    return b"".join((tmp_path / shard["file"]).read_bytes() for shard in found["shards"])


@pytest.mark.slow
def test_shards_are_the_whole_in_parts(extract, tmp_path):
    texts = [f"the word {number}" for number in range(7)]
    whole = extract("whole.jsonl", texts, layers="-1").read_bytes()
    extract("out.jsonl", texts, layers="-1", lines_per_shard=3)
    assert sorted(path.name for path in tmp_path.glob("out*")) == [
        "out-00000.jsonl", "out-00001.jsonl", "out-00002.jsonl", "out.shards.json",
    ]  # fmt: skip
    assert joined(tmp_path) == whole
    # A run that is there already is kept; with other flags it is not taken for one's own.
    before = (tmp_path / "out-00001.jsonl").stat().st_mtime_ns
    extract("out.jsonl", texts, layers="-1", lines_per_shard=3)
    assert (tmp_path / "out-00001.jsonl").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="was begun with layers=-1, now it is 0; use the flags"):
        extract("out.jsonl", texts, layers="0", lines_per_shard=3)
    with pytest.raises(UserError, match="was begun with format=jsonl, now it is npz"):
        extract("out.npz", texts, layers="-1", lines_per_shard=3)
    extract("out.jsonl", texts, layers="0", lines_per_shard=5, resume=False)
    assert len(list(tmp_path.glob("out-*"))) == 2


def test_an_error_leaves_the_finished_shards(tmp_path, model_dir, monkeypatch):
    monkeypatch.setattr(lines, "LINES_AHEAD", 2)
    (tmp_path / "bad.txt").write_bytes(b"the word\n" * 5 + b"d\xe9j\xe0\n")
    flags = {
        "input_file": str(tmp_path / "bad.txt"), "output_file": str(tmp_path / "out.jsonl"),
        "bert_dir": str(model_dir), "layers": "-1", "lines_per_shard": 2,
    }  # fmt: skip
    with pytest.raises(UserError, match=r"bad.txt line 6: not UTF-8"):
        extract_features.run(extract_features.Options(**flags))
    assert not list(tmp_path.glob("*unfinished*"))
    assert not json.loads((tmp_path / "out.shards.json").read_text())["complete"]
    assert [path.name for path in sorted(tmp_path.glob("out-*"))] == [
        "out-00000.jsonl",
        "out-00001.jsonl",
    ]


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path, model_dir):
    texts = "".join(f"the word was with god {number}\n" for number in range(6_000))
    (tmp_path / "lines.txt").write_text(texts)
    flags = {
        "input_file": tmp_path / "lines.txt", "output_file": tmp_path / "out.jsonl",
        "bert_dir": model_dir, "layers": -1, "lines_per_shard": 400,
    }  # fmt: skip
    command = [sys.executable, ROOT / "extract_features.py"]
    command += [f"--{name}={value}" for name, value in flags.items()]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL)
    while not (tmp_path / "out-00002.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    result = run_stage("extract_features", flags)
    assert result.returncode == 0, result.stderr
    assert "shards were finished by an earlier run" in result.stderr
    flags["output_file"] = tmp_path / "whole.jsonl"
    del flags["lines_per_shard"]
    assert run_stage("extract_features", flags).returncode == 0
    whole = rows_of(tmp_path / "whole.jsonl")
    parts = [json.loads(line) for line in joined(tmp_path).splitlines()]
    assert [row["linex_index"] for row in parts] == list(range(6_000))
    np.testing.assert_allclose(of_json(parts), of_json(whole), atol=1e-5)


# --- Neighbors and the projector ---


def test_neighbors_are_the_nearest_by_cosine(extract, tmp_path, capsys):
    queries = ["the word was with God", "void"]
    (tmp_path / "queries.txt").write_text("\n".join(queries) + "\n")
    texts = [*LINES, "the word was with god"]
    flags = {"layers": "-1", "pooling": "mean"}
    array = np.load(extract("a.npy", texts, **flags))
    extract("b.npy", texts, queries_file=str(tmp_path / "queries.txt"), num_neighbors=3, **flags)
    paragraphs = capsys.readouterr().out.strip().split("\n\n")
    np.testing.assert_allclose(np.load(tmp_path / "b.npy"), array, atol=1e-6)
    assert [paragraph.split("\n")[0] for paragraph in paragraphs] == queries
    query = np.load(extract("q.npy", queries, **flags))
    unit = array / np.linalg.norm(array, axis=1, keepdims=True)
    cosines = unit @ (query / np.linalg.norm(query, axis=1, keepdims=True)).T
    for number, paragraph in enumerate(paragraphs):
        rows = [line.split("\t") for line in paragraph.split("\n")[1:]]
        best = np.argsort(-cosines[:, number])[:3]
        assert [int(row[1]) - 1 for row in rows] == best.tolist()
        assert [float(row[0]) for row in rows] == pytest.approx(
            cosines[best, number].tolist(), abs=1e-4
        )
        assert [row[2:] for row in rows] == [[texts[n].strip()] if texts[n] else [""] for n in best]
    assert paragraphs[0].split("\n")[1].startswith("1.0000\t6\t")


def test_no_queries(extract, tmp_path):
    (tmp_path / "queries.txt").write_text("")
    with pytest.raises(UserError, match=r"--queries_file=.*: empty; expected lines of text"):
        extract("a.npy", layers="-1", pooling="mean", queries_file=str(tmp_path / "queries.txt"))


@pytest.mark.slow
def test_the_projector_has_a_point_a_line_or_a_token(extract, tmp_path):
    from google.protobuf import text_format
    from tensorboard.plugins.projector import projector_config_pb2

    folder = tmp_path / "projector"
    for flags, count in (({"pooling": "mean"}, 5), ({"align": "words"}, 24)):
        extract("a.npz", projector_dir=str(folder), layers="-1", **flags)
        vectors = np.loadtxt(folder / "vectors.tsv", delimiter="\t")
        metadata = (folder / "metadata.tsv").read_text().splitlines()
        assert vectors.shape == (count, 32)
        assert metadata[0] == "text\tline\tin"
        assert len(metadata) == count + 1
        config = text_format.Parse(
            (folder / "projector_config.pbtxt").read_text(), projector_config_pb2.ProjectorConfig()
        )
        assert config.embeddings[0].tensor_path == "vectors.tsv"
        assert config.embeddings[0].metadata_path == "metadata.tsv"
    expected = np.load(tmp_path / "a.npz")["layer_-1"]
    np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-6)
    assert metadata[1] == "In\t1\tIn the beginning God created"
    extract("a.npz", ["", "god"], projector_dir=str(folder), layers="-1", align="words")
    assert (folder / "metadata.tsv").read_text() == "text\tline\tin\ngod\t2\tgod\n"


# --- Flags that do not go together ---


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("out.jsonl", {"dtype": "float16"}, "--dtype=float16: not for JSON lines"),
        ("out.jsonl", {"align": "words", "pooling": "mean"}, "leave out --pooling"),
        ("out.jsonl", {"word_vector": "first"}, "goes with --align"),
        ("out.jsonl", {"queries_file": "lines.txt"}, "compares lines; pass --pooling"),
        ("out.jsonl", {"window_stride": 200}, "would leave out tokens between windows"),
        ("out.jsonl", {"projector_dir": "x", "layers": "0,1"}, "a token is one point"),
        ("out.jsonl", {"lines_per_shard": 2, "projector_dir": "x"}, "want all lines in one run"),
        ("out.jsonl", {"layers": "0,-1,0"}, "layer 0 is named twice"),
        ("out.npz", {"output_file": "gs://a/b.npz"}, "written on this machine only"),
        ("out.jsonl", {"pool_special_tokens": False}, "goes with --pooling=mean"),
        ("out.hdf5", {"output_file": "gs://a/b.h5"}, "written on this machine only"),
    ],
)  # fmt: skip
def test_flags_that_do_not_fit(tmp_path, model_dir, name, flags, message):
    (tmp_path / "lines.txt").write_text("a line\n")
    chosen = {
        "bert_dir": str(model_dir),
        "input_file": str(tmp_path / "lines.txt"),
        "output_file": str(tmp_path / name),
        **flags,
    }
    if "queries_file" in chosen:
        chosen["queries_file"] = str(tmp_path / "lines.txt")
    with pytest.raises(UserError, match=message):
        extract_features.run(extract_features.Options(**chosen))


def test_nothing_to_write():
    with pytest.raises(UserError, match="--output_file is required"):
        extract_features.Options(input_file="x", bert_dir="y")


@pytest.mark.parametrize(
    ("more", "shapes"),
    [
        ({}, [(2, 3), (2, 4), (1, 6)]),
        ({"batch_tokens": 12}, [(3, 4), (2, 6)]),
        # Four lines are sorted together.
        ({"batch_tokens": 12, "bytes_per_token": 4_000_000}, [(2, 3), (2, 6), (1, 4)]),
        ({"batch_tokens": 4096, "static_shapes": True}, [(2, 8), (2, 8), (2, 8)]),
    ],
    ids=["by size", "by tokens", "by memory", "static"],
)
def test_short_lines_share_a_batch(model_dir, more, shapes):
    texts = ["the word was god", "the", "the word", "word", "god was"]
    tokenizer = FullTokenizer(str(model_dir / "vocab.txt"))
    sources = [lines.SourceLine(*entry) for entry in enumerate(texts)]
    more = {"bytes_per_token": 0, **more}
    line_input = lines.LineInput("texts", sources, tokenizer, lines.Encoding(8), **more)
    found = list(line_input.batches(2))
    assert line_input.error is None
    assert [batch["input_ids"].shape for batch in found] == shapes
    numbers = np.concatenate([batch["unique_ids"] for batch in found])
    assert sorted(numbers[numbers >= 0]) == [0, 1, 2, 3, 4]
    for batch in found:
        real = batch["unique_ids"] >= 0
        assert (batch["input_mask"].sum(-1) >= 3)[real].all()
        assert not batch["input_mask"][~real].any()
        assert ((batch["input_ids"] != 0) == batch["input_mask"]).all()
