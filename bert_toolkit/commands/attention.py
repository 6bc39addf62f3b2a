r"""Shows what every token of a text attends to, by layer and head: a page for a browser.

Reads   a text or a pair, and a model: a pretrained one, or one that was fine-tuned.
Writes  one HTML file that needs nothing else, no network either.

Example:
  bert attention --bert_dir=demo_output/pretrained --text="The teacher sings." \
    --text_b="It is a song." --output_file=attention.html
"""

import base64
import dataclasses
import os
from typing import Any, ClassVar, Optional

import numpy as np
from absl import logging

from bert_toolkit import cli, problems
from bert_toolkit.io import files
from bert_toolkit.io.progress import size
from bert_toolkit.options import ModelOptions, RuleOptions, TokenizerOptions, check, option
from bert_toolkit.pages import page
from tokenization import SEPARATE

# Weights are whole numbers of 16 bits in the page: 0 to 1 in steps of 0.000015.
LARGEST = 65535


@dataclasses.dataclass(frozen=True)
class Options(ModelOptions):
    """The options of this command."""

    text: str = option("", "The text.", required=True)
    text_b: Optional[str] = option(None, "The second text of a pair.")
    output_file: str = option("", "The page to write, .html.", required=True)
    max_seq_length: int = option(128, "Texts are cut to so many tokens.", lower=4)

    GROUPS: ClassVar = {
        "Input and output": ("text", "text_b", "output_file", "max_seq_length"),
        "Model": (ModelOptions, TokenizerOptions, RuleOptions),
    }

    def __post_init__(self):
        conflicts = self.missing_files("bert_config_file", "vocab_file", "init_checkpoint")
        if not self.output_file.endswith(".html"):
            conflicts.append(
                f"--output_file={self.output_file}: expected a name that ends in .html"
            )
        check(conflicts)


def run(options: Options) -> None:
    """Writes the page.

    Raises:
      UserError: the model cannot be used.
    """
    files.check_output(options.output_file)
    from bert_toolkit.features import vectors
    from bert_toolkit.inference.encoder import InferenceSession

    model, checkpoint = find(options)
    layers = list(range(model.config.num_hidden_layers))
    session = InferenceSession(
        model,
        checkpoint,
        lambda config: vectors.attention_network(config, layers),
        "attention",
        options.max_seq_length,
    )
    texts = options.text if options.text_b is None else (options.text, options.text_b)
    [encoded] = session.encode([texts])
    if encoded.cut:
        logging.warning("--text: cut to --max_seq_length=%d tokens", options.max_seq_length)
    [weights] = session.run_encoded([encoded], 1)  # [T, L, N, T]
    session.close()
    name = os.path.basename(os.path.abspath(options.bert_dir or checkpoint))
    content = page_data(session.tokenizer, encoded, np.moveaxis(weights, 0, 2))
    values = {"model": page.text(name), "data": page.data(content)}
    files.write_text(options.output_file, page.fill("attention.html", values))
    shown = f"{len(encoded.input_ids)} tokens, {len(layers)} layers of {weights.shape[2]} heads"
    logging.info(
        "wrote %s: %s, %s", options.output_file, shown, size(files.size(options.output_file))
    )


def find(options: Options) -> tuple[Any, str]:
    """Returns the files of the model and its weights: of a fine-tuned one the best, or the last."""
    from bert_toolkit.checkpoints import model_directory
    from bert_toolkit.inference import trained

    found = trained.find(options, list(problems.COMMANDS))
    if found is not None:
        return found.files, found.checkpoint
    model = model_directory.find(options)
    assert model.init_checkpoint
    return model, model.init_checkpoint


def page_data(tokenizer: Any, encoded: Any, weights: np.ndarray) -> dict[str, Any]:
    """Returns what the page shows, of weights [L, N, T, T]."""
    tokens = tokenizer.convert_ids_to_tokens(encoded.input_ids)
    ends = {0, *(place for place, token in enumerate(tokens) if token == SEPARATE)}
    numbers = np.rint(weights * LARGEST).astype("<u2")
    return {
        "tokens": tokens,
        "segments": encoded.segment_ids,
        "special": [int(place in ends) for place in range(len(tokens))],
        "layers": weights.shape[0],
        "heads": weights.shape[1],
        "weights": base64.b64encode(numbers.tobytes()).decode("ascii"),
    }


def entry() -> None:
    """The console command."""
    cli.run(run, Options, __doc__)


if __name__ == "__main__":
    entry()
