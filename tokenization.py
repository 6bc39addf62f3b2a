"""BERT's tokenization: basic cleaning and splitting, then WordPiece.

The results are those of the tokenizer published with the BERT paper (Devlin et al., 2019) on any
text. What differs is the way there: text is cut at white space first, and the ids of each piece
are remembered, because a piece between white space always gives the same WordPieces.

This module does not import TensorFlow.
"""

import codecs
import collections
import contextlib
import gc
import itertools
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Callable, NamedTuple, Optional, Union

import numpy as np
import six

from bert_toolkit.errors import UserError

UNKNOWN, CLASSIFY, SEPARATE, MASK, PAD = "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[PAD]"

# How many different pieces of text a FullTokenizer remembers (some 200 bytes each), and the longest
# piece worth remembering: longer ones hardly ever come again.
MAX_REMEMBERED_PIECES = 500_000
MAX_REMEMBERED_LENGTH = 64

# Characters of the beginning of a text by which vocabulary entries are looked up.
HEAD_LENGTH = 3

# Characters of the longest word that is cut into pieces, as published; a longer one is [UNK].
LONGEST_WORD = 200


def convert_to_unicode(text: Union[str, bytes]) -> str:
    """Returns `text` as str; bytes are read as UTF-8, and what is not UTF-8 in them is dropped."""
    return six.ensure_text(text, "utf-8", "ignore")


def printable_text(text: Union[str, bytes]) -> str:
    """Returns `text` in the form that print() takes, which in Python 3 is str."""
    return convert_to_unicode(text)


def load_vocab(vocab_file: str) -> "collections.OrderedDict[str, int]":
    """Reads a vocabulary file: one token a line; the id of a token is its line number from 0.

    A token that stands on two lines has the id of the last one, as published. Empty lines at the
    end are no tokens. A file that ends in .json is a tokenizer.json, with the ids in it.

    Raises:
      UserError: the file cannot be read, is not UTF-8 text, or holds no token.
    """
    if vocab_file.endswith(".json"):
        return _load_json_vocab(vocab_file)
    vocab: collections.OrderedDict[str, int] = collections.OrderedDict()
    blank: Optional[int] = None  # an empty line, which is a token if another one follows
    for index, line in enumerate(_read_lines(vocab_file)):
        try:
            token = line.decode("utf-8").strip()
        except UnicodeDecodeError:
            raise UserError(
                f"{vocab_file} line {index + 1}: not UTF-8 text; expected a vocabulary with one"
                " token a line"
            ) from None
        if not token:
            blank = index
            continue
        if blank is not None:
            vocab[""], blank = blank, None
        vocab[token] = index
    if not vocab:
        raise UserError(f"{vocab_file}: empty; expected a vocabulary with one token a line")
    return vocab


def _load_json_vocab(path: str) -> "collections.OrderedDict[str, int]":
    """Reads the entries of the WordPiece model of a tokenizer.json, without added tokens."""
    try:
        vocab = dict(json.loads(b"".join(_read_lines(path)).decode("utf-8-sig"))["model"]["vocab"])
        ids = sorted(vocab.values())
        if ids != list(range(len(ids))):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{path}: no WordPiece vocabulary with ids from 0 in it; expected the tokenizer.json of"
            " a BERT model"
        ) from None
    return collections.OrderedDict(sorted(vocab.items(), key=lambda entry: entry[1]))


def _read_lines(path: str) -> Iterable[bytes]:
    """Yields lines that a line feed ends, and nothing else: U+2028 is a token in some files."""
    try:
        if "://" in path:
            from tensorflow.compat.v1 import gfile

            with gfile.GFile(path, "rb") as reader:
                yield from _without_mark(reader)
        else:
            with open(path, "rb") as reader:
                yield from _without_mark(reader)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; expected a vocabulary file") from None
    except Exception as error:
        if "://" not in path or not hasattr(error, "message"):
            raise
        raise UserError(f"{path}: {error.message}; expected a vocabulary file") from None


def _without_mark(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yields the lines, the first without the byte-order mark that some editors put before it."""
    for index, line in enumerate(lines):
        yield line if index else line.removeprefix(codecs.BOM_UTF8)


def vocabulary_problems(vocab_file: str) -> list[str]:
    """Returns what is odd about a vocabulary though it can be used: repeated or empty lines."""
    if vocab_file.endswith(".json"):
        return []
    lines = [line.decode("utf-8", "replace").strip() for line in _read_lines(vocab_file)]
    while lines and not lines[-1]:
        lines.pop()
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


@contextlib.contextmanager
def garbage_collection_paused() -> Iterator[None]:
    """Makes no search for cycles while many lists of numbers come into being, which have none.

    With all of a text's ids in memory the searches would take a third of the time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Remembered(dict):
    """Text -> what a function makes of it, computed when it is first asked for.

    Long texts are computed anew each time. When there are too many, all are forgotten.
    """

    def __init__(self, compute: Callable[[str], Any]):
        super().__init__()
        self._compute = compute

    def __missing__(self, text: str) -> Any:
        found = self._compute(text)
        if len(text) <= MAX_REMEMBERED_LENGTH:
            if len(self) >= MAX_REMEMBERED_PIECES:
                self.clear()
            self[text] = found
        return found


class AddedToken(NamedTuple):
    """A token that is whole wherever it stands in text, as those added to a Hugging Face model.

    Attributes:
      content: the token.
      id: of the token; the vocabulary file need not have it.
      normalized: look for it in text that has been cleaned and lower-cased by the rules, in that
        form itself, rather than in the text as it is.
    """

    content: str
    id: int
    normalized: bool = False


class FullTokenizer:
    """Text to WordPiece tokens or ids, end to end, and back.

    Attributes:
      vocab: token -> id, in the order of the file; added tokens that it lacks follow.
      inv_vocab: id -> token.
      do_lower_case: whether text is lower-cased.
    """

    def __init__(
        self,
        vocab_file: str,
        do_lower_case: bool = True,
        *,
        strip_accents: Optional[bool] = None,
        tokenize_chinese_chars: bool = True,
        never_split: Iterable[str] = (),
        added_tokens: Sequence[AddedToken] = (),
        max_input_chars_per_word: int = LONGEST_WORD,
        hugging_face: bool = False,
    ):
        """Loads the vocabulary.

        Args:
          vocab_file: one token a line, or a tokenizer.json.
          do_lower_case: as the model was trained: true for uncased ones.
          strip_accents: as BasicTokenizer has it.
          tokenize_chinese_chars: as BasicTokenizer has it.
          never_split: tokens such as "[MASK]" that keep their id where they stand in text.
          added_tokens: the same with ids of their own.
          max_input_chars_per_word: a longer word is [UNK].
          hugging_face: as BasicTokenizer has it.

        Raises:
          UserError: the vocabulary cannot be one of BERT's, or lacks a token of `never_split`.
        """
        self.vocab = load_vocab(vocab_file)
        # Words are cut into pieces of the file's entries only.
        pieces = dict(self.vocab) if added_tokens else self.vocab
        self.vocab.update((token.content, token.id) for token in added_tokens)
        self._check_has((UNKNOWN, CLASSIFY, SEPARATE, MASK), vocab_file)
        never_split = tuple(never_split)
        self._check_has(never_split, vocab_file)
        self.inv_vocab = {index: token for token, index in self.vocab.items()}
        self.do_lower_case = do_lower_case
        self.basic_tokenizer = BasicTokenizer(
            do_lower_case=do_lower_case,
            strip_accents=strip_accents,
            tokenize_chinese_chars=tokenize_chinese_chars,
            never_split=never_split,
            added_tokens=added_tokens,
            hugging_face=hugging_face,
        )
        self.wordpiece_tokenizer = WordpieceTokenizer(
            vocab=pieces, max_input_chars_per_word=max_input_chars_per_word
        )
        self._cut = self.basic_tokenizer.cut
        self._ids_of_word = _Remembered(self._encode_word)
        self._ids_of_piece = _Remembered(self._encode_piece)
        self._packed_ids_of_piece = _Remembered(self._pack_piece)  # for encode_ragged
        self._placed_tokens_of_piece = _Remembered(self._placed_tokens)

    def _check_has(self, tokens: Iterable[str], vocab_file: str) -> None:
        missing = [token for token in tokens if token not in self.vocab]
        if missing:
            raise UserError(
                f"{vocab_file}: no {', '.join(missing)} among its {len(self.vocab):,} entries;"
                " expected a BERT vocabulary with one token a line, [UNK] [CLS] [SEP] [MASK] among"
                " them"
            )

    def tokenize(self, text: Union[str, bytes]) -> list[str]:
        """Returns the WordPiece tokens of `text`."""
        return convert_ids_to_tokens(self.inv_vocab, self.encode(text))

    def encode(self, text: Union[str, bytes]) -> list[int]:
        """Returns the ids of the WordPiece tokens of `text`, without [CLS] and [SEP].

        Text is cut into pieces that the rules treat each on its own, and each is looked up.
        """
        text = text if isinstance(text, str) else convert_to_unicode(text)
        return list(
            itertools.chain.from_iterable(map(self._ids_of_piece.__getitem__, self._cut(text)))
        )

    def encode_batch(self, texts: Iterable[Union[str, bytes]]) -> list[list[int]]:
        """Returns the ids of every text."""
        with garbage_collection_paused():
            return list(map(self.encode, texts))

    def encode_ragged(self, texts: Iterable[Union[str, bytes]]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ids of all texts in one array: quicker, and a quarter of the memory.

        Returns:
          int32 [T], the ids of one text after the other; int64 [N + 1], where the texts begin and
          end: those of text n are ids[splits[n] : splits[n + 1]].
        """
        packed = self._packed_ids_of_piece
        rows = [
            b"".join(map(packed.__getitem__, self._cut(convert_to_unicode(text)))) for text in texts
        ]
        ends = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        return np.frombuffer(b"".join(rows), np.int32), ends // np.dtype(np.int32).itemsize

    def _pack_piece(self, piece: str) -> bytes:
        return np.array(self._ids_of_piece[piece], np.int32).tobytes()

    def _encode_piece(self, piece: str) -> list[int]:
        whole = self.basic_tokenizer.whole_token(piece)
        if whole is not None:
            return [self.vocab[whole]]
        words = self.basic_tokenizer.words(piece)
        if len(words) == 1:
            return self._ids_of_word[words[0]]
        return [number for word in words for number in self._ids_of_word[word]]

    def _encode_word(self, word: str) -> list[int]:
        return [self.vocab[token] for token in self.wordpiece_tokenizer.cut(word)]

    def tokenize_with_offsets(
        self, text: Union[str, bytes]
    ) -> tuple[list[str], list[tuple[int, int]]]:
        """Returns the tokens of `text`, and of each the characters of `text` it stands for.

        A token stands for text[start:end]. Where characters were dropped or changed (accents,
        casing, control characters) the span covers what the token was made from; [UNK] covers its
        word; tokens made from one character share its span.
        """
        text = convert_to_unicode(text)
        if not self.basic_tokenizer.always_cuts:
            return self._placed_tokens(text)
        tokens: list[str] = []
        offsets: list[tuple[int, int]] = []
        for match in self.basic_tokenizer.as_cut.finditer(text):
            start = match.start()
            names, places = self._placed_tokens_of_piece[match.group()]
            tokens += names
            offsets += [(start + begin, start + end) for begin, end in places]
        return tokens, offsets

    def _placed_tokens(self, text: str) -> tuple[list[str], list[tuple[int, int]]]:
        """Does the work of `tokenize_with_offsets`, a character at a time."""
        tokens: list[str] = []
        offsets: list[tuple[int, int]] = []
        for word, places in self.basic_tokenizer.words_with_places(text):
            kept = word in self.basic_tokenizer.whole_tokens
            pieces = [word] if kept else self.wordpiece_tokenizer.cut(word)
            tokens += pieces
            if len(pieces) == 1:
                offsets.append((places[0], places[-1] + 1))
                continue
            start = 0
            for piece in pieces:
                end = start + len(piece) - (2 if start else 0)  # without its ##
                offsets.append((places[start], places[end - 1] + 1))
                start = end
        return tokens, offsets

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """Returns readable text: pieces joined to words, punctuation set as it is written.

        Casing, accents and white space that tokenization took away do not come back. Tokenizing
        the result gives the same ids again, [UNK] and tokens of `skip_special_tokens` apart.

        Args:
          ids: ids of WordPiece tokens.
          skip_special_tokens: leave out [CLS], [SEP] and [PAD].
        """
        skipped = (CLASSIFY, SEPARATE, PAD) if skip_special_tokens else ()
        tokens = [token for token in self.convert_ids_to_tokens(ids) if token not in skipped]
        words: list[str] = []
        for token in tokens:
            if words and token.startswith("##") and len(token) > 2:
                words[-1] += token[2:]
            else:
                words.append(token)
        return _as_written(words)

    def convert_tokens_to_ids(self, tokens: Iterable[str]) -> list[int]:
        """Returns the ids of WordPiece tokens."""
        return convert_tokens_to_ids(self.vocab, tokens)

    def convert_ids_to_tokens(self, ids: Iterable[int]) -> list[str]:
        """Returns the WordPiece tokens of ids."""
        return convert_ids_to_tokens(self.inv_vocab, ids)


class BasicTokenizer:
    """Cleans text, sets Chinese characters apart, lower-cases if asked, splits off punctuation."""

    def __init__(
        self,
        do_lower_case: bool = True,
        *,
        strip_accents: Optional[bool] = None,
        tokenize_chinese_chars: bool = True,
        never_split: Iterable[str] = (),
        added_tokens: Sequence[AddedToken] = (),
        hugging_face: bool = False,
    ):
        """Sets the rules.

        Args:
          do_lower_case: lower-case the text.
          strip_accents: remove combining marks; None does so when lower-casing, as published.
          tokenize_chinese_chars: make a word of every CJK ideograph, as published.
          never_split: texts that are words wherever they stand, and stay as they are.
          added_tokens: the same, of which some are looked for in text that has been cleaned.
          hugging_face: follow Hugging Face's tokenizers where their rules are others than the
            published ones: private-use characters are dropped, a capital sigma is lower-cased
            alike wherever it stands, and 256 rare ideographs stay together.
        """
        self.do_lower_case = do_lower_case
        self.strip_accents = do_lower_case if strip_accents is None else strip_accents
        self._ideographs_apart = tokenize_chinese_chars
        self._hugging_face = hugging_face
        self._ideographs = _HUGGING_FACE_IDEOGRAPHS if hugging_face else _PUBLISHED_IDEOGRAPHS
        self._clean_rule = _clean_char_as_hugging_face if hugging_face else _clean_char
        self._cleaned = _CharTable(self._clean_rule)
        self._cleaned_and_apart = _CharTable(self._clean_or_set_apart)
        self._stripped = _CharTable(_strip_mark)
        self._split_rule = _strip_or_set_apart if self.strip_accents else _set_apart
        self._split = _CharTable(self._split_rule)
        as_written = [token.content for token in added_tokens if not token.normalized]
        self.never_split = frozenset([*never_split, *as_written])
        self._kept = _one_of(self.never_split)
        # In the form that the rules give it -> the token.
        self._normalized = {
            self._normalize(token.content): token.content
            for token in reversed(added_tokens)
            if token.normalized
        }
        self._kept_normalized = _one_of(self._normalized)
        self.whole_tokens = self.never_split | frozenset(self._normalized.values())
        self._marked = {_WHOLE + token: token for token in self.whole_tokens}
        # The same pieces as those of `cut`, unchanged, if no whole token has a cut inside of it.
        ideograph = f"[{self.set_apart}]|" if self.set_apart else ""
        self.as_cut = re.compile(f"{ideograph}[^{_SPACES}{self.set_apart}]+")
        self.always_cuts = all(map(self.as_cut.fullmatch, self.whole_tokens))

    def tokenize(self, text: Union[str, bytes]) -> list[str]:
        """Returns the words and punctuation marks of `text`, not yet cut into WordPieces."""
        words: list[str] = []
        for piece in self.cut(convert_to_unicode(text)):
            whole = self.whole_token(piece)
            words += self.words(piece) if whole is None else [whole]
        return words

    @property
    def set_apart(self) -> str:
        """The ideographs that are words, as ranges of a character class; "" for none."""
        return self._ideographs.ranges if self._ideographs_apart else ""

    def whole_token(self, piece: str) -> Optional[str]:
        """Returns the token that a piece of `cut` is as a whole; None for one to be cut further."""
        return self._marked.get(piece)

    def cut(self, text: str) -> list[str]:
        """Cuts text where the rules would in any case: at white space and around ideographs.

        The words of the text are those of its pieces, one piece after the other. So the work on a
        piece is done once, however often it occurs. Pieces that stay whole are marked, as other
        text may look like them once it is lower-cased.
        """
        if not self._marked:
            return self._cut(text)
        pieces: list[str] = []
        # What is kept stands at the odd places.
        for index, part in enumerate(self._kept.split(text) if self.never_split else [text]):
            if index % 2:
                pieces.append(_WHOLE + part)
            elif self._normalized:
                pieces += self._cut_normalized(part)
            else:
                pieces += self._cut(part)
        return pieces

    def _cut_normalized(self, text: str) -> list[str]:
        pieces: list[str] = []
        for index, part in enumerate(self._kept_normalized.split(self._normalize(text))):
            pieces += [_WHOLE + self._normalized[part]] if index % 2 else self._cut(part)
        return pieces

    def _normalize(self, text: str) -> str:
        """Does to a text all that is done before it is cut at punctuation marks."""
        if not (text.isascii() and text.isprintable()):
            text = text.translate(self._cleaned_and_apart)
        if self.do_lower_case:
            text = self._lower(text)
        if self.strip_accents and not text.isascii():
            text = unicodedata.normalize("NFD", text).translate(self._stripped)
        return text

    def _lower(self, text: str) -> str:
        # The one letter that Python lower-cases by its place in the word.
        return (text.replace("\u03a3", "\u03c3") if self._hugging_face else text).lower()

    def _cut(self, text: str) -> list[str]:
        if not text.isprintable():
            text = _VANISHING_SPACES.sub("", text)
        if text.isascii():
            return text.split()
        if self._ideographs_apart and _NEAR_IDEOGRAPHS.search(text):
            return self._ideographs.and_others.findall(text)
        return text.split()

    def words(self, piece: str) -> list[str]:
        """Returns the words and punctuation marks of one piece that `cut` made."""
        if piece.isascii() and piece.isprintable():
            if piece.isalnum():
                return [piece.lower() if self.do_lower_case else piece]
            return _ASCII_WORDS.findall(piece.lower() if self.do_lower_case else piece)
        if not piece.isprintable() or "\ufffd" in piece:
            piece = piece.translate(self._cleaned)
        words: list[str] = []
        for word in piece.split():
            if self.do_lower_case:
                word = self._lower(word)
            if self.strip_accents:
                word = unicodedata.normalize("NFD", word)
            words += [word] if word.isalnum() else word.translate(self._split).split()
        return words

    def words_with_places(self, text: str) -> Iterator[tuple[str, list[int]]]:
        """Yields every word of `text` and, for each of its characters, where in `text` it was.

        The rules of `words` again, a character at a time, for those who need to know.
        """
        start = 0
        parts = self._kept.split(text) if self.never_split else [text]
        for index, part in enumerate(parts):
            if index % 2:
                yield part, list(range(start, start + len(part)))
            elif self._normalized:
                yield from self._placed_normalized(part, start)
            else:
                for word in self._placed_words(part, start):
                    yield _text_and_places(word)
            start += len(part)

    def _placed_normalized(self, text: str, start: int) -> Iterator[tuple[str, list[int]]]:
        """As `words_with_places`, with added tokens that are looked for in cleaned text."""
        placed = _apply(self._clean_or_set_apart, list(zip(text, itertools.count(start))))
        if self.do_lower_case:
            placed = self._lower_placed(placed)
        if self.strip_accents:
            placed = _apply(_strip_mark, _decompose_placed(placed))
        done = 0
        normalized = "".join(char for char, _ in placed)
        matches = [
            (*match.span(), match.group()) for match in self._kept_normalized.finditer(normalized)
        ]
        for begin, end, token in [*matches, (len(placed), len(placed), None)]:
            for word in _split_placed(_apply(self._split_rule, placed[done:begin])):
                yield _text_and_places(word)
            if token is not None:
                yield self._normalized[token], [place for _, place in placed[begin:end]]
            done = end

    def _placed_words(self, text: str, start: int) -> Iterator["_Placed"]:
        placed = _apply(self._clean_or_set_apart, list(zip(text, itertools.count(start))))
        for word in _split_placed(placed):
            if self.do_lower_case:
                word = self._lower_placed(word)
            if self.strip_accents:
                word = _decompose_placed(word)
            yield from _split_placed(_apply(self._split_rule, word))

    def _clean_or_set_apart(self, char: str) -> str:
        ideograph = self._ideographs_apart and self._ideographs.one.match(char)
        return f" {char} " if ideograph else self._clean_rule(char)

    def _lower_placed(self, word: "_Placed") -> "_Placed":
        # Lower-casing looks at the neighbors (a final sigma), but each character gives as many as
        # it does alone.
        lowered = self._lower("".join(char for char, _ in word))
        places = [place for char, place in word for _ in char.lower()]
        return list(zip(lowered, places))


class WordpieceTokenizer:
    """Cuts words into the longest pieces found in the vocabulary, from the left."""

    def __init__(
        self,
        vocab: dict[str, int],
        unk_token: str = UNKNOWN,
        max_input_chars_per_word: int = LONGEST_WORD,
    ):
        self.vocab = vocab
        self.unk_token = unk_token
        self.max_input_chars_per_word = max_input_chars_per_word
        self._at_start = _Entries({token: token for token in vocab})
        self._inside = _Entries({token[2:]: token for token in vocab if token.startswith("##")})

    def tokenize(self, text: Union[str, bytes]) -> list[str]:
        """Returns the pieces of every word of `text`; those inside a word begin with ##.

        For example "unaffable" gives ["un", "##aff", "##able"]. A word with a part that no entry
        covers, or of more than `max_input_chars_per_word` characters, is `unk_token` as a whole.
        """
        tokens: list[str] = []
        for word in whitespace_tokenize(convert_to_unicode(text)):
            tokens += self.cut(word)
        return tokens

    def cut(self, word: str) -> list[str]:
        """Returns the pieces of one word, which has no white space in it."""
        if len(word) > self.max_input_chars_per_word:
            return [self.unk_token]
        if word in self.vocab:
            return [word]
        pieces = []
        start = 0
        entries = self._at_start
        while start < len(word):
            token, longer = entries.heads[word[start : start + HEAD_LENGTH]]
            for length in longer:
                found = entries.tokens.get(word[start : start + length])
                if found:
                    token = found
                    break
            if not token:
                return [self.unk_token]
            pieces.append(token)
            start += len(token) - 2 if start else len(token)
            entries = self._inside
        return pieces


class _Entries:
    """Entries of a vocabulary, made for finding the longest one that a text begins with.

    Attributes:
      tokens: text -> the token that stands for it.
      heads: the first HEAD_LENGTH characters of a text -> the longest token that they begin with
        ("" for none), and the lengths of longer ones that may fit the text, longest first.
    """

    def __init__(self, tokens: dict[str, str]):
        self.tokens = tokens
        self.heads = _Remembered(self._look_up)
        lengths: dict[str, set[int]] = collections.defaultdict(set)
        for text in tokens:
            if len(text) > HEAD_LENGTH:
                lengths[text[:HEAD_LENGTH]].add(len(text))
        self._longer = {head: sorted(found, reverse=True) for head, found in lengths.items()}

    def _look_up(self, head: str) -> tuple[str, Sequence[int]]:
        token = ""
        for length in range(len(head), 0, -1):
            if token := self.tokens.get(head[:length], ""):
                break
        return token, self._longer.get(head, ())


class _CharTable(dict):
    """Code point -> what becomes of that character, filled as they come; for str.translate."""

    def __init__(self, rule: Callable[[str], str]):
        super().__init__()
        self._rule = rule

    def __missing__(self, code: int) -> str:
        self[code] = result = self._rule(chr(code))
        return result


# --- The rules, character by character ---

# Characters that are white space to BERT's rules, whatever stands around them, and all others.
_SPACES = " \t\n\r\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"

# Characters that str.split() takes for white space while BERT's rules drop them as control
# characters, joining what stands on their two sides.
_VANISHING_SPACES = re.compile("[\x0b\x0c\x1c-\x1f\x85]")

# The CJK Unified Ideographs with their extensions A to E, and the compatibility ideographs.
# Hangul, Hiragana and Katakana are not among them: those scripts are cut like any other.
_BEFORE_EXTENSION_E = (
    "\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df\U0002a700-\U0002b73f\U0002b740-\U0002b81f"
)
_COMPATIBILITY = "\uf900-\ufaff\U0002f800-\U0002fa1f"


class _Ideographs:
    """Patterns: `one` ideograph; each of them `and_others`, what stands between white space."""

    def __init__(self, ranges: str):
        self.ranges = ranges
        self.one = re.compile(f"[{ranges}]")
        self.and_others = re.compile(rf"[{ranges}]|[^\s{ranges}]+")


_PUBLISHED_IDEOGRAPHS = _Ideographs(f"{_BEFORE_EXTENSION_E}\U0002b820-\U0002ceaf{_COMPATIBILITY}")
# Theirs have a slip in the beginning of extension E.
_HUGGING_FACE_IDEOGRAPHS = _Ideographs(
    f"{_BEFORE_EXTENSION_E}\U0002b920-\U0002ceaf{_COMPATIBILITY}"
)
_NEAR_IDEOGRAPHS = re.compile("[\u3400-\U0002fa1f]")  # one range is quicker to look for

# Before a piece that is a token as a whole. Text that is looked at next to it has no such character
# (it is dropped in cleaning), or does not have the token in it.
_WHOLE = "\0"


def _one_of(texts: Iterable[str]) -> "re.Pattern[str]":
    """Returns a pattern, in a group, of any of some texts; of those that fit, the longest."""
    longest_first = sorted(texts, key=lambda text: (-len(text), text))
    return re.compile(f"({'|'.join(map(re.escape, longest_first))})")


# ASCII text without control characters: words, and whatever else is printed, each for itself.
_ASCII_WORDS = re.compile(r"[a-zA-Z0-9]+|[!-~]")


def _clean_char(char: str) -> str:
    """Returns what becomes of a character: nothing, a space, or itself."""
    if char in "\0\ufffd" or _is_control(char):
        return ""
    return " " if _is_whitespace(char) else char


def _clean_char_as_hugging_face(char: str) -> str:
    """As `_clean_char`, but private-use characters vanish, and any white space is a space."""
    category = unicodedata.category(char)
    return "" if category == "Co" else " " if category in ("Zl", "Zp") else _clean_char(char)


def _strip_mark(char: str) -> str:
    """Returns nothing for a combining mark (Unicode category Mn), anything else as it is."""
    return "" if unicodedata.category(char) == "Mn" else char


def _set_apart(char: str) -> str:
    """Returns a punctuation mark with spaces around it, anything else as it is."""
    return f" {char} " if _is_punctuation(char) else char


def _strip_or_set_apart(char: str) -> str:
    """As `_set_apart`, and combining marks (Unicode category Mn) vanish."""
    return _set_apart(char) if _strip_mark(char) else ""


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


# --- The same on characters that remember where they were: (character, place) ---

_Placed = list[tuple[str, int]]


def _text_and_places(word: _Placed) -> tuple[str, list[int]]:
    return "".join(char for char, _ in word), [place for _, place in word]


def _apply(rule: Callable[[str], str], placed: _Placed) -> _Placed:
    """Replaces every character by what `rule` makes of it, at the same place."""
    return [(each, place) for char, place in placed for each in rule(char)]


def _split_placed(placed: _Placed) -> Iterator[_Placed]:
    """Yields what stands between white space."""
    for is_space, group in itertools.groupby(placed, lambda pair: pair[0].isspace()):
        if not is_space:
            yield list(group)


def _decompose_placed(word: _Placed) -> _Placed:
    """Canonical decomposition (NFD): each character's own, then marks in canonical order."""
    decomposed = _apply(lambda char: unicodedata.normalize("NFD", char), word)
    ordered: _Placed = []
    for is_mark, group in itertools.groupby(
        decomposed, lambda pair: unicodedata.combining(pair[0]) > 0
    ):
        run = list(group)
        ordered += sorted(run, key=lambda pair: unicodedata.combining(pair[0])) if is_mark else run
    return ordered


# --- Writing text from words ---

_JOINS_LEFT = frozenset(
    ".,!?;:%)]}\u2019\u201d\u3002\uff0c\u3001\uff01\uff1f\uff1b\uff1a\uff09\u300b\u300d\u2026"
)
_JOINS_RIGHT = frozenset("([{$#@\u201c\u2018\uff08\u300a\u300c")
_JOINS_BOTH = frozenset("-/_'\u2010\u2011")


def _as_written(words: list[str]) -> str:
    """Joins words with spaces, but sets punctuation and ideographs without them."""
    text = ""
    is_ideograph = _PUBLISHED_IDEOGRAPHS.one.match
    for word in words:
        before = text[-1:]
        tight = (
            word in _JOINS_LEFT
            or word in _JOINS_BOTH
            or before in _JOINS_RIGHT
            or before in _JOINS_BOTH
            or (is_ideograph(word) and (is_ideograph(before) or before in _JOINS_LEFT))
        )
        text += word if tight or not text else f" {word}"
    return text


# --- Casing ---

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
            f"text is {'' if do_lower_case else 'not '}lower-cased, but {init_checkpoint} is a"
            f" {'cased' if do_lower_case else 'lower-cased'} model ({name});"
            f" pass --do_lower_case={not do_lower_case}"
        )
