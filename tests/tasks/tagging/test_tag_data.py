"""Files of tagged sentences, what is wrong with them, and windows that lose no word."""

import gzip
import json

import numpy as np
import pytest
from conftest import GOLDEN

import run_token_classifier
from bert_toolkit.errors import UserError
from bert_toolkit.problems import TAGGING
from bert_toolkit.tasks.bad_rows import BadRows
from bert_toolkit.tasks.finetune import Actions
from bert_toolkit.tasks.tagging import data, formats
from bert_toolkit.tasks.tagging.words import WordEncoder, join
from tokenization import FullTokenizer

IOB2 = "In\tO\nUr\tB-LOC\n\nAbram\tB-PER\nwent\tO\n"
TOKENIZER = FullTokenizer(str(GOLDEN / "vocab.txt"))


def load(tmp_path, text, name="train.conll", predict=None, **flags):
    """Returns the data of a run that trains on a file of this text, or predicts one."""
    path = tmp_path / name
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    used = {"predict_file" if predict else "train_file": str(path), "output_dir": str(tmp_path)}
    options = run_token_classifier.Options(**{**used, **flags})
    actions = Actions(*options.actions())
    return data.load(options, actions, TOKENIZER, [str(tmp_path)])


def tags_of(found):
    return [" ".join(sentence.tags) for sentence in found.train]


WANTED = ["O B-LOC", "B-PER O"]


@pytest.mark.parametrize(
    ("name", "text", "flags"),
    [
        ("a.conll", IOB2, {}),
        ("a.bio", IOB2.replace("\t", " "), {}),
        ("train.txt", IOB2.replace("\n", "\r\n"), {}),
        ("a.conll", "-DOCSTART- -X- O O\n\n" + IOB2.replace("\t", " NN x "), {}),
        ("a.conll", "-DOCSTART-\tO\n" + IOB2 + "\n\n-DOCSTART-\tO\n\n", {}),
        ("a.conll", IOB2.replace("\n\n", "\n\t\n"), {}),
        ("a.conllu", "# sent_id = 1\n" + IOB2.replace("\n\n", "\n\n# text = Abram went\n"), {}),
        ("a.conll", "1\tO\tIn\n2\tB-LOC\tUr\n\n1\tB-PER\tAbram\n2\tO\twent\n", {"word_column": 3, "tag_column": 2}),
        ("a.conll", "O In\nB-LOC Ur\n\nB-PER Abram\nO went", {"word_column": -1, "tag_column": 1}),
        ("a.conll", IOB2.replace("B-", "I-"), {}),
        ("a.conll", IOB2.replace("B-", "S-"), {}),
        ("a.conll", IOB2.replace("B-", "U-"), {}),
        ("a.jsonl", '{"tokens": ["In", "Ur"], "tags": ["O", "B-LOC"]}\n\n{"words": ["Abram", "went"], "tags": ["I-PER", "O"]}\n', {}),
        ("a.json", '[{"tokens": ["In", "Ur"], "ner_tags": [0, 1]}, {"tokens": ["Abram", "went"], "ner_tags": [2, 0]}]', {"labels": ["O", "B-LOC", "B-PER"]}),
    ],
)  # fmt: skip
def test_formats(tmp_path, name, text, flags):
    found = load(tmp_path, text, name, **flags)
    assert [sentence.words for sentence in found.train] == [("In", "Ur"), ("Abram", "went")]
    assert tags_of(found) == WANTED
    assert set(found.model.problem.labels) == {"O", "B-LOC", "I-LOC", "B-PER", "I-PER"}
    assert found.model.problem.kind == TAGGING


def test_numbers_are_tags_though_the_first_sentence_is_empty(tmp_path):
    text = '{"tokens": [], "ner_tags": []}\n{"tokens": ["In", "Ur"], "ner_tags": [0, 1]}\n'
    found = load(tmp_path, text, "b.jsonl", labels=["O", "B-LOC"])
    assert list(found.train[1].tags) == ["O", "B-LOC"]


def test_gzip_and_a_byte_order_mark(tmp_path):
    text = gzip.compress(b"\xef\xbb\xbf" + IOB2.encode())
    assert tags_of(load(tmp_path, text, "a.conll.gz")) == WANTED


@pytest.mark.parametrize(
    "features",
    [
        {"ner_tags": {"feature": {"names": ["O", "B-LOC", "B-PER"], "_type": "ClassLabel"}}},
        {"tags": [{"names": ["O", "B-LOC", "B-PER"]}]},
    ],
)
def test_names_of_tags_from_the_data_set(tmp_path, features):
    rows = '{"tokens": ["In", "Ur"], "ner_tags": [0, 1]}\n{"tokens": ["Abram", "went"], "ner_tags": [2, 0]}\n'
    (tmp_path / "dataset_info.json").write_text(json.dumps({"features": features}))
    assert tags_of(load(tmp_path, rows, "a.jsonl")) == WANTED


def test_schemes_are_kept_or_converted(tmp_path, caplog):
    bioes = "In\tO\nUr\tB-LOC\nland\tE-LOC\n"
    assert tags_of(load(tmp_path, bioes)) == ["O B-LOC I-LOC"]
    found = load(tmp_path, bioes, scheme="bioes")
    assert tags_of(found) == ["O B-LOC E-LOC"]
    assert found.model.problem.labels == ("O", "B-LOC", "I-LOC", "E-LOC", "S-LOC")
    assert tags_of(load(tmp_path, bioes, scheme="iob1")) == ["O I-LOC I-LOC"]


def test_labels_keep_their_order(tmp_path):
    labels = ["B-PER", "I-PER", "O", "I-LOC", "B-LOC"]
    assert load(tmp_path, IOB2, labels=labels).model.problem.labels == tuple(labels)


ERRORS = [
    ("a.conll", IOB2.replace("B-PER", "PER"), {}, "a.conll line 4: tag 'PER' has no prefix; expected O, or B- or I- and a type"),
    ("a.conll", IOB2.replace("B-PER", "X-PER"), {}, "a.conll line 4: tag 'X-PER'; expected O, or B-, I-, E- or S- and a type"),
    ("a.conll", IOB2.replace("B-PER", "B-"), {}, "a.conll line 4: tag 'B-'; expected O"),
    ("a.conll", IOB2.replace("went\tO", "went\tO\tO"), {}, "a.conll line 5: 3 columns, separated by tabs; expected 2, as in line 1"),
    ("a.conll", "In O\nUr B-LOC\n\nAbram\n", {}, "a.conll line 4: 1 column, separated by spaces; expected 2, as in line 1"),
    ("a.conll", "", {}, "a.conll: no sentence in it; expected a word and its tag a line"),
    ("a.conll", "-DOCSTART- O\n\n", {}, "a.conll: no sentence in it"),
    ("a.jsonl", "", {}, 'a.jsonl: no sentence in it; expected a {"tokens": '),
    ("a.conll", "In\nUr\n", {}, "a.conll line 1: one column; expected a word and its tag"),
    ("a.conll", IOB2, {"tag_column": 3}, "--tag_column=3: .*a.conll line 1 has 2 columns, separated by tabs; pass one from 1 to 2"),
    ("a.conll", IOB2, {"tag_column": 1}, "a.conll line 1: --word_column=1 and --tag_column=1 are the same of its 2 columns"),
    ("a.conll", IOB2.replace("B-PER", "O").replace("B-LOC", "O"), {}, "a.conll: every word has the tag O; .*is --tag_column right"),
    ("a.conll", IOB2, {"labels": ["O", "B-LOC", "I-LOC"]}, "a.conll line 4: tag B-PER; expected one of 'O', 'B-LOC', 'I-LOC'"),
    ("a.conll", b"In\tO\nU\xe9\tO\n", {}, r"a.conll line 2: not UTF-8 \(byte 0xe9\)"),
    ("a.jsonl", '{"tokens": ["a", "b"], "tags": ["O"]}', {}, "a.jsonl line 1: 2 tokens, but 1 tags; expected a tag for each"),
    ("a.jsonl", '{"text": "a b"}', {}, "a.jsonl line 1: no tokens or words in it; it has 'text'"),
    ("a.jsonl", '{"tokens": ["a"]}', {}, "a.jsonl line 1: no tags or ner_tags in it; it has 'tokens'"),
    ("a.jsonl", '{"tokens": "a", "tags": ["O"]}', {}, "a.jsonl line 1: tokens is 'a'; expected a list"),
    ("a.jsonl", '{"tokens": [1], "tags": ["O"]}', {}, "a.jsonl line 1: token 1; expected a string"),
    ("a.jsonl", '{"tokens": ["a"], "tags": [[0]]}', {}, r"a.jsonl line 1: tag \[0\]; expected O"),
    ("a.jsonl", '{"tokens": ["a"], "ner_tags": [3]}', {}, "a.jsonl: its tags are numbers, whose names are not known; pass them in order: --labels"),
    ("a.jsonl", '{"tokens": ["a"], "ner_tags": [3]}', {"labels": ["O", "B-A"]}, "a.jsonl line 1: tag 3; expected a number from 0 to 1"),
    ("a.conll", None, {}, "a.conll: no such file"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "flags", "message"), ERRORS)
def test_errors(tmp_path, name, text, flags, message):
    with pytest.raises(UserError, match=message):
        load(tmp_path, text, name, **flags)
    assert [path.name for path in tmp_path.iterdir() if path.name != name] == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({}, "--train_file, --eval_file or --predict_file is required"),
        ({"train_file": "-"}, "--train_file=-: only --predict_file reads standard input"),
        ({"train_file": "x", "do_predict": True}, "--do_predict: --predict_file is required"),
        ({"eval_file": "x", "do_train": True}, "--do_train: --train_file is required"),
        ({"train_file": "x", "tag_column": 0}, "--tag_column=0: columns count from 1"),
        ({"train_file": "x", "labels": ["O", "PER"]}, "--labels: 'PER' is no tag"),
        ({"train_file": "x", "labels": ["O", "O"]}, "--labels=O,O: 'O' is there twice"),
        ({"train_file": "x", "doc_stride": 99, "max_seq_length": 32}, "--doc_stride=99 would leave out"),
    ],
)  # fmt: skip
def test_flags_that_do_not_go_together(flags, message):
    with pytest.raises(UserError, match=message):
        run_token_classifier.Options(output_dir="out", **flags)


def test_bad_sentences_are_left_out_and_listed(tmp_path):
    text = IOB2 + "\nx\tO\ty\n\nz\tPER\n"
    found = load(tmp_path, text, on_bad_row="skip")
    assert tags_of(found) == WANTED
    rows = (tmp_path / "bad_rows.tsv").read_text().splitlines()
    assert [row.split("\t")[1] for row in rows] == ["line", "7", "9"]
    with pytest.raises(UserError) as error:
        load(tmp_path, text)
    assert [line.split(": ")[0][-6:] for line in str(error.value).splitlines()] == [
        "line 7",
        "line 9",
    ]


def test_evaluation_needs_known_tags(tmp_path):
    (tmp_path / "dev.conll").write_text("Ur\tB-ORG\n")
    with pytest.raises(
        UserError, match="dev.conll line 1: tag B-ORG; expected one of 'O', 'B-LOC'"
    ):
        load(tmp_path, IOB2, eval_file=str(tmp_path / "dev.conll"))
    with pytest.raises(UserError, match="the tags are not known: --output_dir holds no model"):
        load(tmp_path, "a b", "x.txt", predict=True)


def test_dev_sentences_are_divided_off(tmp_path):
    rows = "\n".join(f"Ur\tB-LOC\n{number}\tO\n" for number in range(10))
    found = load(tmp_path, rows, eval_split=0.2)
    assert (len(found.train), len(found.dev)) == (8, 2)
    words = {sentence.words for sentence in [*found.train, *found.dev]}
    assert len(words) == 10
    again = load(tmp_path, rows, eval_split=0.2)
    assert again.dev == found.dev


# --- Windows ---


def windows_of(words, length, stride):
    return WordEncoder(TOKENIZER, length, stride).encode(words)


@pytest.mark.parametrize("length", [8, 9, 16, 33])
@pytest.mark.parametrize("stride", [0, 1, 3, 6])
def test_every_word_is_in_one_window_by_its_first_piece(length, stride):
    random = np.random.default_rng(length + stride)
    vocabulary = ["the", "word", "Nebuchadnezzar", "\u200b", " ", "unbelievablenesses", ",", "x"]
    for count in (0, 1, 5, 40, 90):
        words = [vocabulary[number] for number in random.integers(0, len(vocabulary), count)]
        parts = windows_of(words, length, stride)
        numbers = [part.first_word + n for part in parts for n in range(len(part.places))]
        assert sorted(numbers) == list(range(count))
        for part in parts:
            assert len(part.encoded.input_ids) <= length
            for number, place in enumerate(part.places, part.first_word):
                first = (TOKENIZER.encode(words[number]) or [TOKENIZER.vocab["[UNK]"]])[0]
                assert part.encoded.input_ids[place] == first
        outputs = [
            (part.first_word, np.array([[part.first_word + n] for n in range(len(part.places))]))
            for part in parts
            if part.places
        ]
        assert join(outputs, count, 1)[:, 0].tolist() == list(range(count))


def test_a_word_in_windows_has_context_on_both_sides():
    parts = windows_of(["the"] * 60, 16, 0)
    assert len(parts) > 4
    for part in parts[1:-1]:
        assert min(part.places) - 1 >= 2
        assert len(part.encoded.input_ids) - 1 - max(part.places) >= 2


def test_plain_text_has_words_with_their_characters(tmp_path):
    layout = formats.Layout(format=formats.TEXT, tagged=False)
    path = tmp_path / "a.txt"
    text = "  Nebuchadnezzar's well-known Öl\u200b, at Ur."
    path.write_text(f"{text}\n\n", encoding="utf-8")
    [sentence, empty] = formats.read(str(path), layout, TOKENIZER, BadRows(False)).sentences
    assert [text[begin:end] for begin, end in sentence.offsets] == list(sentence.words)
    assert sentence.words[:3] == ("Nebuchadnezzar", "'", "s")
    assert sentence.words[-2:] == ("Ur", ".")
    assert (empty.words, empty.source) == ((), "")


def test_rows_to_evaluate_on_are_never_trained_on(tmp_path):
    """Nor without an evaluation; and --split_seed keeps the division whatever --seed is."""
    text = "\n\n".join(f"word{n}\t{'B-X' if n % 2 else 'O'}" for n in range(20)) + "\n"
    both = {"eval_split": 0.3, "do_train": True}
    alone = load(tmp_path, text, **both)
    assert (len(alone.train), alone.dev) == (14, None)
    whole = load(tmp_path, text, do_eval=True, **both)
    assert (whole.train, len(whole.dev)) == (alone.train, 6)
    other = load(tmp_path, text, do_eval=True, seed=7, **both)
    assert other.dev != whole.dev
    kept = load(
        tmp_path, text, do_eval=True, seed=7, split_seed=run_token_classifier.Options.seed, **both
    )
    assert kept.dev == whole.dev
