"""Words of Chinese, which is written without spaces between them."""

import re
from collections.abc import Sequence
from typing import Callable

from bert_toolkit.errors import UserError
from tokenization import FullTokenizer

SEGMENTERS = ("jieba",)


def load(name: str) -> Callable[[str], Sequence[str]]:
    """Returns the function that cuts a text into words, which joined are the text again.

    "jieba" is the algorithm and the dictionary of that package, as rjieba has them
    (docs/decisions.md).

    Args:
      name: one of SEGMENTERS.

    Raises:
      UserError: its package is not installed.
    """
    assert name in SEGMENTERS
    try:
        import rjieba
    except ImportError as error:
        raise UserError(
            f"--segmenter={name} needs rjieba ({error}); pip install 'bert-toolkit[zh]'"
        ) from None
    return rjieba.cut


class WordMarker:
    """Tokenizes text, and tells which tokens go on with the word of the token before.

    A word is the WordPieces of what the tokenizer takes for a word and, where a word of the
    segmenter has an ideograph in it, all tokens of that word.
    """

    def __init__(self, tokenizer: FullTokenizer, segmenter: str):
        """Loads the segmenter.

        Raises:
          UserError: its package is not installed, or the tokenizer does not make a token of each
            ideograph.
        """
        ideographs = tokenizer.basic_tokenizer.set_apart
        if not ideographs:
            raise UserError(
                f"--segmenter={segmenter}: the tokenizer has tokenize_chinese_chars=false, so that"
                " its tokens are parts of whole sentences; expected a token for each Chinese"
                " character. Leave the flag out, or pass --tokenize_chinese_chars"
            )
        self._tokenizer = tokenizer
        self._cut = load(segmenter)
        self._has_ideograph = re.compile(f"[{ideographs}]").search

    def encode(self, text: str) -> tuple[list[int], list[bool]]:
        """Returns the ids of the tokens of `text`, and of each whether it is inside of a word."""
        tokens, offsets = self._tokenizer.tokenize_with_offsets(text)
        words = self._word_of_characters(text)
        inside = []
        previous = None
        for token, (start, _) in zip(tokens, offsets):
            word = words.get(start)
            inside.append(token.startswith("##") or (word is not None and word == previous))
            previous = word
        return self._tokenizer.convert_tokens_to_ids(tokens), inside

    def _word_of_characters(self, text: str) -> dict[int, int]:
        """Returns, for each character of a word with an ideograph in it, where the word begins."""
        words: dict[int, int] = {}
        if not self._has_ideograph(text):
            return words
        start = 0
        for word in self._cut(text):
            end = start + len(word)
            if self._has_ideograph(word):
                words.update(dict.fromkeys(range(start, end), start))
            start = end
        return words
