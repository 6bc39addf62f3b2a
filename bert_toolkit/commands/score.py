r"""Scores texts by a pretrained model: pseudo-perplexity, or whether one follows another.

Reads   texts, or with --next_sentence pairs of them with a tab or ||| between; and a pretrained
        model with the head that is asked.
Writes  JSON lines: {"line": 1, "text": "...", "tokens": 7, "pseudo_log_likelihood": -21.4,
        "pseudo_perplexity": 21.3}; with --next_sentence {"line": 1, "text": "...", "text_b": "...",
        "probability": 0.93}.

Examples:
  bert score --bert_dir=out/pretrained --input_file=candidates.txt --rank=pseudo_log_likelihood

  bert score --bert_dir=out/pretrained --input_file=pairs.tsv --next_sentence
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, ClassVar, Optional

from absl import logging

from bert_toolkit import cli
from bert_toolkit.commands import texts
from bert_toolkit.commands.texts import TextOptions
from bert_toolkit.io import files
from bert_toolkit.io.progress import Progress
from bert_toolkit.options import ModelOptions, RuleOptions, TokenizerOptions, check, option
from bert_toolkit.text import tokenizer_rules
from tokenization import UNKNOWN

# Lines that are sorted by length together: of texts each token is a sequence.
TEXTS_TOGETHER, PAIRS_TOGETHER = 64, 1024

LIKELIHOOD, PERPLEXITY = "pseudo_log_likelihood", "pseudo_perplexity"


@dataclasses.dataclass(frozen=True)
class Options(TextOptions):
    """The options of this command."""

    rank: Optional[str] = option(
        None,
        "Write the best line first, by this; without it, lines keep their order. The likelihood"
        " is a sum over tokens, the perplexity a mean: it does not prefer short texts.",
        choices=[LIKELIHOOD, PERPLEXITY],
    )
    per_token: bool = option(
        False, "Write the tokens and the logarithm of each one's probability, too."
    )
    mask_rest_of_word: bool = option(
        False,
        "Mask the later pieces of a token's word, too, as they give it away (Kauf and Ivanova,"
        " 2023).",
    )
    next_sentence: bool = option(
        False,
        "Write the probability that the second text of each pair follows the first. A pair is a"
        " line with a tab or ||| between its texts, or an object with text and text_b.",
    )

    GROUPS: ClassVar = {
        "Input and output": ("text", "input_file", "output_file"),
        "Scores": ("rank", "per_token", "mask_rest_of_word", "next_sentence"),
        "Model": (ModelOptions, TokenizerOptions, RuleOptions),
        "Batches": ("batch_size", "max_seq_length"),
    }

    def __post_init__(self):
        conflicts = self.text_conflicts()
        of_texts = [
            name for name in ("rank", "per_token", "mask_rest_of_word") if getattr(self, name)
        ]
        if self.next_sentence and of_texts:
            conflicts.append(f"--next_sentence: goes without --{', --'.join(of_texts)}")
        check(conflicts)


def run(options: Options) -> int:
    """Writes the scores; returns the number of lines.

    Raises:
      UserError: an input cannot be used, or the model has not the head.
    """
    options.check_files()
    with Progress("scoring", "lines", _count(options)) as progress:
        rows = _pairs(options, progress) if options.next_sentence else _texts(options, progress)
        if options.rank:
            rows = iter(sorted(rows, key=lambda row: _rank(row, options.rank)))
        with texts.open_output(options.output_file) as stream:
            for row in rows:
                texts.write(stream, row)
        return progress.done


def _count(options: Options) -> Optional[int]:
    if options.text:
        return len(options.text)
    path = options.input_file
    return None if path in (None, files.STREAM) else files.count_lines(path)


def _pairs(options: Options, progress: Progress) -> Iterator[dict[str, Any]]:
    """Yields what is written of each pair."""
    groups = texts.in_groups(texts.read(options, texts.TWO), PAIRS_TOGETHER)
    from bert_toolkit.inference.scorer import NextSentence

    with NextSentence.from_options(options, options.max_seq_length) as model:
        for group in groups:
            pairs = [(line.text, line.text_b or "") for line in group]
            for line, value in zip(group, model.predict(pairs, options.batch_size)):
                yield {
                    "line": line.number,
                    "text": line.text,
                    "text_b": line.text_b,
                    "probability": texts.rounded(value),
                }
            progress.update(len(group))


def _texts(options: Options, progress: Progress) -> Iterator[dict[str, Any]]:
    """Yields what is written of each text; says what there is to say of all."""
    groups = texts.in_groups(texts.read(options), TEXTS_TOGETHER)
    from bert_toolkit.inference.scorer import Scorer, pseudo_perplexity

    total, tokens, unknown, cut, empty = 0.0, 0, 0, 0, 0
    with Scorer.from_options(options, options.max_seq_length) as model:
        for group in groups:
            found = model.score(
                [line.text for line in group], options.batch_size, options.mask_rest_of_word
            )
            for line, score in zip(group, found):
                yield _shown(line, score, options.per_token)
                total += score.pseudo_log_likelihood
                tokens += len(score.tokens)
                unknown += score.tokens.count(UNKNOWN)
                cut += score.cut > 0
                empty += not score.tokens
            progress.update(len(group))
    name = files.shown(options.input_file) if options.input_file else "--text"
    tokenizer_rules.warn_of_unknown(name, unknown, tokens)
    if cut:
        logging.warning(
            "%s: %d texts were cut to max_seq_length; only what is left counts", name, cut
        )
    if empty:
        logging.warning("%s: %d texts without tokens have no score", name, empty)
    if tokens:
        logging.info(
            "%s texts, %s tokens: pseudo-log-likelihood %.2f, pseudo-perplexity %.2f",
            f"{progress.done:,}",
            f"{tokens:,}",
            total,
            pseudo_perplexity(total, tokens),
        )


def _shown(line: texts.Line, score: Any, per_token: bool) -> dict[str, Any]:
    likelihood = score.pseudo_log_likelihood if score.tokens else math.nan
    row = {
        "line": line.number,
        "text": line.text,
        "tokens": len(score.tokens),
        LIKELIHOOD: texts.rounded(likelihood),
        PERPLEXITY: texts.rounded(score.pseudo_perplexity),
    }
    if per_token:
        values = map(texts.rounded, score.log_probabilities.tolist())
        row["log_probabilities"] = list(zip(score.tokens, values))
    return row


def _rank(row: dict[str, Any], by: Optional[str]) -> float:
    """Returns what rows are sorted by; those without a score come last."""
    value = row[by or PERPLEXITY]
    if value is None:
        return math.inf
    return -value if by == LIKELIHOOD else value


def entry() -> None:
    """The console command."""
    cli.run(run, Options, __doc__)


if __name__ == "__main__":
    entry()
