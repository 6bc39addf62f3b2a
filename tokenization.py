"""BERT's tokenization: basic cleaning and splitting, then WordPiece.

The results are those of the tokenizer published with the BERT paper (Devlin et al., 2019) on any
text. What differs is the way there: text is cut at white space first, and the ids of each piece
are remembered, because a piece between white space always gives the same WordPieces.

This module does not import TensorFlow.
"""

import collections
import functools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Union

import six

from bert_toolkit.errors import UserError

UNKNOWN, CLASSIFY, SEPARATE, MASK = "[UNK]", "[CLS]", "[SEP]", "[MASK]"

# How many different pieces of text a FullTokenizer remembers (some 200 bytes each), and the longest
# piece worth remembering: longer ones hardly ever come again.
MAX_REMEMBERED_PIECES = 500_000
MAX_REMEMBERED_LENGTH = 64


def convert_to_unicode(text: Union[str, bytes]) -> str:
    """Returns `text` as str; bytes are read as UTF-8, and what is not UTF-8 in them is dropped."""
    return six.ensure_text(text, "utf-8", "ignore")


def printable_text(text: Union[str, bytes]) -> str:
    """Returns `text` in the form that print() takes, which in Python 3 is str."""
    return convert_to_unicode(text)


def load_vocab(vocab_file: str) -> "collections.OrderedDict[str, int]":
    """Reads a vocabulary file: one token a line; the id of a token is its line number from 0.

    A token that stands on two lines has the id of the last one, as published.

    Raises:
      UserError: the file cannot be read, is not UTF-8 text, or holds no token.
    """
    vocab: collections.OrderedDict[str, int] = collections.OrderedDict()
    for index, line in enumerate(_read_lines(vocab_file)):
        try:
            vocab[line.decode("utf-8").strip()] = index
        except UnicodeDecodeError:
            raise UserError(
                f"{vocab_file} line {index + 1}: not UTF-8 text; expected a vocabulary with one"
                " token a line"
            ) from None
    if not vocab:
        raise UserError(f"{vocab_file}: empty; expected a vocabulary with one token a line")
    return vocab


def _read_lines(path: str) -> Iterable[bytes]:
    """Yields lines that a line feed ends, and nothing else: U+2028 is a token in some files."""
    try:
        if "://" in path:
            from tensorflow.compat.v1 import gfile

            with gfile.GFile(path, "rb") as reader:
                yield from reader
        else:
            with open(path, "rb") as reader:
                yield from reader
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; expected a vocabulary file") from None


def vocabulary_problems(vocab_file: str) -> list[str]:
    """Returns what is odd about a vocabulary though it can be used: repeated or empty lines."""
    lines = [line.decode("utf-8", "replace").strip() for line in _read_lines(vocab_file)]
    repeated = [token for token, count in collections.Counter(lines).items() if count > 1]
    if not repeated:
        return []
    first = repeated[0]
    where = [number for number, token in enumerate(lines, 1) if token == first]
    return [
        f"{vocab_file}: {len(repeated)} tokens stand on more than one line (the first is {first!r},"
        f" on lines {where[0]} and {where[1]}); each gets the id of its last line"
    ]


def convert_by_vocab(vocab: dict, items: Iterable) -> list:
    """Looks every item up in `vocab` (tokens to ids, or ids to tokens); KeyError for a stranger."""
    return [vocab[item] for item in items]


def convert_tokens_to_ids(vocab: dict[str, int], tokens: Iterable[str]) -> list[int]:
    """Returns the ids of WordPiece tokens; KeyError for a token that is not in the vocabulary."""
    return convert_by_vocab(vocab, tokens)


def convert_ids_to_tokens(inv_vocab: dict[int, str], ids: Iterable[int]) -> list[str]:
    """Returns the WordPiece tokens of ids; KeyError for an id outside the vocabulary."""
    return convert_by_vocab(inv_vocab, ids)


def whitespace_tokenize(text: str) -> list[str]:
    """Splits `text` at runs of white space; none at the ends."""
    return text.split()


class FullTokenizer:
    """Text to WordPiece tokens or ids, end to end.

    Attributes:
      vocab: token -> id, in the order of the file.
      inv_vocab: id -> token.
      do_lower_case: whether text is lower-cased and stripped of accents.
    """

    def __init__(self, vocab_file: str, do_lower_case: bool = True):
        """Loads the vocabulary; a UserError if it cannot be one of BERT's."""
        self.vocab = load_vocab(vocab_file)
        missing = [
            token for token in (UNKNOWN, CLASSIFY, SEPARATE, MASK) if token not in self.vocab
        ]
        if missing:
            raise UserError(
                f"{vocab_file}: no {', '.join(missing)} among its {len(self.vocab):,} entries;"
                " expected a BERT vocabulary with one token a line, [UNK] [CLS] [SEP] [MASK] among"
                " them"
            )
        self.inv_vocab = {index: token for token, index in self.vocab.items()}
        self.do_lower_case = do_lower_case
        self.basic_tokenizer = BasicTokenizer(do_lower_case=do_lower_case)
        self.wordpiece_tokenizer = WordpieceTokenizer(vocab=self.vocab)
        self._ids_of_piece: dict[str, list[int]] = {}

    def tokenize(self, text: Union[str, bytes]) -> list[str]:
        """Returns the WordPiece tokens of `text`."""
        return convert_ids_to_tokens(self.inv_vocab, self.encode(text))

    def encode(self, text: Union[str, bytes]) -> list[int]:
        """Returns the ids of the WordPiece tokens of `text`, without [CLS] and [SEP]."""
        text = convert_to_unicode(text)
        if _VANISHING_SPACES.search(text):
            text = _VANISHING_SPACES.sub("", text)
        ids: list[int] = []
        remembered = self._ids_of_piece
        for piece in text.split():
            ids += remembered.get(piece) or self._encode_piece(piece)
        return ids

    def _encode_piece(self, piece: str) -> list[int]:
        """Encodes text without white space by the rules, and remembers the result."""
        ids = []
        for token in self.basic_tokenizer.tokenize(piece):
            ids += convert_tokens_to_ids(self.vocab, self.wordpiece_tokenizer.tokenize(token))
        if len(piece) <= MAX_REMEMBERED_LENGTH:
            if len(self._ids_of_piece) >= MAX_REMEMBERED_PIECES:
                self._ids_of_piece.clear()
            self._ids_of_piece[piece] = ids
        return ids

    def convert_tokens_to_ids(self, tokens: Iterable[str]) -> list[int]:
        """Returns the ids of WordPiece tokens."""
        return convert_tokens_to_ids(self.vocab, tokens)

    def convert_ids_to_tokens(self, ids: Iterable[int]) -> list[str]:
        """Returns the WordPiece tokens of ids."""
        return convert_ids_to_tokens(self.inv_vocab, ids)


class BasicTokenizer:
    """Cleans text, sets Chinese characters apart, lower-cases if asked, splits off punctuation."""

    def __init__(self, do_lower_case: bool = True):
        self.do_lower_case = do_lower_case

    def tokenize(self, text: Union[str, bytes]) -> list[str]:
        """Returns the words and punctuation marks of `text`, not yet cut into WordPieces."""
        cleaned = "".join(map(_clean_char, convert_to_unicode(text)))
        words: list[str] = []
        for word in whitespace_tokenize(cleaned):
            if self.do_lower_case:
                word = _strip_accents(word.lower())
            words += whitespace_tokenize("".join(map(_set_punctuation_apart, word)))
        return words


class WordpieceTokenizer:
    """Cuts words into the longest pieces found in the vocabulary, from the left."""

    def __init__(
        self, vocab: dict[str, int], unk_token: str = UNKNOWN, max_input_chars_per_word: int = 200
    ):
        self.vocab = vocab
        self.unk_token = unk_token
        self.max_input_chars_per_word = max_input_chars_per_word
        self._longest_entry = max(map(len, vocab), default=0)

    def tokenize(self, text: Union[str, bytes]) -> list[str]:
        """Returns the pieces of every word of `text`; those inside a word begin with ##.

        For example "unaffable" gives ["un", "##aff", "##able"]. A word with a part that no entry
        covers, or of more than `max_input_chars_per_word` characters, is `unk_token` as a whole.
        """
        tokens: list[str] = []
        for word in whitespace_tokenize(convert_to_unicode(text)):
            tokens += self._pieces(word) or [self.unk_token]
        return tokens

    def _pieces(self, word: str) -> list[str]:
        """Returns the pieces of one word, or [] if the vocabulary does not cover it."""
        if len(word) > self.max_input_chars_per_word:
            return []
        if word in self.vocab:
            return [word]
        pieces = []
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            for end in range(min(len(word), start + self._longest_entry), start, -1):
                piece = prefix + word[start:end]
                if piece in self.vocab:
                    break
            else:
                return []
            pieces.append(piece)
            start = end
        return pieces


# Characters that str.split() takes for white space while BERT's rules drop them as control
# characters, joining what stands on their two sides.
_VANISHING_SPACES = re.compile("[\x0b\x0c\x1c-\x1f\x85]")


@functools.lru_cache(maxsize=65536)
def _clean_char(char: str) -> str:
    """Returns what becomes of a character: nothing, a space, itself, or itself set apart."""
    if char in "\0\ufffd" or _is_control(char):
        return ""
    if _is_whitespace(char):
        return " "
    if _is_chinese_char(ord(char)):
        return f" {char} "
    return char


@functools.lru_cache(maxsize=65536)
def _set_punctuation_apart(char: str) -> str:
    return f" {char} " if _is_punctuation(char) else char


def _strip_accents(text: str) -> str:
    """Removes combining marks (Unicode category Mn) after canonical decomposition."""
    if text.isascii():
        return text
    return "".join(
        char for char in unicodedata.normalize("NFD", text) if unicodedata.category(char) != "Mn"
    )


def _is_whitespace(char: str) -> bool:
    return char in " \t\n\r" or unicodedata.category(char) == "Zs"


def _is_control(char: str) -> bool:
    """Whether a character is dropped; tab and line ends count as white space instead."""
    return char not in "\t\n\r" and unicodedata.category(char) in ("Cc", "Cf")


def _is_punctuation(char: str) -> bool:
    """Unicode's punctuation, and every ASCII character that is no letter, digit, space or control.

    Unicode calls some of the latter symbols ("$", "^", "`"); BERT splits at all of them alike.
    """
    code = ord(char)
    if 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126:
        return True
    return unicodedata.category(char).startswith("P")


# The CJK Unified Ideographs with their extensions A to E, and the compatibility ideographs.
# Hangul, Hiragana and Katakana are not among them: those scripts are cut like any other.
_CHINESE_RANGES = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


def _is_chinese_char(code: int) -> bool:
    return any(first <= code <= last for first, last in _CHINESE_RANGES)


_UNCASED_MODELS = (
    "uncased_L-24_H-1024_A-16",
    "uncased_L-12_H-768_A-12",
    "multilingual_L-12_H-768_A-12",
    "chinese_L-12_H-768_A-12",
)
_CASED_MODELS = (
    "cased_L-12_H-768_A-12",
    "cased_L-24_H-1024_A-16",
    "multi_cased_L-12_H-768_A-12",
)


def validate_case_matches_checkpoint(do_lower_case: bool, init_checkpoint: str) -> None:
    """Checks --do_lower_case against the name of a published model, if the path holds one.

    Raises:
      UserError: the checkpoint is known to want the other casing.
    """
    match = re.search(r"([A-Za-z0-9_-]+)/bert_model\.ckpt", init_checkpoint or "")
    name = match.group(1) if match else ""
    wanted: Sequence[str] = _CASED_MODELS if do_lower_case else _UNCASED_MODELS
    if name in wanted:
        raise UserError(
            f"--do_lower_case={do_lower_case}, but --init_checkpoint={init_checkpoint} is a"
            f" {'cased' if do_lower_case else 'lower-cased'} model ({name});"
            f" pass --do_lower_case={not do_lower_case}"
        )
