"""Tokenization inside a graph, by tensorflow-text: texts in, what the model reads out.

For exported models, which have no Python. docs/export.md tells where the results are not those of
tokenization.py.
"""

from typing import Any, Optional

import tensorflow.compat.v1 as tf

from bert_toolkit import features
from bert_toolkit.errors import UserError
from bert_toolkit.tokenizers import Rules
from tokenization import CLASSIFY, SEPARATE, UNKNOWN, FullTokenizer, vocabulary_problems

# RE2: what BERT's rules drop, but for tab and line ends; what is white space; combining marks.
_DROPPED = r"[\x{0}-\x{8}\x{b}\x{c}\x{e}-\x{1f}\x{7f}-\x{9f}\x{fffd}]|\p{Cf}"
_SPACES = r"\p{Z}"
_MARKS = r"\p{Mn}"

# The longest word that is cut into pieces: Python counts 200 characters, this counts bytes.
_LONGEST_WORD = 600


class GraphTokenizer:
    """Tokenizes string tensors, with a vocabulary that is an asset of the graph."""

    def __init__(self, vocab_file: str, rules: Rules):
        """Makes the look-up table.

        Raises:
          UserError: tensorflow-text is not there, or it cannot follow these rules.
        """
        self._text = import_tensorflow_text()
        if rules.never_split or not rules.tokenize_chinese_chars:
            raise UserError(
                "--with_text: tokenization in the graph knows neither --never_split nor"
                " --notokenize_chinese_chars; export with --nowith_text"
            )
        problems = vocabulary_problems(vocab_file)
        if problems:
            raise UserError(
                f"--with_text: {problems[0]}; a table in the graph"
                " cannot have that; export with --nowith_text"
            )
        self._lower = rules.do_lower_case
        self._strip = rules.do_lower_case if rules.strip_accents is None else rules.strip_accents
        vocab = FullTokenizer(vocab_file).vocab
        self._cls, self._sep = vocab[CLASSIFY], vocab[SEPARATE]
        initializer = tf.lookup.TextFileInitializer(
            vocab_file,
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        self._tokenizer = self._text.BertTokenizer(
            tf.lookup.StaticVocabularyTable(initializer, num_oov_buckets=1),
            max_bytes_per_word=_LONGEST_WORD,
            unknown_token=UNKNOWN,
            token_out_type=tf.int64,
            lower_case=False,  # done here, as Python does it
        )

    def ids(self, texts: tf.Tensor) -> Any:
        """[B] strings -> ragged int32 [B, (tokens)], without special tokens."""
        cleaned = tf.strings.regex_replace(texts, _DROPPED, "")
        cleaned = tf.strings.regex_replace(cleaned, _SPACES, " ")
        if self._lower:
            cleaned = tf.strings.lower(cleaned, encoding="utf-8")
        if self._strip:
            cleaned = self._text.normalize_utf8(cleaned, "NFD")
            cleaned = tf.strings.regex_replace(cleaned, _MARKS, "")
        return tf.cast(self._tokenizer.tokenize(cleaned).merge_dims(-2, -1), tf.int32)

    def features(
        self, first: tf.Tensor, second: Optional[tf.Tensor], max_seq_length: int
    ) -> dict[str, tf.Tensor]:
        """[B] strings -> input_ids, input_mask and segment_ids, int32 [B, S], as `encode` does."""
        ids = self.ids(first)
        if second is None:
            room = max_seq_length - features.SPECIAL_TOKENS_OF_SINGLE
            parts = [self._before(ids, self._cls), ids[:, :room], self._before(ids, self._sep)]
            segments = [tf.zeros_like(part) for part in parts]
        else:
            ids, others = _shortened(
                ids, self.ids(second), max_seq_length - features.SPECIAL_TOKENS_OF_PAIR
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


def _shortened(first: Any, second: Any, room: int) -> tuple[Any, Any]:
    """Ragged ids of pairs, cut as `features.shares` says."""
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
