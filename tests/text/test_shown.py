"""--show_examples: what stages show is what their records hold, in the published form."""

import itertools

import numpy as np
import pytest
from conftest import GOLDEN
from stage_runs import classification, extraction

import create_pretraining_data
import extract_features
from bert_toolkit.io import tfrecord
from bert_toolkit.problems import SINGLE, Problem
from bert_toolkit.tasks import encoded
from bert_toolkit.tasks.classification.classification import Classification
from bert_toolkit.tasks.classification.lessons import Lesson
from bert_toolkit.tasks.classification.task_data import Data, Example
from bert_toolkit.text import shown
from tokenization import FullTokenizer

VOCAB = str(GOLDEN / "vocab.txt")


@pytest.fixture(autouse=True)
def _show_logs(caplog):
    caplog.set_level("INFO")


def examples_in(caplog):
    """Returns what was shown: name -> text, of each example."""
    texts = [record.getMessage() for record in caplog.records]
    return [
        dict(line.split(": ", 1) for line in text.splitlines()[1:])
        for text in texts
        if text.startswith("*** Example ***\n")
    ]


def numbers(text):
    return [float(number) for number in text.split()]


@pytest.mark.parametrize("shards", [None, 2])
def test_pretraining_data(tmp_path, caplog, shards):
    path = tmp_path / "data"
    create_pretraining_data.run(
        create_pretraining_data.Options(
            input_file=str(GOLDEN / "corpus.txt"),
            output_file=str(path),
            vocab_file=VOCAB,
            dupe_factor=1,
            num_shards=shards,
            show_examples=3,
        )
    )
    found = examples_in(caplog)
    assert len(found) == 3
    path = path if shards is None else tmp_path / "data-00000-of-00002"
    tokens = FullTokenizer(VOCAB).inv_vocab
    for example, data in zip(found, itertools.islice(tfrecord.read_records(str(path)), 3)):
        values = shown.values_of(tfrecord.features_of(data, "record"))
        assert {name: numbers(example[name]) for name in values} == values
        real = [tokens[n] for n in values["input_ids"] if n]
        assert example["tokens"] == " ".join(real)
        assert list(example)[:4] == ["tokens", "input_ids", "input_mask", "segment_ids"]


def test_examples_of_a_task(tmp_path, reviews, model_dir, caplog):
    """Text and label beside what the model reads, padded; no more examples than asked for."""
    tokenizer = FullTokenizer(VOCAB)
    problem = Problem(SINGLE, ("bad", "good"))
    rows = [Example(str(n), f"joy  and\npeace {n}", None, "good", n + 2) for n in range(4)]
    options = classification(tmp_path, reviews, model_dir, do_train=True, max_seq_length=8)
    task = Classification(Data(problem, "accuracy", rows, {}, {}), options, tokenizer)
    encoded.write(str(tmp_path / "a"), "train", task, rows, tokenizer, by_length=True, shown=2)
    first, second = examples_in(caplog)
    assert second["name"] == "1"
    assert first["split"] == "train"
    assert first["text_a"] == "joy and peace 0"
    assert (first["label"], first["label_ids"]) == ("good", "1")
    assert "text_b" not in first
    assert first["tokens"].split()[0] == "[CLS]"
    assert first["input_ids"].split()[0] == str(tokenizer.vocab["[CLS]"])
    length = len(first["tokens"].split())
    assert numbers(first["input_mask"]) == [1] * length + [0] * (8 - length)


def test_lines_to_extract_features_of(tmp_path, model_dir, caplog):
    options = extraction(tmp_path, model_dir, "the word\ngod ||| joy\npeace\n", show_examples=2)
    extract_features.run(options)
    first, second = examples_in(caplog)
    assert (first["line"], first["text"]) == ("1", "the word")
    assert first["tokens"] == "[CLS] the word [SEP]"
    assert second["segment_ids"].split()[-1] == "1"


def test_ids_outside_the_vocabulary_and_numbers():
    record = {"input_ids": [7, 0], "input_mask": [1, 0], "label_ids": [0.30000001192092896]}
    assert [*shown._example_lines(record, {}, [])] == [
        "*** Example ***",
        "tokens: <id 7>",
        "input_ids: 7 0",
        "input_mask: 1 0",
        "label_ids: 0.3",
    ]


def test_examples_to_learn_from_a_teacher():
    lesson = Lesson(Example("7", "a text", None, "good", 9), np.array([0.5, -0.5]))
    assert shown.facts_of(lesson) == [
        ("name", "7"),
        ("text_a", "a text"),
        ("label", "good"),
        ("line", 9),
    ]
