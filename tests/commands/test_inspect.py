"""bert inspect, as a user sees it."""

import numpy as np
import pytest
from conftest import GOLDEN

from bert_toolkit.commands import inspect_records
from bert_toolkit.errors import UserError
from bert_toolkit.io import tfrecord
from bert_toolkit.text import shown
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


def test_what_runs_along_a_sequence_is_shown_for_its_tokens():
    record = {
        "input_ids": [101, 7, 102, 0],
        "input_mask": [1, 1, 1, 0],
        "segment_ids": [0, 0, 1, 0],
        "label_ids": [0, 3, 0, 0],
    }
    assert list(shown.record_lines(record, {101: "[CLS]", 7: "a"})) == [
        "length     3 of 4",
        "segment 0  [CLS] a",
        "segment 1  <id 102>",
        "label_ids  0 3 0",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"input_ids": []},
        {"input_mask": [1, 1, 1]},
        {"input_mask": [1.0, 1.0]},
        {"segment_ids": [], "masked_lm_positions": [5]},
        {"masked_lm_weights": []},
        {"masked_lm_ids": [b"a"]},
    ],
)
def test_records_that_do_not_fit_together_are_listed(changes):
    record = {
        "input_ids": [1, 2],
        "input_mask": [1, 1],
        "segment_ids": [0, 0],
        "masked_lm_positions": [1],
        "masked_lm_ids": [4],
        "masked_lm_weights": [1.0],
    }
    lines = list(shown.record_lines({**record, **changes}, None))
    for name, values in changes.items():
        assert f"{name}  {shown._few(values)}" in lines
