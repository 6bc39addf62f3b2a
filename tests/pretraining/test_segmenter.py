"""Words of Chinese: found by the segmenter, masked together, without another change of the data."""

import sys

import pytest
from conftest import run_stage
from hypothesis import given, settings
from hypothesis import strategies as st

import create_pretraining_data as stage
import tokenization
from bert_toolkit.errors import UserError
from bert_toolkit.io import tfrecord
from bert_toolkit.text import segmenters

# The first three are examples of jieba's own README, with the words it says they have.
SENTENCES = [
    "我 来到 北京 清华大学",
    "他 来到 了 网易 杭研 大厦",
    "小明 硕士 毕业 于 中国科学院 计算所 ， 后 在 日本京都大学 深造",
    "北京 下雨 ， 大家 买 T恤",
    "Debian 的 文件系统 unwanted",
]
# The pieces of what is not Chinese; all else is a token a character.
PIECES = {"Debian": 2, "unwanted": 3}
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "de", "##bian", "un", "##want", "##ed", "t"]


def text_of(sentence):
    """The sentence as it is written, without spaces."""
    return sentence.replace(" ", "")


def lengths_of(sentence):
    """The number of tokens of each word, by hand."""
    return [PIECES.get(word, len(word)) for word in sentence.split()]


@pytest.fixture
def vocab_file(tmp_path):
    characters = sorted({char for text in SENTENCES for char in text if not char.isascii()})
    path = tmp_path / "vocab.txt"
    path.write_text("".join(f"{token}\n" for token in [*VOCAB, *characters]), encoding="utf-8")
    return str(path)


@pytest.fixture
def text_file(tmp_path):
    """Each sentence a document of its own, 40 times."""
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join([text_of(text) for text in SENTENCES] * 40), encoding="utf-8")
    return str(path)


def make(tmp_path, vocab_file, text_file, name="data", **flags):
    """Makes single segments, so that a sequence is a sentence; returns the features by record."""
    path = str(tmp_path / name)
    stage.run(
        stage.Options(
            **{
                "input_file": text_file,
                "vocab_file": vocab_file,
                "output_file": path,
                "use_next_sentence": False,
                "short_seq_prob": 0.0,
                "dupe_factor": 3,
                "masked_lm_prob": 0.4,
                **flags,
            }
        )
    )
    return [
        {
            key: list(feature.int64_list.value or feature.float_list.value)
            for key, feature in tfrecord.features_of(data, path).items()
        }
        for data in tfrecord.read_records(path)
    ]


def tokens_of(features):
    """The tokens of a record as they were before they were masked, [CLS] and [SEP] apart."""
    ids = list(features["input_ids"])
    if "masked_lm_ids" in features:
        names = ("masked_lm_positions", "masked_lm_ids", "masked_lm_weights")
        for place, token, weight in zip(*map(features.get, names)):
            ids[place] = token if weight else ids[place]
    return tuple(ids[1 : sum(features["input_mask"]) - 1])


def masked_of(features):
    places = zip(features["masked_lm_positions"], features["masked_lm_weights"])
    return {place for place, weight in places if weight}


@pytest.fixture
def lengths_by_tokens(vocab_file):
    tokenizer = tokenization.FullTokenizer(vocab_file)
    return {
        tuple(tokenizer.encode(text_of(sentence))): lengths_of(sentence) for sentence in SENTENCES
    }


def parts_of_words(records, lengths_by_tokens):
    """Counts the words that are masked as a whole, and those of which a part is masked."""
    whole = in_part = 0
    for features in records:
        lengths = lengths_by_tokens[tokens_of(features)]
        assert sum(lengths) == len(tokens_of(features))
        masked, start = masked_of(features), 1
        for length in lengths:
            inside = masked & set(range(start, start + length))
            whole += len(inside) == length
            in_part += 0 < len(inside) < length
            start += length
    return whole, in_part


def test_no_word_is_masked_in_part(tmp_path, vocab_file, text_file, lengths_by_tokens):
    pytest.importorskip("rjieba")
    records = make(tmp_path, vocab_file, text_file, segmenter="jieba")
    assert len(records) == 3 * 40 * len(SENTENCES)
    whole, in_part = parts_of_words(records, lengths_by_tokens)
    assert in_part == 0
    assert whole > 500
    # The characters of words without the segmenter, also when the pieces of words stay together.
    plain = make(tmp_path, vocab_file, text_file, "plain", do_whole_word_mask=True)
    assert parts_of_words(plain, lengths_by_tokens)[1] > 500


def test_only_the_words_are_others(tmp_path, vocab_file, text_file, lengths_by_tokens):
    """The text, its order and its tokens are the same; masks that are chosen later show it."""
    pytest.importorskip("rjieba")
    flags = {"static_masks": False, "do_whole_word_mask": True}
    records = make(tmp_path, vocab_file, text_file, segmenter="jieba", **flags)
    plain = make(tmp_path, vocab_file, text_file, "plain", **flags)
    for features, without in zip(records, plain):
        lengths = lengths_by_tokens[tokens_of(features)]
        starts = [int(place == 0) for length in lengths for place in range(length)]
        padding = len(features["input_ids"]) - len(starts) - 2
        assert features.pop("word_starts") == [0, *starts, 0, *[0] * padding]
        without.pop("word_starts")
        assert features == without


def test_a_segment_that_begins_inside_of_a_word_has_a_word_of_its_own(tmp_path, vocab_file):
    """Long documents are cut anywhere; what is masked together stands together."""
    pytest.importorskip("rjieba")
    text = tmp_path / "long.txt"
    lines = "\n".join(map(text_of, SENTENCES))
    text.write_text("\n\n".join([lines] * 20), encoding="utf-8")
    flags = {"use_next_sentence": True, "static_masks": False, "max_seq_length": 14}
    records = make(tmp_path, vocab_file, str(text), segmenter="jieba", **flags)
    for features in records:
        second = features["segment_ids"].index(1)
        assert features["word_starts"][1] == features["word_starts"][second] == 1


def test_workers_segment_too(tmp_path, vocab_file, text_file):
    pytest.importorskip("rjieba")
    found = []
    for workers in (1, 2):
        flags = {"num_shards": 2, "num_workers": workers, "output_file": f"{tmp_path}/{workers}"}
        stage.run(
            stage.Options(input_file=text_file, vocab_file=vocab_file, segmenter="jieba", **flags)
        )
        paths = [f"{tmp_path}/{workers}-0000{index}-of-00002" for index in range(2)]
        found.append([list(tfrecord.read_records(path)) for path in paths])
        assert {tfrecord.read_note(path)["segmenter"] for path in paths} == {"jieba"}
    assert found[0] == found[1]


CHARACTERS = st.sampled_from(
    "我来到北京清华大学aB.\u00e9\u03a3\u0301\u200b\u3000 \t\x1c\ufffd-9%\uf900\U00020000\u3042T恤"
)


@settings(max_examples=200, deadline=None)
@given(text=st.text(CHARACTERS, max_size=30))
def test_tokens_of_any_text_are_the_same(tmp_path_factory, text):
    pytest.importorskip("rjieba")
    vocab = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    entries = [*VOCAB, "a", "##b", "b", ".", "e", "我", "北", "京", "9"]
    vocab.write_text("".join(f"{token}\n" for token in entries), encoding="utf-8")
    tokenizer = tokenization.FullTokenizer(str(vocab))
    ids, inside = segmenters.WordMarker(tokenizer, "jieba").encode(text)
    assert ids == tokenizer.encode(text)
    assert len(inside) == len(ids)
    assert not any(inside[:1])


def test_a_missing_package_is_told_before_the_work(tmp_path, vocab_file, text_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "rjieba", None)
    message = r"--segmenter=jieba needs rjieba \(.*\); pip install 'bert-toolkit\[zh\]'"
    with pytest.raises(UserError, match=message):
        make(tmp_path, vocab_file, text_file, segmenter="jieba")
    assert not (tmp_path / "data").exists()


def test_a_tokenizer_that_keeps_sentences_whole_is_refused(tmp_path, vocab_file, text_file):
    with pytest.raises(UserError, match="expected a token for each Chinese character"):
        make(tmp_path, vocab_file, text_file, segmenter="jieba", tokenize_chinese_chars=False)


def test_words_are_found_or_marked_and_not_both(tmp_path, vocab_file, text_file):
    with pytest.raises(UserError, match="leave out --word_separator"):
        make(tmp_path, vocab_file, text_file, segmenter="jieba", word_separator=" ")


def test_an_unknown_segmenter_is_refused(tmp_path, vocab_file, text_file):
    flags = {"input_file": text_file, "vocab_file": vocab_file, "output_file": tmp_path / "data"}
    result = run_stage("create_pretraining_data", flags, "--segmenter=thulac")
    assert result.returncode != 0
    assert "jieba" in result.stderr
