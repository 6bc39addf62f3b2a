"""What every request passes first: the token, the size of the body, and the time it may take."""

import asyncio
import hmac
import time
from collections.abc import Mapping
from typing import Any, Optional

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bert_toolkit.serving import refusals
from bert_toolkit.serving.metrics import Metrics
from bert_toolkit.serving.refusals import RefusedError

# Anyone may read these: a page without data, and what a load balancer asks.
OPEN = {"/", "/healthz", "/readyz", "/docs", "/openapi.json"}


class Gate:
    """Reads whole bodies before the application sees them, and counts requests."""

    def __init__(
        self, app: ASGIApp, token: Optional[str], most_bytes: int, seconds: float, metrics: Metrics
    ):
        """Wraps an application.

        Args:
          app: to protect.
          token: that requests have to bear, if there is one.
          most_bytes: of a body.
          seconds: in which a body has to arrive.
          metrics: to count in.
        """
        self._app, self._metrics = app, metrics
        self._bearer = None if token is None else f"Bearer {token}".encode()
        self._most_bytes, self._seconds = most_bytes, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or has the application do it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 499  # if the caller goes before there is an answer

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            body = await self._admit(scope, receive)
            if body is not None:
                await self._app(scope, _replaying(body, receive), sending)
        except RefusedError as refused:
            await refusals.response(refused, scope["path"])(scope, receive, sending)
        except Exception:
            status = 500  # which is sent outside of this
            raise
        finally:
            path = getattr(scope.get("route"), "path", "other")
            seconds = time.perf_counter() - start
            self._metrics.seconds.labels(path, str(status)).observe(seconds)

    async def _admit(self, scope: Scope, receive: Receive) -> Optional[bytes]:
        """Returns the body; None if the caller has gone.

        Raises:
          RefusedError: the request may not be answered.
        """
        headers = dict(scope["headers"])
        if scope["path"] not in OPEN and not self._has_token(headers):
            raise RefusedError(
                401,
                "Authorization: expected Bearer and this server's token",
                {"WWW-Authenticate": "Bearer"},
            )
        if scope["method"] == "POST":  # whatever a caller says it sends, it is read as JSON
            others = [pair for pair in scope["headers"] if pair[0] != b"content-type"]
            scope["headers"] = [*others, (b"content-type", b"application/json")]
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._most_bytes:
            raise self._too_large()
        try:
            return await asyncio.wait_for(self._read(receive), self._seconds)
        except asyncio.TimeoutError:
            raise RefusedError(
                408,
                f"the body did not arrive within {self._seconds:g} seconds; send it faster",
                {"Connection": "close"},
            ) from None

    def _has_token(self, headers: Mapping[bytes, bytes]) -> bool:
        """Returns whether a request may be answered; takes as long for any wrong token."""
        there = headers.get(b"authorization", b"")
        return self._bearer is None or hmac.compare_digest(there, self._bearer)

    async def _read(self, receive: Receive) -> Optional[bytes]:
        parts, length = [], 0
        while True:
            message: Any = await receive()
            if message["type"] != "http.request":
                return None
            parts.append(message.get("body", b""))
            length += len(parts[-1])
            if length > self._most_bytes:
                raise self._too_large()
            if not message.get("more_body"):
                return b"".join(parts)

    def _too_large(self) -> RefusedError:
        # The rest of the body is not read.
        return RefusedError(
            413,
            f"the body has more than {self._most_bytes:,} bytes; send texts in several requests",
            {"Connection": "close"},
        )


def _replaying(body: bytes, receive: Receive) -> Receive:
    """Returns a `receive` that has the body first, then what else the caller does."""
    read = False

    async def replay() -> Message:
        nonlocal read
        if read:
            return await receive()
        read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
