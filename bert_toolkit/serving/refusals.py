"""Requests that are not answered: a status and one sentence, as JSON."""

from typing import Any, Optional

import orjson
from pydantic import BaseModel
from starlette.responses import Response


class ErrorReply(BaseModel):
    """Why a request is not answered: one sentence."""

    error: str


class OpenAIError(BaseModel):
    """The same as OpenAI's clients read it."""

    message: str
    type: str
    param: Optional[str] = None
    code: Optional[str] = None


class OpenAIErrorReply(BaseModel):
    """Why a request in OpenAI's form is not answered."""

    error: OpenAIError


# The path whose errors have OpenAI's form.
EMBEDDINGS = "/v1/embeddings"


class RefusedError(Exception):
    """A request that is not answered."""

    def __init__(self, status: int, sentence: str, headers: Optional[dict[str, str]] = None):
        super().__init__(sentence)
        self.status, self.sentence, self.headers = status, sentence, headers


def busy(sentence: str, status: int) -> RefusedError:
    """Returns the refusal of what may be asked again soon."""
    return RefusedError(status, sentence, {"Retry-After": "1"})


def json(content: Any, status: int = 200, headers: Optional[dict[str, str]] = None) -> Response:
    """Returns a response of JSON; arrays of numpy are lists."""
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, headers, "application/json")


def response(refused: RefusedError, path: str) -> Response:
    """Returns the response to a request to `path` that is refused."""
    error: Any = refused.sentence
    if path == EMBEDDINGS:
        kind = "invalid_request_error" if refused.status < 429 else "server_error"
        error = {"message": refused.sentence, "type": kind, "param": None, "code": None}
    return json({"error": error}, refused.status, refused.headers)
