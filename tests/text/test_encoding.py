import pytest
from conftest import GOLDEN

import tokenization
from bert_toolkit.text import encoding


@pytest.fixture(scope="module")
def tokenizer():
    return tokenization.FullTokenizer(str(GOLDEN / "vocab.txt"))


@pytest.mark.parametrize(
    ("text_a", "text_b", "length", "tokens", "segments", "cut"),
    [
        ("the word", None, 8, "[CLS] the word [SEP]", "0000", 0),
        ("the word", "was god", 8, "[CLS] the word [SEP] was god [SEP]", "0000111", 0),
        ("the word was god", None, 5, "[CLS] the word was [SEP]", "00000", 1),
        ("the word was god", "and god", 8, "[CLS] the word was [SEP] and god [SEP]", "00000111", 1),
        ("the word", "the word", 6, "[CLS] the word [SEP] the [SEP]", "000011", 1),
        ("", None, 8, "[CLS] [SEP]", "00", 0),
        ("the", "", 8, "[CLS] the [SEP]", "000", 0),
    ],
)  # fmt: skip
def test_encoding(tokenizer, text_a, text_b, length, tokens, segments, cut):
    encoded = encoding.SequenceEncoder(tokenizer, length).encode(text_a, text_b)[0]
    assert tokenizer.convert_ids_to_tokens(encoded.input_ids) == tokens.split()
    assert "".join(map(str, encoded.segment_ids)) == segments
    assert encoded.cut == cut


@pytest.mark.parametrize(
    ("first", "second", "limit", "lengths"),
    [(5, 3, 8, (5, 3)), (5, 3, 7, (4, 3)), (5, 3, 5, (3, 2)), (3, 5, 4, (2, 2)), (9, 1, 4, (3, 1))],
)
def test_the_longer_text_is_cut_first(first, second, limit, lengths):
    assert encoding.shares(first, second, limit) == lengths


@pytest.mark.parametrize(
    ("truncate", "kept"),
    [("head", "the word was"), ("tail", "and god the"), ("head_tail", "the god the")],
)
def test_what_is_kept_of_a_long_text(tokenizer, truncate, kept):
    encoded = encoding.SequenceEncoder(tokenizer, 5, truncate).encode(
        "the word was with and god the"
    )[0]
    # Of 3 tokens a quarter is 0; of 4, one.
    if truncate == "head_tail":
        encoded = encoding.SequenceEncoder(tokenizer, 6, truncate).encode(
            "the word was with and god the"
        )[0]
        kept = "the and god the"
    assert tokenizer.convert_ids_to_tokens(encoded.input_ids[1:-1]) == kept.split()


@pytest.mark.parametrize(("tokens", "stride"), [(1, 2), (4, 2), (5, 2), (6, 2), (9, 3), (20, 9)])
def test_windows_cover_a_text(tokenizer, tokens, stride):
    words = (["the", "word", "was", "god"] * 5)[:tokens]
    windows = encoding.SequenceEncoder(tokenizer, 6, doc_stride=stride).encode(
        " ".join(words), None
    )
    ids = tokenizer.convert_tokens_to_ids(words)
    pieces = [window.input_ids[1:-1] for window in windows]
    step = min(stride, 4)
    covered = {}
    for number, piece in enumerate(pieces):
        assert len(piece) <= 4
        for place, token in enumerate(piece):
            covered[number * step + place] = token
    assert [covered[place] for place in range(tokens)] == ids
    assert len(pieces) == 1 or len(pieces[-1]) > 4 - step  # the last one has something new


def test_windows_of_a_pair_move_over_the_second_text(tokenizer):
    windows = encoding.SequenceEncoder(tokenizer, 7, doc_stride=2).encode(
        "god", "the word was with and"
    )
    assert [tokenizer.convert_ids_to_tokens(window.input_ids) for window in windows] == [
        "[CLS] god [SEP] the word was [SEP]".split(),
        "[CLS] god [SEP] was with and [SEP]".split(),
    ]
