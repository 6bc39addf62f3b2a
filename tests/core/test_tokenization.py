import json
import subprocess
import sys

import hypothesis.strategies as st
import plain_tokenizer
import pytest
from conftest import GOLDEN, ROOT
from hypothesis import given, settings

import tokenization
from bert_toolkit.errors import UserError

pytestmark = pytest.mark.platform

VOCAB = GOLDEN / "vocab.txt"
CASES = json.loads((GOLDEN / "tokenization.json").read_text())
SMALL = "[UNK] [CLS] [SEP] want ##want ##ed wa un runn ##ing ,".split()


@pytest.fixture(scope="module", params=[True, False], ids=["lower", "cased"])
def tokenizer(request):
    return tokenization.FullTokenizer(str(VOCAB), request.param)


def write_vocab(tmp_path, tokens):
    path = tmp_path / "vocab.txt"
    path.write_text("".join(f"{token}\n" for token in tokens))
    return str(path)


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_golden_texts(case):
    tokenizer = tokenization.FullTokenizer(str(VOCAB), case["do_lower_case"])
    assert tokenizer.basic_tokenizer.tokenize(case["text"]) == case["basic_tokens"]
    for _ in range(2):  # the second time from memory
        assert tokenizer.tokenize(case["text"]) == case["tokens"]
        assert tokenizer.encode(case["text"]) == case["ids"]


DIFFICULT = st.sampled_from(
    "aB.,!$\u00e9\u0130\u0131\u03a3\u03c2\u1e9e\u4e2d\u6587\u3042\ud55c\U0001f600\u0301\u0327\u200b\u200d\ufeff\u2028\u2029"
    "\u00a0\u3000\u0000\ufffd\x0b\x0c\x1c\x1f\x85\t\n\r \u2014\u00bf\u0e01\u0e33\u0f0b\ufb01\u212a\U0002f800\u0378\ue000"
)
TEXTS = st.lists(st.one_of(st.text(max_size=8), st.text(DIFFICULT, max_size=8)), max_size=6).map(
    "".join
)


@settings(max_examples=600, deadline=None)
@given(text=TEXTS)
def test_any_text_is_tokenized_as_by_the_plain_rules(tokenizer, text):
    expected = plain_tokenizer.tokenize(text, tokenizer.vocab, tokenizer.do_lower_case)
    assert tokenizer.tokenize(text) == expected
    assert tokenizer.tokenize(text) == expected


def test_long_real_text_is_tokenized_as_by_the_plain_rules(tokenizer):
    text = (GOLDEN / "corpus.txt").read_text()
    assert tokenizer.tokenize(text) == plain_tokenizer.tokenize(
        text, tokenizer.vocab, tokenizer.do_lower_case
    )


def test_memory_of_pieces_is_bounded_and_changes_nothing(monkeypatch):
    monkeypatch.setattr(tokenization, "MAX_REMEMBERED_PIECES", 3)
    tokenizer = tokenization.FullTokenizer(str(VOCAB))
    text = "in the beginning was the word and the word was with god " * 3
    assert tokenizer.tokenize(text) == plain_tokenizer.tokenize(text, tokenizer.vocab, True)
    assert tokenizer.encode_ragged([text])[0].tolist() == tokenizer.encode(text)
    assert len(tokenizer._ids_of_piece) <= 3


@pytest.mark.parametrize(
    "text",
    [
        "Unaffable, isn't it?",
        "H\u00e9llo \u4e2d\u6587 na\u00efve",
        "\u00dcber $5.00\u2014ok",
        "a" * 80,
    ],
)
def test_hugging_face_tokenizers_agree(text):
    peers = pytest.importorskip("tokenizers")
    peer = peers.BertWordPieceTokenizer(str(VOCAB), lowercase=True)
    ours = tokenization.FullTokenizer(str(VOCAB), True)
    assert ours.encode(text) == peer.encode(text, add_special_tokens=False).ids


def test_the_published_example(tmp_path):
    tokenizer = tokenization.FullTokenizer(write_vocab(tmp_path, [*SMALL, "[MASK]"]))
    tokens = tokenizer.tokenize("UNwant\u00e9d,running")
    assert tokens == ["un", "##want", "##ed", ",", "runn", "##ing"]
    assert tokenizer.convert_tokens_to_ids(tokens) == [7, 4, 5, 10, 8, 9]
    assert tokenizer.convert_ids_to_tokens([7, 4, 5, 10, 8, 9]) == tokens


@pytest.mark.parametrize(
    ("text", "lower_case", "expected"),
    [
        ("ah\u535a\u63a8zz", True, ["ah", "\u535a", "\u63a8", "zz"]),
        (" \tHeLLo!how  \n Are yoU?  ", True, ["hello", "!", "how", "are", "you", "?"]),
        (" \tHeLLo!how  \n Are yoU?  ", False, ["HeLLo", "!", "how", "Are", "yoU", "?"]),
        ("H\u00e9llo", True, ["hello"]),
        ("H\u00e9llo", False, ["H\u00e9llo"]),
        (b"caf\xc3\xa9 \xff!", True, ["cafe", "!"]),
    ],
)
def test_basic_tokenizer(text, lower_case, expected):
    assert tokenization.BasicTokenizer(lower_case).tokenize(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("unwanted running", ["un", "##want", "##ed", "runn", "##ing"]),
        ("unwantedX running", ["[UNK]", "runn", "##ing"]),
        ("want" * 51, ["[UNK]"]),
        ("want" * 50, ["want"] + ["##want"] * 49),
    ],
)
def test_wordpiece_tokenizer(text, expected):
    vocab = {token: index for index, token in enumerate(SMALL)}
    assert tokenization.WordpieceTokenizer(vocab).tokenize(text) == expected


def test_wordpiece_tokenizer_takes_its_settings():
    tokenizer = tokenization.WordpieceTokenizer(
        {"a": 0, "##a": 1}, unk_token="?", max_input_chars_per_word=2
    )
    assert tokenizer.tokenize("aa aaa b") == ["a", "##a", "?", "?"]


@pytest.mark.parametrize(
    ("char", "whitespace", "control", "punctuation"),
    [
        (" ", True, False, False),
        ("\t", True, False, False),
        ("\u00a0", True, False, False),
        ("\u0005", False, True, False),
        ("\u200b", False, True, False),
        ("\u2028", False, False, False),
        ("A", False, False, False),
        ("-", False, False, True),
        ("$", False, False, True),
        ("`", False, False, True),
        ("\u2014", False, False, True),
        ("\u20ac", False, False, False),
    ],
)
def test_kinds_of_characters(char, whitespace, control, punctuation):
    assert tokenization._is_whitespace(char) == whitespace
    assert tokenization._is_control(char) == control
    assert tokenization._is_punctuation(char) == punctuation


def test_conversions():
    vocab = {"a": 0, "b": 1}
    assert tokenization.convert_tokens_to_ids(vocab, ["b", "a"]) == [1, 0]
    assert tokenization.convert_ids_to_tokens({0: "a", 1: "b"}, [1, 0]) == ["b", "a"]
    with pytest.raises(KeyError):
        tokenization.convert_tokens_to_ids(vocab, ["c"])
    assert tokenization.convert_to_unicode(b"a\xffb\xc3\xa9") == "ab\u00e9"
    assert tokenization.printable_text("\u00e9") == "\u00e9"
    with pytest.raises(TypeError):
        tokenization.convert_to_unicode(3)


def test_vocabulary_lines_keep_their_numbers(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_bytes("[UNK]\r\n\u2028\n\nword\nword\n".encode())
    assert tokenization.load_vocab(str(path)) == {"[UNK]": 0, "": 2, "word": 4}
    (problem,) = tokenization.vocabulary_problems(str(path))
    assert "2 tokens stand on more than one line" in problem
    assert "lines 2 and 3" in problem


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"a\n\xff\n", "line 2: not UTF-8"),
        (b"[UNK]\n[CLS]\n", r"no \[SEP\], \[MASK\] among its 2"),
    ],
)
def test_unusable_vocabularies(tmp_path, content, message):
    path = tmp_path / "vocab.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        tokenization.FullTokenizer(str(path))


@pytest.mark.parametrize("name", ["missing.txt", "."])
def test_a_vocabulary_that_is_no_file(tmp_path, name):
    with pytest.raises(UserError, match="expected a vocabulary file"):
        tokenization.load_vocab(str(tmp_path / name))


@pytest.mark.parametrize(
    ("lower_case", "path", "good"),
    [
        (True, "x/uncased_L-12_H-768_A-12/bert_model.ckpt", True),
        (False, "x/uncased_L-12_H-768_A-12/bert_model.ckpt", False),
        (True, "x/cased_L-12_H-768_A-12/bert_model.ckpt", False),
        (False, "multi_cased_L-12_H-768_A-12/bert_model.ckpt", True),
        (False, "chinese_L-12_H-768_A-12/bert_model.ckpt", False),
        (False, "my/own/model.ckpt-12", True),
        (True, None, True),
    ],
)
def test_casing_is_checked_against_published_names(lower_case, path, good):
    if good:
        tokenization.validate_case_matches_checkpoint(lower_case, path)
    else:
        with pytest.raises(ValueError, match=f"--do_lower_case={not lower_case}"):
            tokenization.validate_case_matches_checkpoint(lower_case, path)


def test_tokenization_does_not_import_tensorflow():
    code = "import sys, tokenization, bert_toolkit; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# --- Offsets ---


@settings(max_examples=400, deadline=None)
@given(text=TEXTS)
def test_offsets_belong_to_the_tokens(tokenizer, text):
    tokens, offsets = tokenizer.tokenize_with_offsets(text)
    assert tokens == tokenizer.tokenize(text)
    assert len(offsets) == len(tokens)
    for token, (start, end) in zip(tokens, offsets):
        assert 0 <= start < end <= len(text)
        part = text[start:end]
        alone = tokenizer.basic_tokenizer.tokenize(part)
        # What a piece was made from gives its characters again (a final sigma looks like another).
        if token != "[UNK]" and "\u03a3" not in part:
            assert "".join(alone) == token.removeprefix("##") or token in "".join(alone)
    assert [start for start, _ in offsets] == sorted(start for start, _ in offsets)
    # What is remembered of pieces between spaces changes nothing.
    assert (tokens, offsets) == tokenizer._placed_tokens(text)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Unaffable words.", ["Un", "affable", "words", "."]),
        ("  H\u00e9llo\u200b, \u4e2d\u6587!", None),
        ("the\u0301 word\u0327", ["the\u0301", "word\u0327"]),
        ("wo\u200brd", ["wo\u200brd"]),
    ],
)
def test_offsets_through_normalization(text, parts):
    tokenizer = tokenization.FullTokenizer(str(VOCAB))
    tokens, offsets = tokenizer.tokenize_with_offsets(text)
    found = [text[start:end] for start, end in offsets]
    if parts and "[UNK]" not in tokens and len(parts) == len(found):
        # A combining mark that is stripped belongs to nothing.
        assert [part.rstrip("\u0301\u0327") for part in parts] == found
    for token, part in zip(tokens, found):
        if token != "[UNK]":
            assert tokenizer.basic_tokenizer.tokenize(part) == [token.removeprefix("##")]


@pytest.mark.parametrize(
    "text",
    [
        "Unaffable, isn't it?",
        "H\u00e9llo \u4e2d\u6587 na\u00efve words",
        "$5.00 \u2014 ok \U0001f600x",
        "a" * 30,
    ],
)
def test_offsets_are_those_of_hugging_face(text):
    peers = pytest.importorskip("tokenizers")
    peer = peers.BertWordPieceTokenizer(str(VOCAB), lowercase=True)
    tokens, offsets = tokenization.FullTokenizer(str(VOCAB)).tokenize_with_offsets(text)
    expected = peer.encode(text, add_special_tokens=False)
    assert (tokens, offsets) == (expected.tokens, expected.offsets)


# --- Rules that can be chosen ---


@pytest.mark.parametrize(
    ("flags", "text", "expected"),
    [
        ({"strip_accents": False}, "H\u00c9llo", ["h\u00e9llo"]),
        ({"do_lower_case": False, "strip_accents": True}, "H\u00c9llo", ["HEllo"]),
        ({"tokenize_chinese_chars": False}, "a\u4e2d\u6587 b", ["a\u4e2d\u6587", "b"]),
        ({"never_split": ["[MASK]", "e.g."]}, "A[MASK], E.g. e.g.x", ["a", "[MASK]", ",", "e", ".", "g", ".", "e.g.", "x"]),
        ({"never_split": ["[A]", "[A][B]"]}, "[A][B][A]", ["[A][B]", "[A]"]),
    ],
)  # fmt: skip
def test_rules_of_the_basic_tokenizer(flags, text, expected):
    basic = tokenization.BasicTokenizer(**flags)
    assert basic.tokenize(text) == expected
    assert [word for word, _ in basic.words_with_places(text)] == expected


@pytest.mark.parametrize(
    "flags",
    [
        {"strip_accents": False},
        {"do_lower_case": False, "strip_accents": True},
        {"tokenize_chinese_chars": False},
    ],
    ids=str,
)
def test_chosen_rules_are_those_of_hugging_face(flags):
    peers = pytest.importorskip("tokenizers")
    peer = peers.BertWordPieceTokenizer(
        str(VOCAB),
        lowercase=flags.get("do_lower_case", True),
        strip_accents=flags.get("strip_accents"),
        handle_chinese_chars=flags.get("tokenize_chinese_chars", True),
    )
    ours = tokenization.FullTokenizer(str(VOCAB), **flags)
    for text in ("H\u00c9llo na\u00efve w\u00f6rds", "the\u4e2d\u6587 word", "God \u00c5 God"):
        assert ours.encode(text) == peer.encode(text, add_special_tokens=False).ids


def test_what_is_never_split_has_its_id_in_text(tmp_path):
    tokenizer = tokenization.FullTokenizer(str(VOCAB), never_split=["[MASK]", "[SEP]"])
    for _ in range(2):
        assert tokenizer.tokenize("the [MASK][SEP]word") == ["the", "[MASK]", "[SEP]", "word"]
    tokens, offsets = tokenizer.tokenize_with_offsets("the [MASK][SEP]word")
    assert (tokens[1:3], offsets[1:3]) == (["[MASK]", "[SEP]"], [(4, 10), (10, 15)])
    with pytest.raises(UserError, match=r"no \[E1\] among"):
        tokenization.FullTokenizer(str(VOCAB), never_split=["[E1]"])


def test_a_batch_is_its_texts_one_by_one(tokenizer):
    texts = (GOLDEN / "corpus.txt").read_text().split("\n")
    expected = [tokenizer.encode(text) for text in texts]
    assert tokenizer.encode_batch(texts) == expected
    for _ in range(2):
        ids, splits = tokenizer.encode_ragged(texts)
        assert [ids[a:b].tolist() for a, b in zip(splits, splits[1:])] == expected
    assert [part.tolist() for part in tokenizer.encode_ragged([])] == [[], [0]]


# --- Decoding ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("And God said, Let there be light: and there was light.",) * 2,
        ("don't (well-known) $5, 50%!",) * 2,
        ("\u4e2d\u6587\u3002\u4e2d",) * 2,
        ("the   word ;that", "the word; that"),
    ],
)
def test_decoding_gives_readable_text(tmp_path, text, expected):
    vocab = (GOLDEN / "vocab.txt").read_text()
    (tmp_path / "vocab.txt").write_text(f"{vocab}\u4e2d\n\u6587\n\u3002\n$\n%\n")
    tokenizer = tokenization.FullTokenizer(str(tmp_path / "vocab.txt"))
    ids = tokenizer.encode(text)
    wrapped = [tokenizer.vocab["[CLS]"], *ids, tokenizer.vocab["[SEP]"], tokenizer.vocab["[PAD]"]]
    assert tokenizer.decode(wrapped) == expected.lower()
    assert tokenizer.decode(wrapped, skip_special_tokens=False).startswith("[CLS]")


@settings(max_examples=400, deadline=None)
@given(
    text=st.one_of(
        TEXTS,
        st.lists(st.sampled_from("the word ' - ( $ , . [ ab \u4e2d don't".split())).map(" ".join),
    )
)
def test_decoded_text_gives_the_same_ids(tokenizer, text):
    ids = tokenizer.encode(text)
    if tokenizer.vocab["[UNK]"] not in ids:
        assert tokenizer.encode(tokenizer.decode(ids)) == ids


def test_a_missing_remote_vocabulary_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="expected a vocabulary file"):
        tokenization.load_vocab(f"file://{tmp_path}/missing.txt")
