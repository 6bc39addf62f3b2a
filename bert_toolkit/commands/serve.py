r"""Serves models over HTTP: vectors, labels, entities, answers, words for [MASK].

Reads   model directories (--model_dir, once for each): the output of a stage or Hugging Face's
        layout. What a model was fine-tuned for decides what it answers; any other gives vectors,
        or with --fill_mask_dir words for [MASK].
Serves  POST /v1/models/NAME/encode, classify, tag, answer or fill; search for the nearest of
        --lines_file, attend for attention weights; /v1/embeddings as OpenAI's clients send it;
        /v1/models/NAME:predict as TensorFlow Serving's; a page to try at /, the API's description
        at /docs, /healthz, /readyz and /metrics.

Requests that come together are computed together. SIGTERM answers what was asked, and ends.

Example:
  bert serve --model_dir=demo_output/reviews --model_dir=encoder=demo_output/pretrained

  curl -d '{"texts": ["I was never bored."]}' http://127.0.0.1:8000/v1/models/reviews/classify
"""

import dataclasses
import importlib.util
import os
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any, ClassVar, Optional

from absl import logging

from bert_toolkit import cli
from bert_toolkit.errors import UserError
from bert_toolkit.io import files
from bert_toolkit.options import check, option

PACKAGES = ("fastapi", "uvicorn", "prometheus_client")


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of this command."""

    model_dir: Sequence[str] = option(
        (),
        "A model directory, or NAME=DIR; once for each model. Without a name it has that of the"
        " directory. In a directory of directories with numbers, the highest is served.",
        repeated=True,
    )
    fill_mask_dir: Sequence[str] = option(
        (),
        "A pretrained model that fills [MASK], by its masked-LM head; else as --model_dir.",
        repeated=True,
    )
    lines_file: Optional[str] = option(
        None,
        "Lines of text, or pairs with ||| between, plain or .gz, at most 100,000: models of vectors"
        " find the nearest of them to a text. Their vectors are computed before the port opens.",
    )
    max_seq_length: Optional[int] = option(
        None,
        "Longest sequence in tokens; without this flag 128 for labels and entities, 384 for"
        " answers, and the model's positions for vectors and words.",
        lower=4,
    )
    pooling: str = option(
        "mean", "What vectors are made of.", choices=["cls", "mean", "max", "mean_max"]
    )
    normalize: bool = option(False, "Scale vectors to length 1.")
    host: str = option("127.0.0.1", "Address to listen on; 0.0.0.0 for all of this machine's.")
    port: int = option(8000, "Port to listen on; 0 for any that is free.", lower=0, upper=65535)
    workers: int = option(
        1,
        "Processes, each with its own copy of the models, that share the processor's cores; more"
        " than one pays off on machines with many cores.",
        lower=1,
    )
    token_file: Optional[str] = option(
        None, "File with a token; requests must then send Authorization: Bearer TOKEN."
    )
    watch: bool = option(
        False,
        "Look for newer models in the directories, which take over without losing a request.",
    )
    batch_tokens: int = option(
        1024,
        "Most tokens in a batch, padding included; a longer text is a batch of its own. Try 16384"
        " on a GPU.",
        lower=1,
    )
    batch_wait_ms: float = option(
        5.0,
        "Most milliseconds to wait for as many requests as the last batch had; one caller at a time"
        " never waits.",
        lower=0.0,
        upper=1000.0,
    )
    max_queue: int = option(
        1024, "Texts or questions that may wait; requests beyond get status 429.", lower=1
    )
    max_texts: int = option(256, "Texts or questions of a request; beyond, status 413.", lower=1)
    max_characters: int = option(20_000, "Characters of a text; beyond, status 413.", lower=1)
    max_bytes: int = option(8_000_000, "Bytes of a request's body; beyond, status 413.", lower=1000)
    timeout: float = option(
        30.0,
        "Seconds in which a body must arrive (status 408) and an answer be computed (status 503).",
        lower=0.1,
    )

    GROUPS: ClassVar = {
        "Models": (
            *("model_dir", "fill_mask_dir", "lines_file"),
            *("max_seq_length", "pooling", "normalize", "watch"),
        ),
        "Server": ("host", "port", "workers", "token_file"),
        "Batches": ("batch_tokens", "batch_wait_ms", "max_queue"),
        "Limits of a request": ("max_texts", "max_characters", "max_bytes", "timeout"),
    }

    def __post_init__(self):
        conflicts = []
        if not (self.model_dir or self.fill_mask_dir):
            conflicts.append("--model_dir is required (or --fill_mask_dir)")
        if self.max_queue < self.max_texts:
            conflicts.append(
                f"--max_queue={self.max_queue}, but a request may have --max_texts="
                f"{self.max_texts}; pass at least that"
            )
        if self.workers > 1 and self.watch:
            conflicts.append(
                "--watch: each of --workers would take a newer model over at another time; start"
                " the server anew instead"
            )
        check(conflicts)


def run(options: Options) -> None:
    """Serves until it is told to stop.

    Raises:
      UserError: a model cannot be used, or the port cannot be had.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"{', '.join(missing)}: not installed; bert serve needs"
            f" {'it' if len(missing) == 1 else 'them'}: pip install 'bert-toolkit[serve]'"
        )
    from bert_toolkit.serving import sockets, workers

    directories = directories_of(options.model_dir, "model_dir")
    fill_directories = directories_of(options.fill_mask_dir, "fill_mask_dir", directories)
    token = token_of(options.token_file)
    if options.lines_file:
        files.check_input(options.lines_file, "lines_file")
    bound = sockets.bind(options.host, options.port)
    if token is None and options.host not in ("127.0.0.1", "::1", "localhost"):
        logging.warning(
            "--host=%s without --token_file: whoever reaches this port can use the models",
            options.host,
        )

    def serve(tell: Callable[[], None]) -> None:
        from bert_toolkit.serving import server

        settings = settings_of(options, directories, fill_directories, token)
        server.serve(settings, bound, tell)

    if options.workers > 1:
        workers.run(options.workers, serve)
    else:
        serve(lambda: None)


def token_of(path: Optional[str]) -> Optional[str]:
    """Returns the token of a file, if there is one.

    Raises:
      UserError: it is no token.
    """
    if path is None:
        return None
    files.check_input(path, "token_file")
    token = files.read_text(path).strip()
    if not token or not token.isascii() or len(token.split()) != 1:
        raise UserError(
            f"--token_file={path}: no token; expected one word of ASCII characters, such as"
            " openssl rand -hex 32 makes"
        )
    return token


def directories_of(texts: Sequence[str], flag: str, others: Collection[str] = ()) -> dict[str, str]:
    """Returns the directories of models by their names: of NAME=DIR, or of DIR, its last part.

    Args:
      texts: what was given.
      flag: with which.
      others: names that are taken.

    Raises:
      UserError: a name is none, or of two, or there is no such directory.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, directory = text.partition("=")
        if not equals or os.sep in name:
            name, directory = os.path.basename(os.path.abspath(text)), text
        if not re.fullmatch(r"[\w.-]{1,100}", name, re.ASCII):
            raise UserError(
                f"--{flag}={text}: {name!r} is no name for a model; expected letters, digits and"
                f" ._-; write --{flag}=NAME=DIR"
            )
        if name in found or name in others:
            raise UserError(
                f"--{flag}={text}: a second model named {name}; write --{flag}=NAME=DIR"
            )
        if not files.is_directory(directory):
            raise UserError(f"--{flag}={text}: no such directory")
        found[name] = directory
    return found


def settings_of(
    options: Options,
    directories: dict[str, str],
    fill_directories: dict[str, str],
    token: Optional[str],
) -> Any:
    """Returns what to serve, and how."""
    from bert_toolkit.serving.asking import RequestLimits
    from bert_toolkit.serving.batching import Limits
    from bert_toolkit.serving.kinds import ModelSettings
    from bert_toolkit.serving.server import ServerSettings

    return ServerSettings(
        directories=directories,
        fill_directories=fill_directories,
        lines_file=options.lines_file,
        model=ModelSettings(options.max_seq_length, options.pooling, options.normalize),
        batches=Limits(options.batch_tokens, options.batch_wait_ms / 1000, options.max_queue),
        requests=RequestLimits(options.max_texts, options.max_characters, options.timeout),
        max_bytes=options.max_bytes,
        token=token,
        watch=options.watch,
    )


def entry() -> None:
    """The console command."""
    cli.run(run, Options, __doc__)


if __name__ == "__main__":
    entry()
