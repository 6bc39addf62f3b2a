"""Tokenization inside a graph, by tensorflow-text: texts in, what the model reads out.

For exported models, which have no Python. docs/export.md tells where the results are not those of
tokenization.py.
"""

from typing import Any, Optional

import tensorflow.compat.v1 as tf

from bert_toolkit.errors import UserError
from bert_toolkit.text import encoding
from bert_toolkit.text.tokenizer_config import Rules
from tokenization import CLASSIFY, SEPARATE, UNKNOWN, vocabulary_problems

# RE2: what BERT's rules drop, but for tab and line ends; what is white space; combining marks.
_DROPPED = r"[\x{0}-\x{8}\x{b}\x{c}\x{e}-\x{1f}\x{7f}-\x{9f}\x{fffd}]|\p{Cf}"
_PRIVATE = r"\p{Co}"
_SPACES = r"\p{Z}"
_MARKS = r"\p{Mn}"
_PUNCTUATION = r"[!-/:-@\[-`{-~\p{P}]"


class GraphTokenizer:
    """Tokenizes string tensors, with a vocabulary that is an asset of the graph."""

    def __init__(self, vocab_file: str, rules: Rules):
        """Makes the look-up table.

        Args:
          vocab_file: one token a line.
          rules: of the tokenizer.

        Raises:
          UserError: tensorflow-text is not there, or it cannot follow these rules.
        """
        self._text = import_tensorflow_text()
        normalized = [token.content for token in rules.added_tokens if token.normalized]
        if normalized:
            raise UserError(
                "--with_text: tokenization in the graph does not know added tokens that are looked"
                f" for in lower-cased text ({', '.join(normalized[:3])}); export with --nowith_text"
            )
        problems = vocabulary_problems(vocab_file)
        if problems:
            raise UserError(
                f"--with_text: {problems[0]}; a table in the graph"
                " cannot have that; export with --nowith_text"
            )
        self._rules = rules
        self._strip = rules.do_lower_case if rules.strip_accents is None else rules.strip_accents
        tokenizer = rules.tokenizer(vocab_file)
        self._cls, self._sep = tokenizer.vocab[CLASSIFY], tokenizer.vocab[SEPARATE]
        self._whole = {
            token: tokenizer.vocab[token] for token in tokenizer.basic_tokenizer.whole_tokens
        }
        initializer = tf.lookup.TextFileInitializer(
            vocab_file,
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        apart = tokenizer.basic_tokenizer.set_apart
        self._words = f"{_PUNCTUATION}|[{apart}]" if apart else _PUNCTUATION
        self._pieces = self._text.WordpieceTokenizer(
            tf.lookup.StaticVocabularyTable(initializer, num_oov_buckets=1),
            max_bytes_per_word=4 * rules.max_input_chars_per_word,
            unknown_token=UNKNOWN,
            token_out_type=tf.int64,
        )

    def ids(self, texts: tf.Tensor) -> Any:
        """[B] strings -> ragged int32 [B, (tokens)], without special tokens."""
        if not self._whole:
            return self._ids_of_pieces(texts)
        longest_first = sorted(self._whole, key=lambda token: (-len(token), token))
        pattern = "|".join(map(_quoted, longest_first))
        # Text ends at a null character for that operation; others are dropped like it.
        texts = tf.strings.regex_replace(texts, r"\x{0}", "\x01")
        parts = self._text.regex_split(texts, pattern, pattern)  # [B, (parts)]
        table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(
                longest_first, [self._whole[token] for token in longest_first], tf.string, tf.int32
            ),
            default_value=-1,
        )
        whole = table.lookup(parts.flat_values)  # [P], -1 for text
        is_whole = whole >= 0
        others = self._ids_of_pieces(tf.where_v2(is_whole, "", parts.flat_values))
        column = tf.RaggedTensor.from_tensor(whole[:, None])
        found = tf.concat([tf.ragged.boolean_mask(column, is_whole[:, None]), others], 1)
        return parts.with_flat_values(found).merge_dims(1, 2)

    def _ids_of_pieces(self, texts: tf.Tensor) -> Any:
        """As `ids`, of text in which no token is kept whole."""
        theirs = self._rules.hugging_face
        dropped = f"{_DROPPED}|{_PRIVATE}" if theirs else _DROPPED
        cleaned = tf.strings.regex_replace(texts, dropped, "")
        cleaned = tf.strings.regex_replace(cleaned, _SPACES, " ")
        if self._rules.do_lower_case:
            if theirs:  # whatever its place in the word
                cleaned = tf.strings.regex_replace(cleaned, "\u03a3", "\u03c3")
            cleaned = tf.strings.lower(cleaned, encoding="utf-8")
        if self._strip:
            cleaned = self._text.normalize_utf8(cleaned, "NFD")
            cleaned = tf.strings.regex_replace(cleaned, _MARKS, "")
        words = self._text.regex_split(cleaned, rf"\s+|{self._words}", self._words)
        lengths = tf.strings.length(words.flat_values, unit="UTF8_CHAR")
        too_long = lengths > self._rules.max_input_chars_per_word
        words = words.with_flat_values(tf.where_v2(too_long, UNKNOWN, words.flat_values))
        return tf.cast(self._pieces.tokenize(words).merge_dims(-2, -1), tf.int32)

    def features(
        self, first: tf.Tensor, second: Optional[tf.Tensor], max_seq_length: int
    ) -> dict[str, tf.Tensor]:
        """[B] strings -> input_ids, input_mask and segment_ids, int32 [B, S], as `encode` does."""
        ids = self.ids(first)
        if second is None:
            room = max_seq_length - encoding.SPECIAL_TOKENS_OF_SINGLE
            parts = [self._before(ids, self._cls), ids[:, :room], self._before(ids, self._sep)]
            segments = [tf.zeros_like(part) for part in parts]
        else:
            ids, others = _shortened(
                ids, self.ids(second), max_seq_length - encoding.SPECIAL_TOKENS_OF_PAIR
            )
            # The second [SEP] goes with a second text that has tokens.
            end = tf.ragged.boolean_mask(
                self._before(ids, self._sep), (others.row_lengths() > 0)[:, None]
            )
            parts = [self._before(ids, self._cls), ids, self._before(ids, self._sep), others, end]
            segments = [tf.zeros_like(part) for part in parts[:3]]
            segments += [tf.ones_like(part) for part in parts[3:]]
        joined = tf.concat(parts, 1)
        mask = tf.ones_like(joined)
        return {
            "input_ids": joined.to_tensor(),
            "input_mask": mask.to_tensor(),
            "segment_ids": tf.concat(segments, 1).to_tensor(),
        }

    @staticmethod
    def _before(ids: Any, token: int) -> Any:
        """A column of one token, ragged [B, (1)]."""
        column = tf.fill([ids.nrows(), 1], token)
        return tf.RaggedTensor.from_tensor(tf.cast(column, tf.int32))


def _quoted(token: str) -> str:
    """Returns the RE2 pattern of a text."""
    return "".join(char if char.isalnum() else f"\\x{{{ord(char):x}}}" for char in token)


def _shortened(first: Any, second: Any, room: int) -> tuple[Any, Any]:
    """Ragged ids of pairs, cut as `encoding.shares` says."""
    a, b = first.row_lengths(), second.row_lengths()
    over = tf.maximum(a + b - room, 0)
    from_longer = tf.minimum(over, tf.abs(a - b))
    rest = over - from_longer
    kept_a = a - tf.where_v2(a > b, from_longer, 0) - rest // 2
    kept_b = b - tf.where_v2(a > b, tf.zeros_like(b), from_longer) - (rest + 1) // 2
    # An empty second text takes no [SEP] of its own, so that the first may have one token more.
    kept_a = tf.where_v2(b > 0, kept_a, tf.minimum(a, room + 1))
    return tuple(
        tf.ragged.boolean_mask(ids, tf.ragged.range(ids.row_lengths()) < kept[:, None])
        for ids, kept in ((first, kept_a), (second, kept_b))
    )  # type: ignore[return-value]


def import_tensorflow_text() -> Any:
    """Returns the module tensorflow_text; a UserError if it is not installed."""
    try:
        import tensorflow_text
    except (ImportError, tf.errors.OpError) as error:  # the latter of another TensorFlow's
        raise UserError(
            f"--with_text needs tensorflow-text ({error}); pip install 'bert-toolkit[text]', or"
            " export with --nowith_text"
        ) from None
    return tensorflow_text
