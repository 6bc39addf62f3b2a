"""A stage's tokenizer: its rules, from flags and files, and warnings of what does not fit."""

import json
import os
import unicodedata
from typing import Optional

from absl import logging

from bert_toolkit.errors import UserError
from bert_toolkit.io import files
from bert_toolkit.options import RuleOptions
from bert_toolkit.text import tokenizer_config
from bert_toolkit.text.tokenizer_config import NAMES, RULES_FILE, Rules
from tokenization import FullTokenizer, vocabulary_problems

__all__ = [
    "NAMES",
    "RULES_FILE",
    "Rules",
    "casing_problem",
    "is_special",
    "load",
    "rules",
    "warn_of_unknown",
]


def rules(options: RuleOptions, vocab_file: Optional[str]) -> Rules:
    """Returns what the flags say, else what lies beside the vocabulary, else the defaults.

    Raises:
      UserError: flags and files contradict each other, or a file cannot be followed.
    """
    beside = tokenizer_config.read(vocab_file) if vocab_file else tokenizer_config.Said({}, "")
    chosen = dict(beside.values)
    for name in NAMES:
        given, said = getattr(options, name), beside.values.get(name)
        given = tuple(given) if isinstance(given, (list, tuple)) else given
        if given is None:
            continue
        if said is not None and given != said:
            raise UserError(
                f"--{name}={given}, but the {os.path.basename(beside.path)} beside {vocab_file}"
                f" says {json.dumps(said)}; leave the flag out, or use that model's own vocabulary"
            )
        chosen[name] = given
    return Rules(**chosen)


def load(vocab_file: str, rules: Rules) -> FullTokenizer:
    """Loads a tokenizer, and warns of what is odd about its vocabulary.

    Raises:
      UserError: the vocabulary cannot be used.
    """
    files.check_input(vocab_file, "vocab_file")
    tokenizer = rules.tokenizer(vocab_file)
    problems = vocabulary_problems(vocab_file)
    casing = casing_problem(tokenizer)
    if casing:
        problems.append(f"{vocab_file}: {casing}")
    for problem in problems:
        logging.warning("%s", problem)
    return tokenizer


# --- Casing ---

# The share of words with capitals or accents above which a vocabulary is not a lower-cased one. The
# published cased ones have a third, the lower-cased ones none.
CASED = 0.001
# Of fewer words nothing is concluded.
FEWEST_WORDS = 200


def casing_problem(tokenizer: FullTokenizer) -> Optional[str]:
    """Returns what is odd about a vocabulary for the tokenizer's casing; None if nothing."""
    words = [token.removeprefix("##") for token in tokenizer.vocab if not is_special(token)]
    letters = [word for word in words if word.isalpha()]
    if len(letters) < FEWEST_WORDS:
        return None
    if tokenizer.do_lower_case:
        strips = tokenizer.basic_tokenizer.strip_accents
        lost = [word for word in letters if word.lower() != word or (strips and _has_marks(word))]
        if len(lost) < CASED * len(letters):
            return None
        example = max(lost, key=len)
        return (
            f"{len(lost):,} of its {len(letters):,} words have capital letters or accents"
            f" ({example!r} for one), but text is lower-cased; for a cased model set do_lower_case"
            f" to false, by the flag or in the {RULES_FILE} beside the vocabulary"
        )
    if any(word.lower() != word for word in letters) or not any(map(_has_case, letters)):
        return None
    return (
        "none of its words has a capital letter, but text is not lower-cased; for an uncased model"
        f" set do_lower_case to true, by the flag or in the {RULES_FILE} beside the vocabulary"
    )


def is_special(token: str) -> bool:
    """Whether a token is one such as [CLS] or [unused1], which no text gives."""
    return token.startswith("[") and token.endswith("]")


def _has_case(word: str) -> bool:
    return word.upper() != word


def _has_marks(word: str) -> bool:
    return not word.isascii() and any(
        unicodedata.category(char) == "Mn" for char in unicodedata.normalize("NFD", word)
    )


# --- Text that the vocabulary does not know ---

# The share of [UNK] above which a vocabulary hardly fits a text.
MANY_UNKNOWN = 0.2


def warn_of_unknown(what: str, unknown: int, tokens: int) -> None:
    """Says so if much of a text, or all of it, is [UNK].

    Args:
      what: the text, for messages.
      unknown: how many of its tokens are.
      tokens: how many there are, special ones not among them.
    """
    if not tokens or unknown <= MANY_UNKNOWN * tokens:
        return
    if unknown == tokens:
        logging.warning(
            "%s: every token is [UNK], so that nothing of the text is left; is the vocabulary of"
            " another language or script, does its casing differ (do_lower_case), or was the text"
            " read in a wrong encoding?",
            what,
        )
    else:
        logging.info(
            "hint: %s: %.0f %% of tokens are [UNK]; does the vocabulary fit the language, the"
            " casing (do_lower_case) and the characters of the text?",
            what,
            100 * unknown / tokens,
        )
