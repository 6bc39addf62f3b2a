r"""Fills [MASK] in texts: the most probable words, with their probabilities.

Reads   texts with one [MASK] or more in them, and a pretrained model with its masked-LM head.
Writes  JSON lines: {"text": "...", "masks": [[{"word": "train", "probability": 0.31, "pieces":
        ["train"], "text": "..."}, ...], ...]}: of each [MASK] its candidates, the best first, and
        the text with each in place of this [MASK].

Examples:
  bert fill-mask --bert_dir=out/pretrained --text='The [MASK] to the town was late.'

  bert fill-mask --bert_dir=out/pretrained --input_file=- < cloze.txt | jq -r .masks[0][0].word
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Optional

from bert_toolkit import cli
from bert_toolkit.commands import texts
from bert_toolkit.commands.texts import TextOptions
from bert_toolkit.io.progress import Progress
from bert_toolkit.options import ModelOptions, RuleOptions, TokenizerOptions, check, option

# Lines that are sorted by length together.
LINES_TOGETHER = 256


@dataclasses.dataclass(frozen=True)
class Options(TextOptions):
    """The options of this command."""

    top_k: int = option(5, "Candidates of each [MASK].", lower=1)
    num_pieces: int = option(
        1,
        "WordPieces of a word. Words of several are searched for from the left with a beam; their"
        " probability is the product of each piece's, given the text and the pieces before it.",
        lower=1,
        upper=10,
    )
    targets: Optional[Sequence[str]] = option(
        None,
        "Words to choose among, separated by commas, of --num_pieces each; probabilities stay those"
        " among all words.",
    )

    GROUPS: ClassVar = {
        "Input and output": ("text", "input_file", "output_file"),
        "Candidates": ("top_k", "num_pieces", "targets"),
        "Model": (ModelOptions, TokenizerOptions, RuleOptions),
        "Batches": ("batch_size", "max_seq_length"),
    }

    def __post_init__(self):
        check(self.text_conflicts())


def run(options: Options) -> int:
    """Writes the candidates; returns the number of texts.

    Raises:
      UserError: an input cannot be used, or the model has no masked-LM head.
    """
    options.check_files()
    groups = texts.in_groups(texts.read(options), LINES_TOGETHER)
    from bert_toolkit.inference.fill_mask import FillMask

    with (
        FillMask.from_options(options, options.max_seq_length) as model,
        texts.open_output(options.output_file) as stream,
        Progress("filling", "texts") as progress,
    ):
        for group in groups:
            found = model.fill(
                [line.text for line in group],
                options.top_k,
                options.num_pieces,
                options.targets,
                options.batch_size,
                [line.where for line in group],
            )
            for line, masks in zip(group, found):
                row = {"text": line.text, "masks": [list(map(_shown, one)) for one in masks]}
                texts.write(stream, row)
            progress.update(len(group))
        return progress.done


def _shown(candidate) -> dict:
    return {
        "word": candidate.word,
        "probability": texts.rounded(candidate.probability),
        "pieces": candidate.pieces,
        "text": candidate.text,
    }


def entry() -> None:
    """The console command."""
    cli.run(run, Options, __doc__)


if __name__ == "__main__":
    entry()
