import array
import itertools

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert_toolkit.errors import UserError
from bert_toolkit.io import tfrecord
from bert_toolkit.pretraining.schema import pretraining_schema
from bert_toolkit.tasks.classification.schema import classification_schema
from bert_toolkit.training import input_pipeline

SCHEMA = classification_schema(8)


def example(number, length=3):
    return SCHEMA.encode(
        {
            "input_ids": [number] * length,
            "input_mask": [1] * length,
            "segment_ids": [0] * length,
            "label_ids": [number % 2],
            "is_real_example": [1],
        }
    )


def write(path, count, length=3):
    writer = tfrecord.RecordWriter(str(path))
    for number in range(1, count + 1):
        writer.write(example(number, length))
    writer.close()
    return str(path)


def batches(path, reading, batch_size=4, take=None, **more):
    """The batches that an Estimator would get."""
    with tf.Graph().as_default(), tf.Session() as session:
        batch = tf.data.make_one_shot_iterator(
            input_pipeline.RecordInput([path], SCHEMA, reading, **more)({"batch_size": batch_size})
        ).get_next()
        result = []
        try:
            for _ in range(take) if take else itertools.count():
                result.append(session.run(batch))
        except tf.errors.OutOfRangeError:
            pass
        return result


@pytest.mark.parametrize("numbers", [[], [0], [1, 127, 128, 30521], [2**20, 2**31 - 1]])
def test_records_are_examples_padded_with_zeros(numbers):
    schema = tfrecord.Schema(
        (
            tfrecord.Field("a", 5),
            tfrecord.Field("b", 3, "float32"),
            tfrecord.Field("c", 1, scalar=True),
        )
    )
    data = schema.encode({"a": numbers, "b": [0.5], "c": [7]})
    feature = tf.train.Example.FromString(data).features.feature
    assert feature["a"].int64_list.value == numbers + [0] * (5 - len(numbers))
    assert feature["b"].float_list.value == [0.5, 0, 0]
    with tf.Graph().as_default(), tf.Session() as session:
        parsed = session.run(schema.parse([data]))
    assert parsed["a"].dtype == np.int32
    assert parsed["b"].shape == (1, 3)
    assert parsed["c"].shape == (1,)


LARGE = [0, 127, 128, 16383, 16384, 65535], [2**21 - 1, 2**21, 2**28, 2**32 - 1], [2**40, 2**62]


@pytest.mark.parametrize(
    ("code", "rows"),
    [
        ("H", [[], *LARGE[:1], [5], [300] * 6]),
        ("I", [*LARGE[:2], []]),
        (None, [[], *LARGE]),
        (None, [array.array("H", [5, 6]), array.array("I", [70000, 1]), [7], b"\1\2"]),
        (None, [[]]),
        (None, [np.array([3, 300]), np.array([5], np.int32)]),
        (None, []),
    ],
)
def test_records_encoded_together_hold_what_they_should(code, rows):
    schema = tfrecord.Schema((tfrecord.Field("ids", 6), tfrecord.Field("mask", 6)))
    values = [
        {"ids": array.array(code, row) if code else row, "mask": b"\1" * len(row)} for row in rows
    ]
    found = list(schema.encode_each(enumerate(values)))
    assert [number for number, _ in found] == list(range(len(rows)))
    for row, (_, record) in zip(rows, found):
        feature = tf.train.Example.FromString(record).features.feature
        rest = [0] * (6 - len(row))
        assert feature["ids"].int64_list.value == [*row, *rest]
        assert feature["mask"].int64_list.value == [1] * len(row) + rest


def test_more_records_than_are_encoded_together(monkeypatch):
    monkeypatch.setattr(tfrecord, "ENCODED_TOGETHER", 3)
    schema = tfrecord.Schema((tfrecord.Field("a", 2),))
    values = [{"a": [number, 1000 * number]} for number in range(8)]
    found = list(schema.encode_each(zip("abcdefgh", values)))
    assert found == [(key, schema.encode(value)) for key, value in zip("abcdefgh", values)]


@pytest.mark.parametrize(
    ("numbers", "error"),
    [
        ([3, -1], ValueError),
        ([1.5], TypeError),
        (np.array([1.5]), TypeError),
        (array.array("f", [1.5]), TypeError),
        ("1", TypeError),
    ],
)
def test_what_is_no_count_is_refused(numbers, error):
    with pytest.raises(error):
        tfrecord.Schema((tfrecord.Field("a", 2),)).encode({"a": numbers})


def test_tensorflow_reads_our_files_and_we_read_its(tmp_path):
    ours = write(tmp_path / "ours", 5)
    expected = [example(number) for number in range(1, 6)]
    assert list(tf.data.TFRecordDataset(ours).as_numpy_iterator()) == expected
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for data in expected:
            writer.write(data)
    assert list(tfrecord.read_records(str(tmp_path / "theirs"))) == expected
    assert tfrecord.count_records([ours, str(tmp_path / "theirs")]) == 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-1], "record 3: cut short"),
        (lambda data: data[:-100], "record 3: cut short"),
        (lambda data: data[: len(data) // 3 + 5], "record 2: cut short or damaged"),
        (lambda data: data[:60] + b"?" + data[61:], "record 1: damaged"),
        (lambda data: b"sentence\tlabel\n" * 9, "record 1: not a TFRecord file"),
    ],
    ids=["last byte", "last record", "header", "flipped", "text"],
)
def test_damage_is_named_by_file_and_record(tmp_path, change, message):
    path = tmp_path / "data"
    write(path, 3)
    path.write_bytes(change(path.read_bytes()))
    assert message in tfrecord.first_damage([str(path)])
    assert str(path) in tfrecord.first_damage([str(path)])


@pytest.mark.parametrize(
    ("made", "asked", "note", "message"),
    [
        (
            8,
            16,
            None,
            "--max_seq_length=16, but input_ids in .* has 8 values. Pass --max_seq_length=8",
        ),
        (8, 16, {"max_seq_length": 8}, "--max_seq_length=16, but .* was made with 8"),
        (8, 8, {"vocab_size": 50}, "a vocabulary of 50 entries"),
        (8, 8, {"bytes": 5}, "cut short or replaced"),
        (8, 8, {"records": 0}, "holds no record"),
    ],
)
def test_data_is_checked_against_the_flags(tmp_path, made, asked, note, message):
    path = write(tmp_path / "data", 2)
    if note:
        (tmp_path / "data.json").write_text(tfrecord.note_text(note))
    with pytest.raises(UserError, match=message):
        tfrecord.check_data([path], classification_schema(asked), 10)


def test_data_without_a_note_is_checked_by_its_first_record(tmp_path):
    path = write(tmp_path / "data", 2)
    tfrecord.check_data([path], SCHEMA, 2)
    with pytest.raises(UserError, match="token id 1, but the model's config says 1 entries"):
        tfrecord.check_data([path], SCHEMA, 1)
    with pytest.raises(UserError, match="no 'masked_lm_positions'.*made for another stage"):
        tfrecord.check_data([path], pretraining_schema(8, 2), 10)
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(UserError, match="empty; expected TFRecord data"):
        tfrecord.check_data([str(tmp_path / "empty")], SCHEMA, 10)
    (tmp_path / "data.json").write_text("no json")
    with pytest.raises(UserError, match=r"data.json: not JSON"):
        tfrecord.check_data([path], SCHEMA, 10)


def test_reading_once_loses_no_record(tmp_path):
    path = write(tmp_path / "data", 10)
    plain = batches(path, input_pipeline.Reading(repeat=False))
    assert [len(batch["label_ids"]) for batch in plain] == [4, 4, 2]
    static = batches(path, input_pipeline.Reading(repeat=False, static_shapes=True))
    assert [batch["input_ids"].shape for batch in static] == [(4, 8)] * 3
    real = np.concatenate([batch["input_ids"][batch["is_real_example"] == 1] for batch in static])
    assert real[:, 0].tolist() == list(range(1, 11))
    full = batches(
        write(tmp_path / "eight", 8), input_pipeline.Reading(repeat=False, static_shapes=True)
    )
    assert len(full) == 2


@pytest.mark.parametrize("sizes", [[10], [1] * 10, [5, 3, 2], [1, 2, 7]])
def test_batches_have_the_sizes_that_are_asked_for(tmp_path, sizes):
    path = write(tmp_path / "data", 10)
    found = batches(path, input_pipeline.Reading(repeat=False), batch_sizes=sizes)
    assert [len(batch["label_ids"]) for batch in found] == sizes
    ids = np.concatenate([batch["input_ids"] for batch in found])
    assert ids[:, 0].tolist() == list(range(1, 11))


def test_training_shuffles_all_records_in_each_pass_by_the_seed(tmp_path):
    path = write(tmp_path / "data", 200)

    def order(seed):
        read = batches(
            path,
            input_pipeline.Reading(repeat=True, shuffle_buffer=200, seed=seed),
            batch_size=50,
            take=8,
        )
        return np.concatenate([batch["input_ids"][:, 0] for batch in read])

    first = order(1)
    assert sorted(first[:200]) == sorted(first[200:]) == list(range(1, 201))
    assert first[:200].tolist() != first[200:].tolist()
    assert first.tolist() == order(1).tolist() != order(2).tolist()
    # A buffer of 100 would never draw one of the second half first.
    assert sum(first[:20] > 100) > 3


def test_batches_are_cut_after_their_longest_sequence(tmp_path):
    path = tmp_path / "data"
    writer = tfrecord.RecordWriter(str(path))
    for length in (2, 5, 3):
        writer.write(example(9, length))
    writer.close()
    (batch,) = batches(str(path), input_pipeline.Reading(repeat=False))
    assert (
        batch["input_ids"].shape
        == batch["input_mask"].shape
        == batch["segment_ids"].shape
        == (3, 5)
    )
    assert batch["input_mask"].sum(axis=1).tolist() == [2, 5, 3]
