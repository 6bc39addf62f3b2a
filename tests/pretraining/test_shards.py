"""Sharded creation: the same data for any number of workers, in bounded memory, resumable."""

import gzip
import hashlib
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from conftest import GOLDEN, ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

import create_pretraining_data as stage
from bert_toolkit.errors import UserError
from bert_toolkit.io import files, tfrecord
from bert_toolkit.pretraining import corpus, forecast

CORPUS, VOCAB = GOLDEN / "corpus.txt", GOLDEN / "vocab.txt"


def options(tmp_path, **flags):
    return stage.Options(
        **{
            "input_file": str(CORPUS),
            "output_file": str(tmp_path / "out" / "data"),
            "vocab_file": str(VOCAB),
            "num_shards": 3,
            "dupe_factor": 2,
            **flags,
        }
    )


def digests(directory):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.iterdir())
        if path.suffix != ".json"
    }


# --- Dividing a corpus ---


LINES = st.sampled_from(
    ["\n", " \n", "\u3000\n", "a\n", "bb b\n", "\u4e2d\u6587\n", "x" * 30 + "\n"]
)
FILES = st.lists(st.lists(LINES, max_size=8).map("".join), min_size=1, max_size=4)


def documents_of(lines):
    documents = [[]]
    for line in lines:
        if line.strip():
            documents[-1].append(line)
        else:
            documents.append([])
    return [document for document in documents if document]


@settings(max_examples=300, deadline=None)
@given(texts=FILES, count=st.integers(1, 12), cut_last_newline=st.booleans())
def test_spans_hold_every_document_once_and_in_order(
    tmp_path_factory, texts, count, cut_last_newline
):
    directory = tmp_path_factory.mktemp("corpus")
    paths = []
    for index, text in enumerate(texts):
        if cut_last_newline:
            text = text.removesuffix("\n")
        (directory / f"{index}.txt").write_bytes(text.encode())
        paths.append(str(directory / f"{index}.txt"))
    text = corpus.Corpus.of(paths)
    found = [document for span in text.spans(count) for document in documents_of(text.lines(span))]
    assert found == documents_of(corpus.whole_lines(paths))


def test_bytes_that_are_no_text_are_told_with_their_place(tmp_path):
    path = tmp_path / "in.txt"
    path.write_bytes(b"fine\n\nd\xe9j\xe0\n\nmore\n")
    with pytest.raises(UserError, match=r"in\.txt at byte 7: not UTF-8 \(byte 0xe9\)"):
        stage.run(options(tmp_path, input_file=str(path)))
    assert not list(tmp_path.glob("out/*unfinished*"))


# --- Making shards ---


def test_the_number_of_workers_changes_nothing(tmp_path):
    found = []
    for workers in (1, 2, 3):
        output = tmp_path / str(workers) / "data"
        summary = stage.run(options(tmp_path, output_file=str(output), num_workers=workers))
        found.append((digests(output.parent), summary))
    assert found[0] == found[1] == found[2]
    assert list(found[0][0]) == [f"data-0000{index}-of-00003" for index in range(3)]
    assert found[0][1].documents == 24
    assert found[0][1].sentences == 200


def test_one_shard_is_the_published_way(tmp_path):
    stage.run(options(tmp_path, num_shards=1))
    stage.run(options(tmp_path, num_shards=None, output_file=str(tmp_path / "out" / "other")))
    assert len(set(digests(tmp_path / "out").values())) == 1


def test_shards_repetitions_and_seeds_differ(tmp_path):
    stage.run(options(tmp_path))
    first = digests(tmp_path / "out")
    stage.run(options(tmp_path, random_seed=1))
    second = digests(tmp_path / "out")
    assert len({*first.values(), *second.values()}) == 6
    (tmp_path / "twice.txt").write_text("a b c d e f g\n\nh i j k l m n\n")
    stage.run(options(tmp_path, input_file=str(tmp_path / "twice.txt"), num_shards=2))
    for name in digests(tmp_path / "out"):
        instances = list(tfrecord.read_records(str(tmp_path / "out" / name)))
        assert len(instances) == len(set(instances))


def test_notes_of_shards_count_their_own(tmp_path):
    summary = stage.run(options(tmp_path))
    notes = [tfrecord.read_note(str(tmp_path / "out" / name)) for name in digests(tmp_path / "out")]
    assert [note["shard"] for note in notes] == [0, 1, 2]
    assert sum(note["records"] for note in notes) == summary.instances
    assert sum(note["summary"]["documents"] for note in notes) == 24


def test_compressed_text_is_divided_too(tmp_path):
    stage.run(options(tmp_path))
    plain = digests(tmp_path / "out")
    (tmp_path / "in.txt.gz").write_bytes(gzip.compress(CORPUS.read_bytes()))
    stage.run(options(tmp_path, input_file=str(tmp_path / "in.txt.gz")))
    assert digests(tmp_path / "out") == plain  # and the unpacked copy is gone


def test_a_large_corpus_is_divided_unasked(tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "LARGEST_SINGLE_SHARD", 10_000)
    monkeypatch.setattr(stage, "SHARD_SIZE", CORPUS.stat().st_size // 3 + 1)
    stage.run(options(tmp_path, num_shards=None))
    assert len(digests(tmp_path / "out")) == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_too_little_text_for_shards(tmp_path, workers, caplog):
    (tmp_path / "in.txt").write_text("one\ntwo\n")
    with pytest.raises(UserError, match="one document only"):
        stage.run(options(tmp_path, input_file=str(tmp_path / "in.txt"), num_workers=workers))
    assert not list(tmp_path.glob("out/*"))
    (tmp_path / "in.txt").write_text("one\ntwo\n\nthree\nfour\n")
    stage.run(options(tmp_path, input_file=str(tmp_path / "in.txt"), num_workers=workers))
    assert "3 of 3 shards hold fewer than two documents" in caplog.text


def test_resuming_keeps_what_is_finished_and_the_same(tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")
    stage.run(options(tmp_path))
    whole = digests(tmp_path / "out")
    first, second, third = (tmp_path / "out" / name for name in whole)
    first.unlink()
    second.write_bytes(second.read_bytes()[:-5])
    before = third.stat().st_mtime_ns
    stage.run(options(tmp_path, resume=True))
    assert digests(tmp_path / "out") == whole
    assert third.stat().st_mtime_ns == before
    assert "1 of 3 shards were finished by an earlier run" in caplog.text
    stage.run(options(tmp_path, resume=True, max_seq_length=64))
    assert "0 of 3 shards were finished by an earlier run" in caplog.text


def write_large(path, documents):
    chance = random.Random(3)
    sentences = [line for line in CORPUS.read_text().split("\n") if line]
    with open(path, "w") as writer:
        for _ in range(documents):
            writer.writelines(f"{chance.choice(sentences)}\n" for _ in range(20))
            writer.write("\n")


def start(tmp_path, *flags):
    command = [
        sys.executable,
        ROOT / "create_pretraining_data.py",
        f"--input_file={tmp_path / 'large.txt'}",
        f"--vocab_file={VOCAB}",
        f"--output_file={tmp_path / 'out' / 'data'}",
        "--num_shards=6",
        "--num_workers=2",
        "--dupe_factor=3",
        *flags,
    ]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as reader:
        pids = [int(child) for child in reader.read().split()]
    names = {child: open(f"/proc/{child}/cmdline").read() for child in pids}
    return [child for child in pids if "spawn_main" in names[child]]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_a_killed_worker_is_told_with_its_shard_and_the_rest_goes_on_later(tmp_path):
    write_large(tmp_path / "large.txt", 900)
    out = tmp_path / "out"
    process = start(tmp_path)
    wait_for(lambda: out.exists() and list(out.glob("*.json")))
    wait_for(lambda: list(out.glob("*unfinished*")))
    os.kill(children(process.pid)[0], signal.SIGKILL)
    assert process.wait(60) == 1
    error = process.stderr.read().splitlines()[-1]
    assert error.startswith("error: shard ")
    assert "was killed by SIGKILL" in error
    assert "--resume" in error
    assert not list(out.glob("*unfinished*"))
    finished = digests(out)
    assert 0 < len(finished) < 6
    again = start(tmp_path, "--resume")
    assert f"{len(finished)} of 6 shards were finished" in again.communicate(timeout=120)[1]
    resumed = digests(out)
    assert len(resumed) == 6
    assert start(tmp_path, "--num_workers=1").wait(120) == 0
    assert digests(out) == resumed


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_leaves_whole_shards_only(tmp_path, sent):
    write_large(tmp_path / "large.txt", 900)
    out = tmp_path / "out"
    process = start(tmp_path)
    wait_for(lambda: out.exists() and list(out.glob("*.json")))
    wait_for(lambda: list(out.glob("*unfinished*")))
    workers = children(process.pid)
    process.send_signal(sent)
    process.wait(60)
    wait_for(lambda: not any(os.path.exists(f"/proc/{worker}") for worker in workers))
    assert start(tmp_path, "--resume").wait(120) == 0
    assert not list(out.glob("*unfinished*"))
    assert len(digests(out)) == 6


# --- Looking before running ---


@pytest.mark.parametrize("packed", [False, True])
def test_a_dry_run_foretells_the_truth_and_writes_nothing(tmp_path, monkeypatch, packed):
    monkeypatch.setattr(forecast, "SAMPLE_BYTES", 2000)
    path = tmp_path / "large.txt"
    write_large(path, 300)
    if packed:
        (tmp_path / "large.txt.gz").write_bytes(gzip.compress(path.read_bytes()))
        path = tmp_path / "large.txt.gz"
    chosen = options(tmp_path, input_file=str(path), num_shards=None)
    foretold = stage.run(stage.dataclasses.replace(chosen, dry_run=True))
    assert not (tmp_path / "out").exists()
    made = stage.run(chosen)
    for name, value in stage.dataclasses.asdict(made).items():
        if name != "unknown_tokens":
            assert getattr(foretold, name) == pytest.approx(value, rel=0.1), name


def test_a_dry_run_of_a_small_text_counts_it_all(tmp_path):
    foretold = stage.run(options(tmp_path, dry_run=True))
    assert (foretold.documents, foretold.sentences) == (24, 200)


def test_leftovers_of_dead_processes_only_are_removed(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    dead = subprocess.Popen(["true"])
    dead.wait()
    name = str(out / "data-00000-of-00003")
    for process in (dead.pid, os.getpid()):
        open(files.unfinished_name(name, process), "w").close()
    stage.run(options(tmp_path, num_workers=2))
    left = [path.name for path in out.glob("*unfinished*")]
    assert left == [os.path.basename(files.unfinished_name(name, os.getpid()))]
