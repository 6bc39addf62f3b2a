"""Vocabularies: made from text, and extended with words."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import GOLDEN, ROOT, run_stage

import extract_features
import tokenization
from bert_toolkit.checkpoints import checkpoint_files
from bert_toolkit.commands import build_vocab, extend_vocab
from bert_toolkit.errors import UserError

CORPUS = str(GOLDEN / "corpus.txt")


def build(tmp_path, **flags):
    path = tmp_path / "new" / "vocab.txt"
    chosen = {"input_file": CORPUS, "vocab_size": 600, "num_unused": 10, **flags}
    return path, build_vocab.run(build_vocab.Options(output_file=str(path), **chosen))


def test_a_vocabulary_that_the_loader_takes(tmp_path):
    path, covered = build(tmp_path, never_split=["[E1]"])
    tokens = path.read_text().split("\n")[:-1]
    assert tokens[:7] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[E1]", "[unused0]"]
    assert len(tokens) == len(set(tokens)) == 600
    tokenizer = tokenization.FullTokenizer(str(path), never_split=["[E1]"])
    assert tokenizer.tokenize("[E1] the Word") == ["[E1]", "the", "word"]
    assert tokenization.vocabulary_problems(str(path)) == []
    assert covered["unknown_tokens"] < 0.01
    assert 1 < covered["tokens_per_word"] < 2.5
    assert covered["words"] > 10


def test_the_same_text_gives_the_same_vocabulary(tmp_path):
    first = build(tmp_path)[0].read_bytes()
    assert build(tmp_path)[0].read_bytes() == first


def test_text_is_cut_as_by_the_tokenizer(tmp_path):
    text = "\ufeff\u00c9l\u00e8ve\u200bs \u4e2d\u6587, don't\x01 \u00c9l\u00e8ves\n" * 9
    (tmp_path / "in.txt").write_text(text)
    flags = {"input_file": str(tmp_path / "in.txt"), "vocab_size": 100, "num_unused": 0}
    entries = build(tmp_path, **flags)[0].read_text().split()
    assert "eleves" in entries
    assert "\u4e2d" in entries
    assert "\u4e2d\u6587" not in entries
    cased = build(tmp_path, do_lower_case=False, **flags)[0]
    assert "\u00c9l\u00e8ves" in cased.read_text().split()
    rules = json.loads((cased.parent / "tokenizer_config.json").read_text())
    assert rules["do_lower_case"] is False
    whole = build(tmp_path, tokenize_chinese_chars=False, **flags)[0].read_text().split()
    assert "\u4e2d\u6587" in whole


def test_the_stages_follow_the_rules_beside_a_vocabulary(tmp_path):
    vocab, _ = build(tmp_path, do_lower_case=False)
    flags = {"input_file": CORPUS, "output_file": tmp_path / "data", "vocab_file": vocab}
    assert run_stage("create_pretraining_data", flags).returncode == 0
    assert json.loads((tmp_path / "data.json").read_text())["do_lower_case"] is False
    failed = run_stage("create_pretraining_data", flags, "--do_lower_case=true")
    assert failed.returncode == 1
    assert "--do_lower_case=True, but the tokenizer_config.json beside" in failed.stderr


def test_held_out_text(tmp_path, caplog):
    (tmp_path / "held.txt").write_text("\u2603 the word\n")
    _, covered = build(tmp_path, heldout_file=str(tmp_path / "held.txt"))
    assert covered["words"] == 3
    assert covered["unknown_tokens"] == pytest.approx(1 / 3)
    build(tmp_path, vocab_size=30000)
    assert "30,000 were asked for" in caplog.text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"vocab_size": 100, "num_unused": 100}, "105 entries are special or unused"),
        ({"vocab_size": 110, "num_unused": 80}, "entries are taken by special tokens"),
        ({"never_split": ["[CLS]"]}, "--never_split: each once"),
        ({"input_file": "nowhere"}, "no file matches"),
    ],
)
def test_mistakes_in_building(tmp_path, flags, message):
    with pytest.raises(UserError, match=message):
        build(tmp_path, **flags)


def test_no_text_is_an_error(tmp_path):
    (tmp_path / "in.txt").write_text("\n \n")
    with pytest.raises(UserError, match="no text in it"):
        build(tmp_path, input_file=str(tmp_path / "in.txt"))
    assert not list(tmp_path.glob("new/*"))


# --- Extending a model ---


def extend(tmp_path, model_dir, words=None, **flags):
    if words is not None:
        (tmp_path / "words.txt").write_text("\n".join(words) + "\n")
        flags["words_file"] = str(tmp_path / "words.txt")
    directory = tmp_path / "extended"
    found = extend_vocab.run(
        extend_vocab.Options(bert_dir=str(model_dir), output_dir=str(directory), **flags)
    )
    return directory, found


@pytest.fixture
def with_unused(model_dir):
    """The golden model with two entries made unused."""
    tokens = (model_dir / "vocab.txt").read_text().split("\n")[:-1]
    tokens[3000:3002] = ["[unused0]", "[unused1]"]
    (model_dir / "vocab.txt").write_text("\n".join(tokens) + "\n")
    return model_dir


NEW = ["Wordsworth", "godfather", "don't", "the", "beginners", "Wordsworth"]


def test_words_fill_unused_entries_and_then_new_rows(tmp_path, with_unused, caplog):
    before = tokenization.FullTokenizer(str(with_unused / "vocab.txt"))
    directory, found = extend(tmp_path, with_unused, NEW)
    assert sorted(found.pieces) == [3000, 3001, 4000]
    assert "don't: left out, as it is cut at punctuation" in caplog.text
    after = tokenization.FullTokenizer(str(directory / "vocab.txt"))
    assert after.encode("WORDSWORTH godfather beginners the") == [
        3000,
        3001,
        4000,
        before.vocab["the"],
    ]
    old = checkpoint_files.read(str(with_unused / "bert_model.ckpt"))
    new = checkpoint_files.read(str(directory / "bert_model.ckpt"))
    assert sorted(old) == sorted(new)
    for name in (extend_vocab.EMBEDDINGS, extend_vocab.OUTPUT_BIAS):
        assert len(new[name]) == 4001
        for place, word in ((3000, "wordsworth"), (3001, "godfather"), (4000, "beginners")):
            expected = old[name][before.encode(word)].mean(axis=0)
            np.testing.assert_allclose(new[name][place], expected, rtol=1e-6)
        kept = np.setdiff1d(np.arange(4000), [3000, 3001])
        assert (new[name][kept] == old[name][kept]).all()
    assert json.loads((directory / "bert_config.json").read_text())["vocab_size"] == 4001


def test_unused_entries_can_be_left_alone(tmp_path, with_unused):
    _, found = extend(tmp_path, with_unused, NEW, fill_unused=False)
    assert sorted(found.pieces) == [4000, 4001, 4002]


def test_the_extended_model_is_complete(tmp_path, with_unused):
    directory, _ = extend(tmp_path, with_unused, NEW)
    (tmp_path / "in.txt").write_text("Wordsworth the beginners\n")
    extract_features.run(
        extract_features.Options(
            bert_dir=str(directory),
            input_file=str(tmp_path / "in.txt"),
            output_file=str(tmp_path / "out.jsonl"),
            layers="-1",
        )
    )
    line = json.loads((tmp_path / "out.jsonl").read_text())
    tokens = [feature["token"] for feature in line["features"]]
    assert tokens == ["[CLS]", "wordsworth", "the", "beginners", "[SEP]"]


def test_words_are_found_in_text(tmp_path, with_unused):
    tokenizer = tokenization.FullTokenizer(str(with_unused / "vocab.txt"))
    (tmp_path / "in.txt").write_text("zymurgical the zymurgical quixotically\n" * 6 + "rarewordy\n")
    assert len(tokenizer.encode("zymurgical")) >= 3
    _, found = extend(
        tmp_path, with_unused, input_file=str(tmp_path / "in.txt"), min_frequency=5, num_words=2
    )
    assert [found.tokens[place] for place in sorted(found.pieces)] == ["zymurgical", "quixotically"]


def test_mistakes_in_extending(tmp_path, with_unused):
    with pytest.raises(UserError, match="one of them only"):
        extend(tmp_path, with_unused)
    with pytest.raises(UserError, match="no word to add"):
        extend(tmp_path, with_unused, ["the"])
    extend(tmp_path, with_unused, NEW)
    with pytest.raises(UserError, match="holds a model already"):
        extend(tmp_path, with_unused, NEW)
    assert tf.train.latest_checkpoint(str(with_unused)) is None


def test_building_does_not_import_tensorflow():
    code = "import sys, bert_toolkit.commands.build_vocab; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
