"""Models that are served: each with its batcher, and with the next version that takes over."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Optional

from absl import logging

from bert_toolkit.errors import UserError
from bert_toolkit.inference.encoder import arguments_named
from bert_toolkit.serving import kinds, versions
from bert_toolkit.serving.batching import Batcher, Limits, Work
from bert_toolkit.serving.kinds import Kind, ModelSettings
from bert_toolkit.serving.lines import Line, LineSearch
from bert_toolkit.serving.metrics import Metrics

WATCH_SECONDS = 2.0


class ServedModel:
    """A model that answers many threads.

    Attributes:
      name: its name in requests.
      kind: what it does.
      kinds: this, and what it answers beside.
      version: the name of what is served now.
      loaded: when that was, in seconds of the epoch.
    """

    def __init__(
        self,
        name: str,
        directory: str,
        settings: ModelSettings,
        limits: Limits,
        metrics: Metrics,
        kind: Optional[Kind] = None,
        lines: Sequence[Line] = (),
    ):
        """Loads the newest model of a directory, and computes once with it.

        Args:
          name: its name in requests.
          directory: where it, or its versions, lie.
          settings: how it is loaded.
          limits: of its batches and its queue.
          metrics: to count in.
          kind: what it does, if that is not for its files to say.
          lines: of which a model of vectors finds the nearest.

        Raises:
          UserError: there is none, or it cannot be used.
        """
        self.name, self._directory, self._settings = name, directory, settings
        self._budget = limits.batch_tokens
        self._there = versions.newest(directory)
        self._wanted = kind
        self.kind = kind or kinds.kind_of(self._there.directory)
        self._lines = lines if self.kind is kinds.ENCODE else ()
        self._model, self._search = self._load(self._there)
        self.kinds = [self.kind]
        if self._model.has_attention:
            self.kinds.append(kinds.ATTEND)
        if self._lines:
            self.kinds.append(kinds.SEARCH)
        self._items = metrics.batch_items.labels(name)
        self._tokens = metrics.batch_tokens.labels(name)
        self._queue = metrics.queue.labels(name)
        self._batchers = {
            one.verb: Batcher(self._work_of(one), kinds.limits_of(one, limits), self._observe)
            for one in self.kinds
        }

    def _load(self, version: versions.Version) -> tuple[Any, Optional[LineSearch]]:
        """Returns the model of a version, and what finds the nearest lines by it."""
        flag = "--fill_mask_dir" if self._wanted is kinds.FILL else "--model_dir"
        assert self.kind.load
        with arguments_named(bert_dir=flag, model_dir=flag, max_seq_length="--max_seq_length"):
            model = self.kind.load(version.directory, self._settings)
        try:
            self.kind.compute(model, [self.kind.example], 1)  # the first call is a slow one
            search = LineSearch(model, self._lines) if self._lines else None
        except BaseException:
            model.close()
            raise
        self.version, self.loaded = version.name, int(time.time())
        return model, search

    def _work_of(self, kind: Kind) -> Work:
        """Returns the function that computes batches by the model that is there now."""
        model, asked = self._model, self._search if kind is kinds.SEARCH else self._model

        def work(items: Sequence[Any], longest: int) -> Sequence[Any]:
            rows = max(1, self._budget // min(longest, model.max_seq_length))
            return kind.compute(asked, items, rows)

        return work

    def _observe(self, items: int, tokens: int) -> None:
        self._items.observe(items)
        self._tokens.observe(tokens)
        self._count_waiting()

    def _count_waiting(self) -> None:
        self._queue.set(sum(batcher.waiting() for batcher in self._batchers.values()))

    @property
    def labels(self) -> Sequence[str]:
        """The labels of a classifier or a tagger."""
        problem = getattr(self._model, "problem", None)
        return list(problem.labels if problem else getattr(self._model, "labels", ()))

    @property
    def max_seq_length(self) -> int:
        """The longest sequence that the model reads."""
        return self._model.max_seq_length

    @property
    def line_count(self) -> int:
        """How many lines it finds the nearest of."""
        return len(self._lines)

    def lengths(self, items: Sequence[Any], kind: Kind) -> list[int]:
        """Returns the length of each item in tokens."""
        return [kind.tokens(self._model, item) for item in items]

    def submit(
        self, items: Sequence[Any], lengths: Sequence[int], kind: Optional[Kind] = None
    ) -> Future:
        """Returns what will have a result for each item, of one of `kinds`; see Batcher.submit."""
        future = self._batchers[(kind or self.kind).verb].submit(items, lengths)
        self._count_waiting()
        return future

    def take_over(self, version: versions.Version) -> None:
        """Loads another version beside this one, answers with it, and closes this one.

        Raises:
          UserError: it cannot be used; all stays as it is.
        """
        kind = self._wanted or kinds.kind_of(version.directory)
        if kind is not self.kind:
            raise UserError(
                f"{version.directory}: a model to {kind.verb}; expected one to {self.kind.verb}, as"
                " before"
            )
        old, (new, search) = self._model, self._load(version)
        if new.has_attention != old.has_attention:
            new.close()
            raise UserError(
                f"{version.directory}: a BiLSTM after a BERT, or a BERT after a BiLSTM; serve it"
                " under a name of its own (--model_dir=NAME=DIR)"
            )
        self._model, self._search = new, search
        for one in self.kinds:
            self._batchers[one.verb].replace(self._work_of(one))
        self._there = version
        old.close()

    def look(self, seen: Optional[versions.Version]) -> versions.Version:
        """Takes a newer version over that is there and was already `seen`; returns what is there.

        Files that are still written look different each time, and are left alone.
        """
        version = versions.newest(self._directory)
        if version != seen or version.fingerprint == self._there.fingerprint:
            return version
        try:
            self.take_over(version)
            logging.info("%s: serving version %s now", self.name, version.directory)
        except Exception as error:
            logging.error(
                "%s: %s cannot be used, the version before is still served: %s",
                self.name,
                version.directory,
                error,
            )
            self._there = version  # tried again when it changes
        return version

    def close(self) -> None:
        """Answers what was taken, and frees the model."""
        for batcher in self._batchers.values():
            batcher.close()
        self._model.close()


class Watcher:
    """A thread that looks for newer versions of models."""

    def __init__(self, models: Sequence[ServedModel], seconds: float = WATCH_SECONDS):
        """Starts looking, so often."""
        self._models, self._seconds = models, seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        seen: dict[str, versions.Version] = {}
        while not self._stop.wait(self._seconds):
            for model in self._models:
                seen[model.name] = model.look(seen.get(model.name))

    def close(self) -> None:
        """Stops; a version that is being loaded takes over first."""
        self._stop.set()
        self._thread.join()
