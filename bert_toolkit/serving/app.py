"""The HTTP application: paths, and what stands behind them."""

import functools
from typing import Any, Optional

from fastapi import FastAPI, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, PlainTextResponse, Response

import bert_toolkit
from bert_toolkit.pages import page
from bert_toolkit.serving import kinds, metrics, openai_form, refusals, tensorflow_form
from bert_toolkit.serving.asking import Asker
from bert_toolkit.serving.gate import Gate
from bert_toolkit.serving.kinds import Kind
from bert_toolkit.serving.openai_form import EmbeddingsRequest
from bert_toolkit.serving.refusals import RefusedError
from bert_toolkit.serving.tensorflow_form import PredictRequest

# The page runs its own script and style, talks to this server only, and stands in no other page.
PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_REFUSALS: dict[Any, Any] = {
    status: {"description": description, "model": refusals.ErrorReply}
    for status, description in (
        (400, "No JSON in UTF-8."),
        (401, "The token is missing or wrong."),
        (404, "No such model, or it does something else."),
        (408, "The body did not arrive in time."),
        (413, "Too many texts, too long ones, or too many bytes."),
        (422, "Not the JSON that is expected."),
        (429, "The queue is full."),
        (503, "Not computed in time, or the server is stopping."),
    )
}
_OPENAI_REFUSALS: dict[Any, Any] = {
    status: {**refusal, "model": refusals.OpenAIErrorReply} for status, refusal in _REFUSALS.items()
}


def create(
    asker: Asker, counted: metrics.Metrics, token: Optional[str] = None, most_bytes: int = 8_000_000
) -> FastAPI:
    """Returns the application for models that are loaded.

    `app.state.stopping` says that the server is about to stop: /readyz refuses then;
    `app.state.asker` has the models.

    Args:
      asker: has the models.
      counted: what /metrics shows.
      token: that requests have to bear, if there is one.
      most_bytes: of a request's body.
    """
    app = FastAPI(
        title="bert serve",
        version=bert_toolkit.__version__,
        description='BERT models over HTTP. Errors are `{"error": "a sentence"}`.',
        docs_url=None,  # ours finds the description behind a proxy with a path, too
        redoc_url=None,
        servers=[{"url": "."}],
    )
    app.state.asker, app.state.stopping = asker, False
    for kind in (*kinds.KINDS, *kinds.BESIDE):
        _add_kind(app, asker, kind)
    _add_forms(app, asker)
    _add_health(app, counted)
    _add_errors(app)
    app.add_middleware(
        Gate, token=token, most_bytes=most_bytes, seconds=asker.limits.timeout, metrics=counted
    )
    return app


def _add_kind(app: FastAPI, asker: Asker, kind: Kind) -> None:
    """Adds our own path for a kind of model, or for what models answer beside."""
    path = f"/v1/models/{{name}}/{kind.verb}"
    summary = " ".join((kind.reply.__doc__ or "").split())

    @app.post(
        path,
        response_model=kind.reply,
        responses=_REFUSALS,
        operation_id=kind.verb,
        summary=f"{kind.verb.capitalize()}: {summary}",
    )
    async def answer(
        body: kind.request,  # type: ignore[name-defined]
        request: Request,
        name: str = _name(asker, kind),
    ) -> Response:
        model = asker.model_to(kind, name)
        items = [
            (item.question, item.context) if kind is kinds.ANSWER else item
            for item in getattr(body, kind.asked)
        ]
        results, _ = await asker.ask(model, items, request, kind.asked, kind)
        plain = kind.plain
        if kind in (kinds.FILL, kinds.SEARCH):
            plain = functools.partial(kind.plain, top_k=body.top_k)  # type: ignore[call-arg]
        if kind is kinds.ENCODE:
            plain = functools.partial(openai_form.vector, encoding_format=body.encoding_format)
        return refusals.json({"model": name, kind.answered: list(map(plain, results))})


def _name(asker: Asker, kind: Optional[Kind] = None) -> Any:
    """Returns the parameter of a path that names a model; the API's description lists them."""
    names = [name for name, model in asker.models.items() if kind in (None, *model.kinds)]
    return Path(json_schema_extra={"enum": names} if names else None)


def _add_forms(app: FastAPI, asker: Asker) -> None:
    """Adds the paths that clients of other servers use."""

    @app.post(
        refusals.EMBEDDINGS,
        responses=_OPENAI_REFUSALS,
        summary="Vectors, as OpenAI's API has them",
    )
    async def embeddings(body: EmbeddingsRequest, request: Request) -> Response:
        model = asker.model_to(kinds.ENCODE, body.model)
        vectors, tokens = await asker.ask(model, body.texts(), request, "input")
        if len(vectors):
            body.check_size(len(vectors[0]))
        reply = openai_form.reply(body.model, vectors, body.encoding_format, tokens)
        return refusals.json(reply)

    @app.post(
        "/v1/models/{name}:predict",
        responses=_REFUSALS,
        summary="Predictions, as TensorFlow Serving's REST API has them",
    )
    async def predict(body: PredictRequest, request: Request, name: str = _name(asker)) -> Response:
        model = asker.model(name)
        items = tensorflow_form.items(body, model)
        results, _ = await asker.ask(model, items, request, "instances")
        return refusals.json(tensorflow_form.reply(results, model))

    @app.get("/v1/models", summary="The models, and the limits of a request")
    async def models() -> Response:
        limits = asker.limits
        there = {"max_texts": limits.max_texts, "max_characters": limits.max_characters}
        return refusals.json({**openai_form.listed(asker.models), "limits": there})

    @app.get("/v1/models/{name}", responses={404: _REFUSALS[404]}, summary="A model")
    async def model(name: str = _name(asker)) -> Response:
        found = asker.model(name)
        return refusals.json({**openai_form.described(found), **tensorflow_form.status(found)})


def _add_health(app: FastAPI, counted: metrics.Metrics) -> None:
    """Adds the page, and what those read who look after the server."""
    content = page.fill("serve.html", {})

    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        headers = {"Content-Security-Policy": PAGE_POLICY, "X-Content-Type-Options": "nosniff"}
        return HTMLResponse(content, headers=headers)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return get_swagger_ui_html(openapi_url="openapi.json", title="bert serve")

    @app.get("/healthz", summary="Whether the server runs")
    async def healthz() -> Response:
        return refusals.json({"status": "ok"})

    @app.get(
        "/readyz",
        responses={503: {"description": "The server is stopping."}},
        summary="Whether to send it requests",
    )
    async def readyz() -> Response:
        if app.state.stopping:
            return refusals.json({"status": "stopping"}, 503)
        return refusals.json({"status": "ready"})

    @app.get("/metrics", response_class=PlainTextResponse, summary="Numbers for Prometheus")
    async def show_metrics() -> Response:
        return Response(counted.page(), media_type=metrics.CONTENT_TYPE)


def _add_errors(app: FastAPI) -> None:
    """Has every error answered with one sentence."""

    async def refused(request: Request, error: Any) -> Response:
        return refusals.response(error, request.scope["path"])

    async def invalid(request: Request, error: Any) -> Response:
        problem = RefusedError(422, _sentence(error.errors()))
        return refusals.response(problem, request.scope["path"])

    async def other(request: Request, error: Any) -> Response:
        sentence = str(error.detail)
        if error.status_code == 400:
            sentence = "the body is not JSON; expected an object, in UTF-8"
        elif error.status_code in (404, 405):
            path, method = request.scope["path"], request.method
            sentence = f"{method} {path[:100]}: no such path; /docs lists those there are"
        problem = RefusedError(error.status_code, sentence, error.headers)
        return refusals.response(problem, request.scope["path"])

    async def bug(request: Request, error: Any) -> Response:  # its traceback is in the log
        problem = RefusedError(500, "the server could not answer this; its log has why")
        return refusals.response(problem, request.scope["path"])

    app.add_exception_handler(RefusedError, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, other)
    app.add_exception_handler(Exception, bug)


def _sentence(errors: Any) -> str:
    """Returns the first thing that is wrong with a body: texts[3]: input should be ..."""
    first = errors[0]
    if first["type"] == "json_invalid":
        return f"the body is not JSON ({first['ctx']['error']} at character {first['loc'][1]})"
    where = ""
    for part in first["loc"][1:]:
        if isinstance(part, int):
            where += f"[{part}]"
        elif part.isidentifier() and part != "str":  # else a member of a union of types
            where += f".{part}" if where else part
    message = _EXPECTED.get(first["type"]) or first["msg"][:1].lower() + first["msg"][1:]
    return f"{where or 'the body'}: {message}"


# Type of an error of pydantic -> what it means here.
_EXPECTED = {
    "missing": "missing",
    "string_type": "expected a string",
    "list_type": "expected a list",
    "dict_type": "expected an object",
    "model_attributes_type": "expected an object",
    "extra_forbidden": "no such field; leave it out",
    "string_pattern_mismatch": "no [MASK] in it; expected one or more",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
}
