r"""Shows the share of every word in what a classifier says of a text.

Reads   texts, or lines of them ("first text ||| second text" for a pair, or JSON lines), and a
        trained classifier.
Writes  the words with their shares, marked on a terminal; or a page for a browser (.html), or JSON
        lines. A share is in units of the label's logit: above 0 the word speaks for the label.

Examples:
  bert explain --bert_dir=demo_output/reviews --text="I was bored, and the hall was cold."

  bert explain --bert_dir=demo_output/reviews --input_file=lines.txt --output_file=why.html
"""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator, Sequence
from typing import IO, Any, ClassVar, Optional

from absl import logging

from bert_toolkit import cli
from bert_toolkit.commands import texts
from bert_toolkit.commands.texts import TextOptions
from bert_toolkit.inference.explanation import (
    BOTH,
    INTEGRATED_GRADIENTS,
    METHODS,
    OCCLUSION,
    STEPS,
    Explanation,
    WordShare,
)
from bert_toolkit.io import files
from bert_toolkit.io.progress import Progress, size
from bert_toolkit.options import ModelOptions, RuleOptions, TokenizerOptions, check, option
from bert_toolkit.pages import page
from bert_toolkit.text import words

NAMES = {INTEGRATED_GRADIENTS: "gradients", OCCLUSION: "left out"}
# Above it, the sum of integrated gradients says that there were too few steps.
LARGEST_ERROR = 0.01


@dataclasses.dataclass(frozen=True)
class Options(TextOptions):
    """The options of this command."""

    text: Optional[Sequence[str]] = option(
        None,
        "A text to explain the answer to, or a pair: first text ||| second text; may be given"
        " several times.",
        repeated=True,
    )
    text_b: Optional[str] = option(None, "The second text of a pair, whose first is --text.")
    input_file: Optional[str] = option(
        None,
        "Texts, or pairs with ||| between, a line each, .gz or plain; - for standard input. A"
        " .jsonl file has objects with text, and text_b of a pair.",
    )
    output_file: Optional[str] = option(
        None,
        "File to write, .html or .jsonl; - for JSON lines on standard output. Without it, text for"
        " people goes to standard output, with colours on a terminal unless NO_COLOR is set.",
    )
    method: str = option(
        BOTH,
        "Integrated gradients add up the gradient of the logit along the path from [MASK] in place"
        " of every word to the text, so that all shares together are what the words have changed;"
        " occlusion"
        " tells how much the logit loses if just that word is left out.",
        choices=list(METHODS),
    )
    label: Optional[str] = option(
        None, "The label to explain; without this flag, the one that is predicted."
    )
    steps: int = option(
        STEPS,
        "Points on that path. More make the sum of the shares more exact; how exact is told.",
        lower=1,
    )
    align: str = option(
        words.WORDS,
        "What a word is: what the tokenizer finds (punctuation marks and Chinese characters are"
        " some), or what stands between spaces.",
        choices=[words.WORDS, words.SPACES],
    )
    max_seq_length: int = option(128, "Texts are cut to so many tokens.", lower=4)

    GROUPS: ClassVar = {
        "Input and output": ("text", "text_b", "input_file", "output_file"),
        "Explanation": ("method", "label", "steps", "align", "max_seq_length", "batch_size"),
        "Model": (ModelOptions, TokenizerOptions, RuleOptions),
    }

    def __post_init__(self):
        conflicts = [] if self.bert_dir else ["--bert_dir is required: a trained classifier's"]
        conflicts += self.input_conflicts()
        if self.text_b is not None and len(self.text or ()) != 1:
            conflicts.append("--text_b goes with one --text; elsewhere write: first ||| second")
        path = self.output_file or files.STREAM
        if path != files.STREAM and not path.endswith((".html", ".jsonl")):
            conflicts.append(
                f"--output_file={path}: expected a name that ends in .html or .jsonl, or -"
            )
        check(conflicts)


def run(options: Options) -> int:
    """Writes explanations; returns how many.

    Raises:
      UserError: the model or the input cannot be used.
    """
    options.check_files()
    groups = texts.in_groups(read_lines(options), 1)
    from bert_toolkit.inference.explainer import Explainer

    how = (options.label, options.method, options.steps, options.align, options.batch_size)
    on_screen = options.output_file in (None, files.STREAM)
    inexact = cut = 0
    with (
        Explainer.from_options(options, options.max_seq_length) as explainer,
        open_sink(options) as sink,
        Progress("explaining", "texts", quiet=on_screen) as progress,
    ):
        for [line] in groups:
            text = line.text if line.text_b is None else (line.text, line.text_b)
            explanation = explainer.explain_one(text, *how)
            sink.write(explanation)
            inexact += explanation.error > LARGEST_ERROR
            cut += explanation.cut > 0
            progress.update()
    if cut:
        logging.warning(
            "%d of %d texts were cut to --max_seq_length=%d tokens; words beyond have no share",
            cut,
            progress.done,
            options.max_seq_length,
        )
    if inexact:
        logging.warning(
            "%d of %d texts: the shares are more than 1 %% off in all; pass more than --steps=%d",
            inexact,
            progress.done,
            options.steps,
        )
    if not on_screen:
        path = options.output_file or ""
        logging.info("wrote %s: %d texts, %s", path, progress.done, size(files.size(path)))
    return progress.done


def read_lines(options: Options) -> Iterator[texts.Line]:
    """Yields the texts and pairs to explain."""
    if options.text_b is None:
        yield from texts.read(options, texts.ONE_OR_TWO)
        return
    for line in texts.read(options):
        yield line._replace(text_b=texts.encodable(options.text_b))


def texts_of(explanation: Explanation) -> tuple[str, ...]:
    """Returns the one or two texts of an explanation."""
    text = explanation.text
    return (text,) if isinstance(text, str) else text


def methods_of(explanation: Explanation) -> list[str]:
    """Returns the methods by which an explanation has shares."""
    one = explanation.words[0] if explanation.words else None
    return [name for name in NAMES if one is not None and getattr(one, name) is not None]


def answer_line(explanation: Explanation) -> str:
    """Returns what is explained, as a line."""
    label, predicted = explanation.label, explanation.predicted
    if not label:
        return f"{explanation.logit:.4g}"
    chance = f"{label}, probability {explanation.probabilities[label]:.4f}"
    also = "" if predicted == label else f" (predicted: {predicted or 'none'})"
    return f"{chance}{also}, logit {explanation.logit:.3f}"


def sum_line(explanation: Explanation) -> str:
    """Returns what integrated gradients add up to, and how exactly, as a line."""
    return (
        f"{explanation.total:+.3f} in all by gradients, {100 * explanation.error:.2f} % off: with"
        f" [MASK] for every word, the logit is {explanation.baseline_logit:.3f}"
    )


# --- Sinks ---


@contextlib.contextmanager
def open_sink(options: Options) -> Iterator[Any]:
    """Opens what writes explanations; a file appears as a whole, or not at all."""
    path = options.output_file
    if path is None:
        yield Terminal(sys.stdout, sys.stdout.isatty() and not os.environ.get("NO_COLOR"))
    elif path == files.STREAM:
        yield JsonLines(sys.stdout.buffer)
    else:
        with files.replacing([path]) as [unfinished], files.open_binary(unfinished, "wb") as stream:
            sink = Page(stream) if path.endswith(".html") else JsonLines(stream)
            yield sink
            sink.close()


class JsonLines:
    """A JSON object a line; docs/looking_inside.md tells the keys."""

    def __init__(self, stream: IO[bytes]):
        self._stream = stream

    def write(self, explanation: Explanation) -> None:
        """Writes one."""
        import orjson

        row: dict[str, Any] = dict(zip(("text", "text_b"), texts_of(explanation)))
        row |= {
            "predicted": explanation.predicted,
            "label": explanation.label,
            "probability": explanation.probabilities.get(explanation.label),
            "logit": explanation.logit,
        }
        if explanation.baseline_logit is not None:
            row |= {"baseline_logit": explanation.baseline_logit, "error": explanation.error}
        row["words"] = [
            {name: value for name, value in word._asdict().items() if value is not None}
            for word in explanation.words
        ]
        self._stream.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
        self._stream.flush()

    def close(self) -> None:
        """Ends the file."""


# Colours of the 256 of terminals, from faint to strong: blue speaks for, orange against.
_FOR, _AGAINST = (195, 159, 117, 75), (230, 223, 216, 209)


class Terminal:
    """The text, its words marked, and a table of their shares."""

    def __init__(self, stream: IO[str], with_colours: bool):
        self._stream, self._with_colours = stream, with_colours

    def write(self, explanation: Explanation) -> None:
        """Prints one."""
        methods = methods_of(explanation)
        for part, text in enumerate(texts_of(explanation)):
            shown = text
            if self._with_colours and methods:
                shown = marked(text, explanation, part, methods[0], self._mark, str)
            print(shown, file=self._stream)
        print(f"  {answer_line(explanation)}", file=self._stream)
        if methods:
            header = "".join(f"{NAMES[name]:>10}" for name in methods)
            print(f"  {header}  word", file=self._stream)
        for word in explanation.words:
            shares = "".join(f"{getattr(word, name):+10.3f}" for name in methods)
            name = self._mark(word.text, share_of_largest(explanation, word, methods[0]))
            print(f"  {shares}  {name}", file=self._stream)
        if explanation.baseline_logit is not None:
            print(f"  {sum_line(explanation)}", file=self._stream)
        print(file=self._stream, flush=True)

    def _mark(self, text: str, share: float) -> str:
        """Colours a text by a share from -1 to 1."""
        if not self._with_colours or abs(share) < 0.05:
            return text
        scale = _FOR if share > 0 else _AGAINST
        colour = scale[min(len(scale) - 1, int(abs(share) * len(scale)))]
        return f"\x1b[38;5;16;48;5;{colour}m{text}\x1b[0m"


class Page:
    """A page with a panel for each explanation."""

    def __init__(self, stream: IO[bytes]):
        self._stream = stream
        self._panels: list[str] = []

    def write(self, explanation: Explanation) -> None:
        """Adds one."""
        parts = [f"<h2>{page.text(answer_line(explanation))}</h2>"]
        for name in methods_of(explanation):
            parts.append(f'<p class="quiet">{NAMES[name]}</p>')
            for part, text in enumerate(texts_of(explanation)):
                shown = marked(text, explanation, part, name, _html_mark, page.text)
                parts.append(f'<p class="text">{shown}</p>')
        if explanation.baseline_logit is not None:
            parts.append(f'<p class="quiet">{page.text(sum_line(explanation))}</p>')
        parts.append(_html_table(explanation))
        self._panels.append("<section>\n{}\n</section>".format("\n".join(parts)))

    def close(self) -> None:
        """Writes the page."""
        filled = page.fill("explanation.html", {"panels": "\n".join(self._panels)})
        self._stream.write(filled.encode("utf-8"))


def marked(
    text: str, explanation: Explanation, part: int, method: str, mark: Any, plain: Any
) -> str:
    """Returns a text with its words marked by their shares.

    Args:
      text: the first or the second of the explanation.
      explanation: the explanation.
      part: 0 or 1, which text it is.
      method: whose shares.
      mark: (word, share from -1 to 1) -> how it is shown.
      plain: what stands between words -> how it is shown.
    """
    shown, end = [], 0
    for word in explanation.words:
        if word.part == part:
            share = share_of_largest(explanation, word, method)
            shown += [plain(text[end : word.start]), mark(text[word.start : word.end], share)]
            end = word.end
    return "".join([*shown, plain(text[end:])])


def share_of_largest(explanation: Explanation, word: WordShare, method: str) -> float:
    """Returns a word's share as a part of the largest in its text, -1 to 1."""
    largest = max(abs(getattr(one, method)) for one in explanation.words)
    return getattr(word, method) / largest if largest else 0.0


def _html_mark(text: str, share: float) -> str:
    colour = "accent" if share > 0 else "against"
    style = f"background: rgba(var(--{colour}), {0.45 * abs(share):.3f})"
    return f'<span style="{style}">{page.text(text)}</span>'


def _html_table(explanation: Explanation) -> str:
    methods = methods_of(explanation)
    header = "".join(f'<th scope="col">{NAMES[name]}</th>' for name in methods)
    rows = "".join(
        f'<tr><th scope="row">{page.text(word.text)}</th>'
        + "".join(f"<td>{getattr(word, name):+.3f}</td>" for name in methods)
        + "</tr>"
        for word in explanation.words
    )
    return (
        "<details><summary>Numbers</summary><table>"
        f'<tr><th scope="col">word</th>{header}</tr>{rows}</table></details>'
    )


def entry() -> None:
    """The console command."""
    cli.run(run, Options, __doc__)


if __name__ == "__main__":
    entry()
