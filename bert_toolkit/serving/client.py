"""Models of a `bert serve` elsewhere, called as if they were here; needs no TensorFlow.

from bert_toolkit import Client

client = Client("http://127.0.0.1:8000")
vectors = client.encode(["a text", ("one of", "a pair")])
label = client.classify(["a text"])[0].label
"""

import base64
import functools
import http.client
import json
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Any, Optional, Union

import numpy as np

from bert_toolkit.errors import UserError
from bert_toolkit.results import Answer, Attention, Candidate, Entity, Neighbor, Prediction

Text = Union[str, tuple[str, str]]
_AGAIN = (429, 503)  # the server is busy, or stops and another takes its place
_LONGEST_WAIT = 8.0  # seconds
_MOST_TEXTS = 64  # at once, so that long texts on a slow machine are answered in time


class Client:
    """A server's models; may be used by several threads.

    Each method takes any number of texts and sends some at once, as the server allows. Without
    `model` the only one that does this is taken.
    """

    def __init__(
        self, url: str, token: Optional[str] = None, timeout: float = 60.0, retries: int = 5
    ):
        """Takes an address; nothing is sent yet.

        Args:
          url: of the server: http://host:port, or https, with a path before /v1 if there is one.
          token: that the server asks for.
          timeout: seconds that an answer may take.
          retries: how often to ask again a server that is busy or not there, ever more slowly.
        """
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"url={url}: expected http://host:port")
        self._parts, self._timeout, self._retries = parts, timeout, retries
        self._headers = {"Content-Type": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token.strip()}"
        self._local = threading.local()

    def encode(self, texts: Sequence[Text], model: Optional[str] = None) -> np.ndarray:
        """Returns float32 [texts, size], as Encoder.encode does."""
        rows = self._ask("encode", "texts", "vectors", texts, model, encoding_format="base64")
        vectors = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
        return np.array(vectors, np.float32) if vectors else np.zeros((0, 0), np.float32)

    def classify(self, texts: Sequence[Text], model: Optional[str] = None) -> list[Prediction]:
        """Returns a prediction for each text, as TextClassifier.predict does."""
        rows = self._ask("classify", "texts", "predictions", texts, model)
        return [Prediction(**row) for row in rows]

    def fill(
        self, texts: Sequence[str], top_k: int = 5, model: Optional[str] = None
    ) -> list[list[list[Candidate]]]:
        """Returns candidates for each [MASK] of each text, at most 20, as FillMask.fill does."""
        rows = self._ask("fill", "texts", "masks", texts, model, top_k=top_k)
        return [
            [[Candidate(**{**one, "pieces": tuple(one["pieces"])}) for one in mask] for mask in row]
            for row in rows
        ]

    def tag(self, texts: Sequence[str], model: Optional[str] = None) -> list[list[Entity]]:
        """Returns the entities of each text, as TokenClassifier.tag does."""
        rows = self._ask("tag", "texts", "entities", texts, model)
        return [[Entity(**entity) for entity in row] for row in rows]

    def answer(
        self, questions: Sequence[tuple[str, str]], model: Optional[str] = None
    ) -> list[Answer]:
        """Returns an answer for each question and context, as QuestionAnswerer.answer_all."""
        asked = [{"question": question, "context": context} for question, context in questions]
        return [Answer(**row) for row in self._ask("answer", "questions", "answers", asked, model)]

    def search(
        self, texts: Sequence[Text], top_k: int = 5, model: Optional[str] = None
    ) -> list[list[Neighbor]]:
        """Returns the nearest of the server's --lines_file for each text, at most 20."""
        rows = self._ask("search", "texts", "neighbors", texts, model, top_k=top_k)
        return [[Neighbor(**one) for one in row] for row in rows]

    def attend(self, texts: Sequence[Text], model: Optional[str] = None) -> list[Attention]:
        """Returns the attention weights of each text, which may have 64 tokens."""
        rows = [self._ask("attend", "texts", "attention", [text], model)[0] for text in texts]
        return [
            Attention(**{**row, "weights": np.array(row["weights"], np.float32)}) for row in rows
        ]

    def models(self) -> list[dict[str, Any]]:
        """Returns what the server says of each of its models now: id, does, labels, ..."""
        self.__dict__.pop("_server", None)
        return self._server["data"]

    def close(self) -> None:
        """Closes the connection of this thread; another call opens it again."""
        connection = self._local.__dict__.pop("connection", None)
        if connection is not None:
            connection.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error) -> None:
        self.close()

    @functools.cached_property
    def _server(self) -> dict[str, Any]:
        return self._call("GET", "/v1/models", None)

    def _ask(
        self,
        verb: str,
        asked: str,
        answered: str,
        items: Sequence[Any],
        model: Optional[str],
        **more: Any,
    ) -> list[Any]:
        """Returns the answers to items, asked in as many requests as the server's limits need."""
        if isinstance(items, str):
            raise TypeError("expected a list of texts, not one text")
        name = urllib.parse.quote(model or self._only(verb), safe="")
        most = min(_MOST_TEXTS, self._server["limits"]["max_texts"])
        found: list[Any] = []
        for start in range(0, len(items), most):
            body = {asked: list(items[start : start + most]), **more}
            found += self._call("POST", f"/v1/models/{name}/{verb}", body)[answered]
        return found

    def _only(self, verb: str) -> str:
        names = [one["id"] for one in self._server["data"] if verb in (one["does"], *one["also"])]
        if len(names) == 1:
            return names[0]
        there = f"models {', '.join(names)}" if names else "no model"
        advice = "pass model=" if names else "serve one there"
        raise UserError(f"{self._parts.geturl()}: {there} to {verb}; expected one; {advice}")

    # --- HTTP ---

    def _call(self, method: str, path: str, body: Any) -> Any:
        """Returns the JSON of an answer.

        Raises:
          UserError: the server refuses, with what it says.
          ConnectionError: it cannot be reached.
        """
        data = None if body is None else json.dumps(body).encode()
        for left in range(self._retries, -1, -1):
            wait = min(_LONGEST_WAIT, 0.25 * 2 ** (self._retries - left))
            reused = "connection" in self._local.__dict__
            try:
                status, reply = self._send(method, path, data)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if reused:  # the server closes connections that are not used for a while
                    wait = 0
                if not left or isinstance(error, socket.timeout):
                    where = self._parts.geturl()
                    raise ConnectionError(f"{where}: cannot be reached: {error!r}") from error
            else:
                if status == 200:
                    return self._content(path, reply)
                if status not in _AGAIN or not left:
                    raise UserError(f"{self._parts.geturl()}{path}: {_said(status, reply)}")
            time.sleep(wait)
        raise AssertionError

    def _content(self, path: str, reply: bytes) -> Any:
        try:
            return json.loads(reply)
        except ValueError:
            raise UserError(
                f"{self._parts.geturl()}{path}: answers with no JSON; expected a bert serve there"
            ) from None

    def _send(self, method: str, path: str, data: Optional[bytes]) -> tuple[int, bytes]:
        connection = self._local.__dict__.get("connection")
        if connection is None:
            made: Callable[..., http.client.HTTPConnection] = http.client.HTTPConnection
            if self._parts.scheme == "https":
                made = http.client.HTTPSConnection
            connection = made(self._parts.hostname, self._parts.port, timeout=self._timeout)
            self._local.connection = connection
        connection.request(method, self._parts.path.rstrip("/") + path, data, self._headers)
        response = connection.getresponse()
        return response.status, response.read()


def _said(status: int, reply: bytes) -> str:
    """Returns the sentence of a refusal; of something else than our server, its status."""
    try:
        return f"{json.loads(reply)['error']} (status {status})"
    except (ValueError, KeyError, TypeError):
        return f"status {status}; expected a bert serve there"
