import collections
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import tensorflow.compat.v1 as tf
from conftest import GOLDEN, ROOT, run_stage

import create_pretraining_data as stage
import tokenization
from bert_toolkit.errors import UserError
from bert_toolkit.io import tfrecord
from bert_toolkit.pretraining import masking

CORPUS, VOCAB = GOLDEN / "corpus.txt", GOLDEN / "vocab.txt"
FLAG_SETS = ["default", "whole_word", "short", "dense_masks", "two_outputs"]


def options(tmp_path, **flags):
    return stage.Options(
        **{
            "input_file": str(CORPUS),
            "output_file": str(tmp_path / "out.tfrecord"),
            "vocab_file": str(VOCAB),
            **flags,
        }
    )


def read_instances(path):
    """Reads a file with TensorFlow, as the published scripts would, in the form of the golden values."""
    instances = []
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        values = {
            name: list(feature.int64_list.value or feature.float_list.value)
            for name, feature in tf.train.Example.FromString(record).features.feature.items()
        }
        length, predictions = sum(values["input_mask"]), int(sum(values["masked_lm_weights"]))
        assert not any(values["input_ids"][length:])
        assert not any(values["masked_lm_ids"][predictions:])
        instances.append(
            {
                "length": length,
                "input_ids": values["input_ids"][:length],
                "first_segment": values["segment_ids"][:length].count(0),
                "masked_lm_positions": values["masked_lm_positions"][:predictions],
                "masked_lm_ids": values["masked_lm_ids"][:predictions],
                "next_sentence_label": values["next_sentence_labels"][0],
            }
        )
    return instances


@pytest.mark.parametrize("name", FLAG_SETS)
@pytest.mark.platform
def test_instances_are_the_published_ones(name, tmp_path, golden_instances):
    case = golden_instances[name]
    paths = [tmp_path / f"{index}.tfrecord" for index in range(len(case["files"]))]
    stage.run(options(tmp_path, output_file=",".join(map(str, paths)), **case["flags"]))
    assert [read_instances(path) for path in paths] == case["files"]


def test_lists_patterns_and_gzip_give_the_same_data(tmp_path):
    text = CORPUS.read_bytes()
    half = text.index(b"\n\n", len(text) // 2) + 2
    (tmp_path / "a.txt").write_bytes(text[:half])
    with gzip.open(tmp_path / "b.txt.gz", "wb") as writer:
        writer.write(text[half:])
    outputs = []
    for inputs in (CORPUS, f"{tmp_path}/a.txt,{tmp_path}/b.txt.gz", f"{tmp_path}/*.txt*"):
        stage.run(options(tmp_path, input_file=str(inputs)))
        outputs.append((tmp_path / "out.tfrecord").read_bytes())
    assert outputs[0] == outputs[1] == outputs[2]


def test_a_note_and_a_summary_tell_what_was_made(tmp_path):
    path = tmp_path / "new" / "directory" / "out.tfrecord"
    summary = stage.run(options(tmp_path, output_file=str(path), dupe_factor=1))
    note = tfrecord.read_note(str(path))
    instances = read_instances(path)
    assert note["records"] == summary.instances == len(instances)
    assert note["bytes"] == path.stat().st_size == summary.bytes
    assert note["max_seq_length"] == 128
    assert note["vocab_size"] == 4000
    assert (summary.documents, summary.sentences) == (24, 200)
    assert summary.instance_tokens == sum(instance["length"] for instance in instances)
    assert summary.random_next == sum(instance["next_sentence_label"] for instance in instances)


def test_unknown_tokens_are_counted(tmp_path):
    (tmp_path / "in.txt").write_text("the word \u2603\n\n\u2603 \u2603\n")
    summary = stage.run(options(tmp_path, input_file=str(tmp_path / "in.txt")))
    assert summary.unknown_tokens == 3


@pytest.mark.parametrize(
    ("texts", "flags", "warning"),
    [
        (["a b\n\nc d\n"], {}, "every document has one sentence"),
        (["a b\nc\n\nc d", "e f\n"], {}, "0.txt ends without a blank line"),
        (
            ["a b\nc\n\nc d"],
            {"max_predictions_per_seq": 5},
            "--max_predictions_per_seq=5 limits masking",
        ),
    ],
)
def test_what_looks_wrong_is_said(tmp_path, caplog, texts, flags, warning):
    for index, text in enumerate(texts):
        (tmp_path / f"{index}.txt").write_text(text)
    stage.run(options(tmp_path, input_file=f"{tmp_path}/*.txt", **flags))
    assert warning in caplog.text


BAD_INPUTS = {
    "missing": (None, "no file matches"),
    "empty": (b"", "no text in it"),
    "blank": (b"\n \n\n", "no text in it"),
    "binary": (b"\0\1\2 binary\n", "line 1: binary data"),
    "latin-1": (b"fine\n\nd\xe9j\xe0\n", "line 3: not UTF-8 \\(byte 0xe9\\)"),
    "one document": (b"one\ntwo\n", "one document only"),
}


@pytest.mark.parametrize("kind", BAD_INPUTS)
def test_bad_text(tmp_path, kind):
    content, message = BAD_INPUTS[kind]
    if content is not None:
        (tmp_path / "in.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        stage.run(options(tmp_path, input_file=str(tmp_path / "in.txt")))
    assert not list(tmp_path.glob("out*"))


def test_broken_gzip(tmp_path):
    (tmp_path / "in.gz").write_bytes(gzip.compress(CORPUS.read_bytes())[:2000])
    with pytest.raises(UserError, match="broken gzip data"):
        stage.run(options(tmp_path, input_file=str(tmp_path / "in.gz")))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"output_file": "a,a"}, "each once"),
        ({"vocab_file": ""}, "--vocab_file is required"),
        ({"vocab_file": "nowhere"}, "--vocab_file=nowhere: no such file"),
        ({"input_file": str(GOLDEN)}, "a directory; expected a file"),
        ({"output_file": str(GOLDEN)}, "a directory; expected the name of a file"),
    ],
)
def test_bad_flags(tmp_path, flags, message):
    with pytest.raises(UserError, match=message):
        stage.run(options(tmp_path, **flags))


def test_the_command_line(tmp_path):
    flags = {"input_file": CORPUS, "output_file": tmp_path / "o.tfrecord", "vocab_file": VOCAB}
    result = run_stage("create_pretraining_data", flags)
    assert result.returncode == 0, result.stderr
    assert "24 documents, 200 sentences" in result.stderr
    assert result.stdout == ""
    failed = run_stage("create_pretraining_data", {**flags, "vocab_file": CORPUS})
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: ")
    assert "no [UNK], [CLS], [SEP], [MASK]" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert (
        "Traceback"
        in run_stage("create_pretraining_data", {**flags, "vocab_file": CORPUS}, "--debug").stderr
    )


def test_the_stage_does_not_import_tensorflow(tmp_path):
    code = (
        "import sys, create_pretraining_data as s\n"
        f"s.run(s.Options(input_file={str(CORPUS)!r}, output_file={str(tmp_path / 'o')!r},"
        f" vocab_file={str(VOCAB)!r}))\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_leaves_nothing_half_written(tmp_path, sent, code):
    (tmp_path / "out.tfrecord").write_text("what was there before")
    command = [
        sys.executable,
        ROOT / "create_pretraining_data.py",
        f"--input_file={CORPUS}",
        "--dupe_factor=100000",
    ]
    command += [f"--vocab_file={VOCAB}", f"--output_file={tmp_path / 'out.tfrecord'}"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert "reading" in process.stderr.readline()
    time.sleep(0.5)
    process.send_signal(sent)
    assert process.wait(30) == code
    assert "stopped before the end" in process.stderr.read()
    assert [path.name for path in tmp_path.iterdir()] == ["out.tfrecord"]
    assert (tmp_path / "out.tfrecord").read_text() == "what was there before"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
def test_a_full_disk_is_an_error_and_loses_nothing(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", disk], check=False
    ).returncode:
        pytest.skip("cannot mount a tmpfs here")
    try:
        (disk / "out.tfrecord").write_text("what was there before")
        with pytest.raises(UserError, match="No space left on device"):
            stage.run(options(tmp_path, output_file=str(disk / "out.tfrecord")))
        assert [path.name for path in disk.iterdir()] == ["out.tfrecord"]
        assert (disk / "out.tfrecord").read_text() == "what was there before"
    finally:
        subprocess.run(["umount", disk], check=True)


# --- Masking ---


@pytest.fixture(scope="module")
def vocabulary():
    return masking.Vocabulary(tokenization.FullTokenizer(str(VOCAB)))


def make(vocabulary, seed=1, **changes):
    """Instances of 200 documents of random tokens, and those documents."""
    words = random.Random(0)
    documents = [
        [[words.randrange(60, 4000) for _ in range(words.randrange(1, 40))] for _ in range(20)]
        for _ in range(200)
    ]
    settings = masking.Settings(
        **{
            "max_seq_length": 128,
            "max_predictions_per_seq": 20,
            "masked_lm_prob": 0.15,
            "short_seq_prob": 0.1,
            "dupe_factor": 4,
            "do_whole_word_mask": False,
            **changes,
        }
    )
    rngs = [random.Random(seed)] * settings.dupe_factor
    return list(masking.create_instances(documents, vocabulary, settings, rngs))


@pytest.mark.slow
def test_masks_are_80_10_10(vocabulary):
    counts = collections.Counter()
    for instance in make(
        vocabulary, dupe_factor=60, max_predictions_per_seq=40, masked_lm_prob=0.2
    ):
        for position, original in zip(instance.masked_positions, instance.masked_ids):
            now = instance.input_ids[position]
            counts[
                "mask" if now == vocabulary.mask else "same" if now == original else "random"
            ] += 1
    total = sum(counts.values())
    assert total > 100_000
    for kind, share in (("mask", 0.8), ("same", 0.1), ("random", 0.1)):
        assert counts[kind] / total == pytest.approx(share, abs=0.01)


def test_limits_of_an_instance(vocabulary):
    for instance in make(vocabulary):
        length = len(instance.input_ids)
        assert length <= 128
        assert len(instance.masked_positions) == min(20, max(1, round(length * 0.15)))
        assert list(instance.masked_positions) == sorted(set(instance.masked_positions))
        assert instance.input_ids[0] == vocabulary.cls
        assert (
            instance.input_ids[instance.first_segment - 1]
            == vocabulary.sep
            == instance.input_ids[-1]
        )
        masked = set(instance.masked_positions)
        untouched = [
            token for position, token in enumerate(instance.input_ids) if position not in masked
        ]
        assert untouched.count(vocabulary.sep) == 2


def test_whole_words_are_masked_together(vocabulary):
    for instance in make(vocabulary, do_whole_word_mask=True):
        original = list(instance.input_ids)
        for position, token in zip(instance.masked_positions, instance.masked_ids):
            original[position] = token
        masked = set(instance.masked_positions)
        special = {0, instance.first_segment - 1, len(original) - 1}
        for position in range(2, len(original)):
            if (
                original[position] in vocabulary.inside_words
                and not {position, position - 1} & special
            ):
                assert (position in masked) == (position - 1 in masked)


def test_seed_decides(vocabulary):
    assert make(vocabulary) == make(vocabulary)
    assert make(vocabulary) != make(vocabulary, seed=2)


def test_notes_do_not_count_as_data(tmp_path):
    stage.run(options(tmp_path))
    from bert_toolkit.io import files

    assert json.loads((tmp_path / "out.tfrecord.json").read_text())["records"] == 910
    assert files.expand_inputs(f"{tmp_path}/out*", "input_file") == [str(tmp_path / "out.tfrecord")]
