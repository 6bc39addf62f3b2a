r"""Makes a WordPiece vocabulary from text.

Reads   plain text (or .gz), UTF-8.
Writes  vocab.txt, one token a line, and beside it tokenizer_config.json with the rules that the
        text was cut by, which the other stages follow.

Example:
  bert build-vocab --input_file=sample_data/corpus.txt --output_file=out/vocab.txt \
    --vocab_size=1000 --heldout_file=sample_data/corpus_heldout.txt

Needs the tokenizers package: pip install 'bert-toolkit[vocab]'.
"""

import collections
import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, Optional

from absl import logging

from bert_toolkit import cli
from bert_toolkit.errors import UserError
from bert_toolkit.io import files
from bert_toolkit.io.progress import Progress
from bert_toolkit.options import RuleOptions, check, option
from bert_toolkit.text import tokenizer_rules
from tokenization import (
    CLASSIFY,
    MASK,
    PAD,
    SEPARATE,
    UNKNOWN,
    BasicTokenizer,
    FullTokenizer,
)

SPECIAL_TOKENS = (PAD, UNKNOWN, CLASSIFY, SEPARATE, MASK)
LONGEST_WORD = 100  # characters; longer ones are addresses and data, and slow the training

# Without held-out text, so many lines are trained on for each that is kept for judging.
LINES_PER_HELD_OUT_LINE = 100
MOST_REPETITIONS = 1000  # of a word in a line for the trainer


@dataclasses.dataclass(frozen=True)
class Options(RuleOptions):
    """The options of this stage."""

    input_file: str = option(
        "", "Text to read: files and glob patterns, separated by commas.", required=True
    )
    output_file: str = option("", "The vocabulary to write.", required=True)
    heldout_file: Optional[str] = option(
        None,
        "Text to judge the vocabulary by; without it, every hundredth line of the input, which"
        " is then left out of the training.",
    )
    vocab_size: int = option(
        30522, "Entries in all; a multiple of 64 is quickest on GPUs and TPUs.", lower=100
    )
    min_frequency: int = option(2, "Pieces that occur less often are left out.", lower=1)
    limit_alphabet: int = option(
        1000,
        "Most characters; rarer ones make their words [UNK]. Chinese needs some thousands.",
        lower=1,
    )
    num_unused: int = option(
        100,
        "Entries [unused0], [unused1], ... to give a meaning (bert extend-vocab).",
        lower=0,
    )

    GROUPS: ClassVar = {
        "Input and output": ("input_file", "output_file", "heldout_file"),
        "Vocabulary": ("vocab_size", "min_frequency", "limit_alphabet", "num_unused"),
        "Tokenization": (RuleOptions,),
    }

    def __post_init__(self):
        conflicts = []
        if len(self.reserved()) >= self.vocab_size:
            conflicts.append(
                f"--vocab_size={self.vocab_size}: {len(self.reserved())} entries are special or"
                " unused; ask for more, or for less --num_unused"
            )
        if len(set(self.reserved())) < len(self.reserved()):
            conflicts.append(
                "--never_split: each once, and none of BERT's own, which have a place anyway"
            )
        check(conflicts)

    def reserved(self) -> list[str]:
        """Returns the entries that do not come from the text, in their order."""
        unused = [f"[unused{number}]" for number in range(self.num_unused)]
        return [*SPECIAL_TOKENS, *(self.never_split or ()), *unused]


def run(options: Options) -> dict[str, float]:
    """Makes the vocabulary; returns how it covers held-out text.

    Raises:
      UserError: an input cannot be used, or holds no text.
    """
    input_files = files.expand_inputs(options.input_file, "input_file")
    if options.heldout_file:
        files.check_input(options.heldout_file, "heldout_file")
    files.check_output(options.output_file)
    rules = tokenizer_rules.rules(options, None)
    text = Text(input_files, options.heldout_file, rules)
    tokens = train(text, options)
    rules_file = os.path.join(os.path.dirname(options.output_file), tokenizer_rules.RULES_FILE)
    with files.replacing([options.output_file, rules_file]) as [vocab_name, rules_name]:
        files.write_text(vocab_name, "".join(f"{token}\n" for token in tokens))
        files.write_text(rules_name, rules.to_json())
    logging.info("wrote %s: %s entries", options.output_file, f"{len(tokens):,}")
    tokenizer = rules.tokenizer(options.output_file)
    covered = coverage(tokenizer, text.heldout)
    logging.info(
        "held-out text, %s words: %.2f tokens a word, %.1f %% of words whole, %.3f %% of tokens"
        " [UNK]",
        f"{covered['words']:,.0f}",
        covered["tokens_per_word"],
        100 * covered["whole_words"],
        100 * covered["unknown_tokens"],
    )
    return covered


class Text:
    """The words of the training text with their counts, and the lines that are held out."""

    def __init__(
        self, input_files: Sequence[str], heldout_file: Optional[str], rules: tokenizer_rules.Rules
    ):
        """Reads all."""
        self.heldout = list(files.read_lines(heldout_file)) if heldout_file else []
        pieces: collections.Counter[str] = collections.Counter()
        basic = BasicTokenizer(
            rules.do_lower_case,
            strip_accents=rules.strip_accents,
            tokenize_chinese_chars=rules.tokenize_chinese_chars,
            never_split=rules.never_split,
        )
        with Progress("reading", "lines") as progress:
            for name in input_files:
                for number, line in enumerate(files.read_lines(name)):
                    progress.update()
                    if not heldout_file and number % LINES_PER_HELD_OUT_LINE == 1:
                        self.heldout.append(line)
                    else:
                        pieces.update(basic.cut(line))
        self.words: collections.Counter[str] = collections.Counter()
        for piece, count in pieces.items():
            for word in basic.words(piece) if basic.whole_token(piece) is None else []:
                if len(word) <= LONGEST_WORD:
                    self.words[word] += count

    def characters(self, most: int) -> tuple[set[str], list[str]]:
        """Returns the most frequent characters, and the entries that they need.

        A character is an entry, and with ## another one if it occurs inside words.
        """
        counts: collections.Counter[str] = collections.Counter()
        inside: set[str] = set()
        for word, count in self.words.items():
            inside.update(word[1:])
            for char in word:
                counts[char] += count
        alphabet = sorted(counts, key=lambda char: (-counts[char], char))[:most]
        return set(alphabet), sorted(alphabet) + sorted(f"##{c}" for c in inside & set(alphabet))


def train(text: Text, options: Options) -> list[str]:
    """Returns the entries of the vocabulary, the reserved ones first."""
    try:
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    except ImportError:
        raise UserError(
            "bert build-vocab needs the tokenizers package: pip install 'bert-toolkit[vocab]'"
        ) from None
    if not text.words:
        raise UserError(f"--input_file={options.input_file}: no text in it")
    alphabet, characters = text.characters(options.limit_alphabet)
    fixed = options.reserved() + characters
    if len(fixed) >= options.vocab_size:
        raise UserError(
            f"--vocab_size={options.vocab_size}: {len(fixed):,} entries are taken by special tokens"
            f" and {len(alphabet):,} characters; ask for more entries, or a lower --limit_alphabet"
        )
    trained = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    trained.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=options.vocab_size,
        min_frequency=options.min_frequency,
        # The trainer would number the single characters in the order of a hash table, which
        # decides between pieces of the same frequency, and is another one every time.
        special_tokens=fixed,
        show_progress=False,
    )
    logging.info("training on %s different words", f"{len(text.words):,}")
    trained.train_from_iterator(_repeated(text.words, alphabet), trainer)
    entries = trained.get_vocab()
    tokens = sorted(entries, key=entries.__getitem__)
    if len(tokens) < options.vocab_size:
        logging.warning(
            "%s entries, %s were asked for: no further piece occurs %d times; give more text, or a"
            " lower --min_frequency",
            f"{len(tokens):,}",
            f"{options.vocab_size:,}",
            options.min_frequency,
        )
    return tokens


def _repeated(words: Mapping[str, int], alphabet: set[str]) -> Iterator[str]:
    """Yields each word as often as it occurs, as text; the trainer takes no counts."""
    for word, count in words.items():
        if alphabet.issuperset(word):
            for start in range(0, count, MOST_REPETITIONS):
                yield f"{word} " * min(MOST_REPETITIONS, count - start)


def coverage(tokenizer: FullTokenizer, lines: Iterable[str]) -> dict[str, float]:
    """Returns how a vocabulary covers text: tokens a word, shares of whole words and of [UNK]."""
    counts: collections.Counter[str] = collections.Counter()
    for line in lines:
        for word in tokenizer.basic_tokenizer.tokenize(line):
            pieces = tokenizer.wordpiece_tokenizer.tokenize(word)
            counts["words"] += 1
            counts["tokens"] += len(pieces)
            counts["whole"] += pieces == [word]
            counts["unknown"] += pieces == [UNKNOWN]
    words, tokens = max(1, counts["words"]), max(1, counts["tokens"])
    return {
        "words": counts["words"],
        "tokens_per_word": counts["tokens"] / words,
        "whole_words": counts["whole"] / words,
        "unknown_tokens": counts["unknown"] / tokens,
    }


def entry() -> None:
    """The console command."""
    cli.run(run, Options, __doc__)


if __name__ == "__main__":
    entry()
