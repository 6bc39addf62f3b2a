"""A server's life: its socket, loading before the port opens, signals, draining."""

import dataclasses
import signal
import socket
from collections.abc import Callable, Mapping
from typing import Any, Optional

import uvicorn
from absl import logging
from fastapi import FastAPI

from bert_toolkit.errors import UserError
from bert_toolkit.serving import app as application
from bert_toolkit.serving import kinds, lines, sockets
from bert_toolkit.serving.asking import Asker, RequestLimits
from bert_toolkit.serving.batching import Limits
from bert_toolkit.serving.kinds import ModelSettings
from bert_toolkit.serving.metrics import Metrics
from bert_toolkit.serving.models import ServedModel, Watcher

# More are refused: a process may have 1024 open files on most systems.
MOST_CONNECTIONS = 900
# Longer than proxies keep theirs (a minute), which would else send into one that is being closed.
KEEP_ALIVE_SECONDS = 75


@dataclasses.dataclass(frozen=True)
class ServerSettings:
    """How models are served; see the options of these names.

    Attributes:
      directories: of models, by their names.
      fill_directories: of pretrained models that fill [MASK], likewise.
      lines_file: lines of which models of vectors find the nearest, if there is one.
      model: how they are loaded.
      batches: sizes of batches and of the queue.
      requests: what a request may ask.
      max_bytes: of a request's body.
      token: that requests have to bear, if there is one.
      watch: whether newer versions take over.
    """

    directories: Mapping[str, str]
    fill_directories: Mapping[str, str] = dataclasses.field(default_factory=dict)
    lines_file: Optional[str] = None
    model: ModelSettings = ModelSettings()
    batches: Limits = Limits()
    requests: RequestLimits = RequestLimits()
    max_bytes: int = 8_000_000
    token: Optional[str] = None
    watch: bool = False


def serve(
    settings: ServerSettings, bound: socket.socket, tell: Callable[[], None] = lambda: None
) -> None:
    """Loads the models, answers until SIGTERM or Ctrl-C, then what was asked before that.

    Args:
      settings: what to serve.
      bound: from `sockets.bind`.
      tell: is called when the port is open.

    Raises:
      UserError: a model cannot be used.
    """
    _quiet_warnings()
    counted = Metrics()
    models: list[ServedModel] = []
    how = (settings.model, settings.batches, counted)
    found = lines.read(settings.lines_file) if settings.lines_file else ()
    for name, directory in settings.directories.items():
        models.append(ServedModel(name, directory, *how, lines=found))
    if found and not any(model.line_count for model in models):
        raise UserError(
            f"--lines_file={settings.lines_file}: none of the models gives vectors; expected one"
            " --model_dir of an encoder, or leave it out"
        )
    for name, directory in settings.fill_directories.items():
        models.append(ServedModel(name, directory, *how, kinds.FILL))
    asker = Asker({model.name: model for model in models}, settings.requests)
    app = application.create(asker, counted, settings.token, settings.max_bytes)
    watcher = Watcher(models) if settings.watch else None

    def started() -> None:
        for model in models:
            logging.info("%s: %s, version %s", model.name, model.kind.verb, model.version)
            if model.line_count:
                logging.info("%s: search among %s lines", model.name, f"{model.line_count:,}")
        logging.info("serving on %s", sockets.url(bound))
        tell()

    try:
        _run(app, bound, settings.requests.timeout, started)
    finally:
        if watcher:
            watcher.close()
        for model in models:
            model.close()


def _run(app: FastAPI, bound: socket.socket, timeout: float, started: Callable[[], None]) -> None:
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(timeout) + 1,
    )
    server = _Server(config, app, started)
    # uvicorn puts these back at its end, and raises there the signal that it got.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)
    server.run(sockets=[bound])


class _Server(uvicorn.Server):
    """Says when it has started, and to the application that it stops."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, started: Callable[[], None]):
        super().__init__(config)
        self._app, self._started = app, started

    async def startup(self, sockets: Optional[list[socket.socket]] = None) -> None:
        await super().startup(sockets)
        self._started()

    def handle_exit(self, sig: int, frame: Any) -> None:
        self._app.state.stopping = True
        super().handle_exit(sig, frame)


_OF_TEXTS = ("warn_of_unknown", "_warn_of_cut")  # functions that warn of them


def _quiet_warnings() -> None:
    """Keeps warnings about texts out of the log, as callers choose the texts."""
    logging.get_absl_logger().addFilter(lambda record: record.funcName not in _OF_TEXTS)
