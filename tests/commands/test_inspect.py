"""bert inspect, as a user sees it."""

import numpy as np
import pytest
from conftest import GOLDEN

from bert_toolkit.commands import inspect_records
from bert_toolkit.errors import UserError
from bert_toolkit.io import tfrecord
from tokenization import FullTokenizer

VOCAB = str(GOLDEN / "vocab.txt")


def show(capsys, path, **more):
    inspect_records.run(inspect_records.Options(input_file=str(path), **more))
    return capsys.readouterr().out.splitlines()


def test_pretraining_data_with_tokens(pretraining_data, capsys):
    """Put together again, the first record is the text it was made of."""
    lines = show(capsys, pretraining_data, vocab_file=VOCAB, num_records=1)
    assert lines[0].startswith(f"{pretraining_data}: made_by create_pretraining_data, vocab_file ")
    assert "max_seq_length 128" in lines[0]
    assert lines[1] == "record 1"
    first, second = lines[3].split(), lines[4].split()
    assert first[:3] == ["segment", "0", "[CLS]"]
    assert second[:2] == ["segment", "1"]
    tokens = first[2:] + second[2:]
    assert tokens.count("[SEP]") == 2
    assert lines[2] == f"  length     {len(tokens)} of 128"
    label, _, masked = lines[5].partition(": ")
    pairs = masked.split("), ")
    assert label.split() == ["masked", str(len(pairs)), "of", "at", "most", "20"]
    vocabulary = FullTokenizer(VOCAB).vocab
    for pair in pairs:
        place, token, _, reads = pair.rstrip(")").replace("(reads ", "reads ").split(" ")
        assert token in vocabulary
        assert tokens[int(place)] == reads
    assert lines[6].split()[0] == "next_sentence_labels"
    assert len(lines) == 7


def test_without_a_vocabulary_ids_are_shown(pretraining_data, capsys):
    tokens = show(capsys, pretraining_data, vocab_file=VOCAB, num_records=2)
    ids = show(capsys, pretraining_data, num_records=2)
    vocabulary = FullTokenizer(VOCAB).vocab
    expected = [str(vocabulary[token]) for token in tokens[3].split()[2:]]
    assert ids[3].split()[2:] == expected
    assert [line for line in ids if line.startswith("record")] == ["record 1", "record 2"]


def test_other_features_are_listed(tmp_path, capsys):
    path = str(tmp_path / "features")
    with tfrecord.RecordWriter(path) as writer:
        arrays = {"layer_-1": np.arange(12, dtype=np.float32) / 8, "tokens": [b"a", b"\xc3\xa9"]}
        writer.write(tfrecord.example(arrays))
    assert show(capsys, path) == [
        f"{path}: no note beside it",
        "record 1",
        "  layer_-1  0 0.125 0.25 0.375 0.5 0.625 0.75 0.875 ... (12 values)",
        "  tokens  a \u00e9",
    ]


def test_what_is_no_data_is_named(tmp_path):
    (tmp_path / "text").write_text("no records at all\n")
    with pytest.raises(UserError, match="text record 1: not a TFRecord file"):
        inspect_records.run(inspect_records.Options(input_file=str(tmp_path / "text")))
    with pytest.raises(UserError, match="--input_file.*nothing"):
        inspect_records.run(inspect_records.Options(input_file=str(tmp_path / "nothing*")))
