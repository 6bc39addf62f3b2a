"""From a request's items to results: limits, the queue, and callers that go away."""

import asyncio
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from absl import logging
from starlette.requests import Request

from bert_toolkit.errors import UserError
from bert_toolkit.serving import kinds
from bert_toolkit.serving.batching import ClosedError, QueueFullError
from bert_toolkit.serving.kinds import Kind
from bert_toolkit.serving.models import ServedModel
from bert_toolkit.serving.refusals import RefusedError, busy
from tokenization import MASK

# Characters above which tokens are counted beside the event loop.
MANY_CHARACTERS = 10_000
# JSON can write one ("\\ud800"), UTF-8 cannot.
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclasses.dataclass(frozen=True)
class RequestLimits:
    """What a request may ask; see the options of these names.

    Attributes:
      max_texts: items of a request.
      max_characters: of an item.
      timeout: seconds until a request is refused that is not answered.
    """

    max_texts: int = 256
    max_characters: int = 20_000
    timeout: float = 30.0


@dataclasses.dataclass(frozen=True)
class Asker:
    """Finds models, and asks them.

    Attributes:
      models: by their names.
      limits: of a request.
    """

    models: Mapping[str, ServedModel]
    limits: RequestLimits

    def model(self, name: str) -> ServedModel:
        """Returns a model; refuses if there is none of that name."""
        if name not in self.models:
            known = ", ".join(self.models)
            raise RefusedError(404, f"model {name[:100]!r}: not served here; served are {known}")
        return self.models[name]

    def model_to(self, kind: Kind, name: str) -> ServedModel:
        """Returns a model that does this; refuses if it does something else."""
        model = self.model(name)
        if kind is kinds.SEARCH and model.kind is kinds.ENCODE and kind not in model.kinds:
            raise RefusedError(
                404, f"model {name!r} has no lines to search; start the server with --lines_file"
            )
        if kind not in model.kinds:
            raise RefusedError(
                404, f"model {name!r} does not {kind.verb}; use /v1/models/{name}/{model.kind.verb}"
            )
        return model

    async def ask(
        self,
        model: ServedModel,
        items: Sequence[Any],
        request: Request,
        field: str,
        kind: Optional[Kind] = None,
    ) -> tuple[Sequence[Any], int]:
        """Returns the results of items, in order, and how many tokens they have.

        Refuses if they are too many or too long (413), cannot wait (429), or take too long (503).

        Args:
          model: to ask.
          items: texts, pairs or questions.
          request: whose caller may go away.
          field: where the request has the items.
          kind: what is asked; None for what the model is for.
        """
        kind = kind or model.kind
        characters = self._check(model, items, field)
        if characters > MANY_CHARACTERS:
            loop = asyncio.get_running_loop()
            lengths = await loop.run_in_executor(None, model.lengths, items, kind)
        else:
            lengths = model.lengths(items, kind)
        if kind.most_tokens is not None and sum(lengths) > kind.most_tokens:
            raise RefusedError(
                413,
                f"{field}: {sum(lengths):,} tokens; expected at most {kind.most_tokens} in a"
                f" request to {kind.verb}; shorten it",
            )
        try:
            future = asyncio.wrap_future(model.submit(items, lengths, kind))
        except QueueFullError:
            raise busy(f"model {model.name!r}: its queue is full; try again later", 429) from None
        except ClosedError:
            raise busy("the server is stopping; ask another, or try again later", 503) from None
        gone = asyncio.ensure_future(request.receive())
        try:
            await asyncio.wait(
                [future, gone],
                timeout=self.limits.timeout,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if future.done():
                return _result(future, model), sum(lengths)
        finally:
            gone.cancel()
            future.cancel()  # takes what still waits out of the queue
        if gone.done() and not gone.cancelled():
            raise RefusedError(499, "the caller has gone")
        raise busy(
            f"not computed within {self.limits.timeout:g} seconds; send fewer texts, or try again"
            " later",
            503,
        )

    def _check(self, model: ServedModel, items: Sequence[Any], field: str) -> int:
        """Returns how many characters there are; refuses if something is too large, or no text."""
        limits = self.limits
        if len(items) > limits.max_texts:
            raise RefusedError(
                413,
                f"{field}: {len(items):,} of them; expected at most {limits.max_texts:,} in a"
                " request; send several requests",
            )
        total = 0
        for place, item in enumerate(items):
            texts = (item,) if isinstance(item, str) else item
            characters = sum(map(len, texts))
            if characters > limits.max_characters:
                raise RefusedError(
                    413,
                    f"{field}[{place}]: {characters:,} characters; expected at most"
                    f" {limits.max_characters:,}; cut it into parts",
                )
            if model.kind is kinds.FILL and item.count(MASK) > kinds.MOST_MASKS:
                raise RefusedError(
                    413,
                    f"{field}[{place}]: {item.count(MASK)} {MASK} in it; expected at most"
                    f" {kinds.MOST_MASKS}; cut it into parts",
                )
            if any(map(_LONE_SURROGATE.search, texts)):
                raise RefusedError(
                    422,
                    f"{field}[{place}]: half a surrogate pair in it; expected Unicode text, with"
                    " both halves of a pair",
                )
            total += characters
        return total


def _result(future: asyncio.Future, model: ServedModel) -> Sequence[Any]:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, UserError):
        raise RefusedError(422, str(error))
    logging.error("%s: %s: %s", model.name, type(error).__name__, error)
    raise RefusedError(500, f"model {model.name!r}: cannot compute this; the server's log has why")
