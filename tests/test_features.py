import pytest
from conftest import GOLDEN

import tokenization
from bert_toolkit import features


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
    encoded = features.encode(tokenizer, text_a, text_b, length)
    assert tokenizer.convert_ids_to_tokens(encoded.input_ids) == tokens.split()
    assert "".join(map(str, encoded.segment_ids)) == segments
    assert encoded.cut == cut


@pytest.mark.parametrize(
    ("first", "second", "limit", "lengths"),
    [(5, 3, 8, (5, 3)), (5, 3, 7, (4, 3)), (5, 3, 5, (3, 2)), (3, 5, 4, (2, 2)), (9, 1, 4, (3, 1))],
)
def test_the_longer_text_is_cut_first(first, second, limit, lengths):
    a, b = list(range(first)), list(range(second))
    features.truncate_pair(a, b, limit)
    assert (a, b) == (list(range(lengths[0])), list(range(lengths[1])))
