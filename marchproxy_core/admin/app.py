"""The endpoints of the admin API, as an ASGI application over the engine's read interface.

Owns routing, status codes and the shape of errors. Who may ask is the guard's part, what is answered the
answers' part. A GET reads and never changes anything.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar, final

import attrs
import structlog
import trio
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from marchproxy_core.admin import answers, requests
from marchproxy_core.admin.guard import Guard
from marchproxy_core.admin.schema import dump, read_request, schema
from marchproxy_core.admin.view import EngineView
from marchproxy_core.config.problems import quote
from marchproxy_core.door import WANT, DoorChange, NotAPrefix, read_prefix
from marchproxy_core.errors import ConfigError, MarchProxyError
from marchproxy_core.metrics import MetricsPage, exposition
from marchproxy_core.questions import Recall

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

    from marchproxy_core.config import Settings

log = structlog.get_logger()

MAX_BODY_BYTES = 65536
BODY_TIMEOUT_S = 10.0
MOST_LASTS_S = 365 * 86400.0
_LONGEST_ID = 64
_NOT_REMEMBERED = (
    "no worker remembers a request of this id: it is not over yet, it is older than the last 4096 of its worker, its "
    "worker is gone, or there never was one"
)
Endpoint = Callable[[Request], Awaitable[Response]]
T = TypeVar("T")


def make_app(view: EngineView, settings: Settings) -> ASGIApp:
    """Build the application for one engine and one listen address."""
    endpoints = _Endpoints(view, exposition(view))
    app = Starlette(
        routes=[
            _get("/admin/acceleration", endpoints.acceleration),
            _get("/admin/rules/classification", endpoints.classification),
            _get("/admin/backends/health", endpoints.backends_health),
            _get("/admin/schema", endpoints.schema),
            _get("/metrics", endpoints.metrics),
            _get("/healthz", endpoints.healthz),
            _get("/readyz", endpoints.readyz),
            Route("/admin/door", endpoints.door, methods=["GET", "POST"]),
            _get("/admin/requests/{id}", endpoints.request),
            _post("/admin/cache/purge", endpoints.purge),
            _post("/admin/reload", endpoints.reload),
            _post("/admin/drain", endpoints.drain),
        ],
        exception_handlers={HTTPException: _http_problem, MarchProxyError: _refused, Exception: _failed},
    )
    app.router.redirect_slashes = False
    return _Guarded(app, Guard.of(settings))


def _get(path: str, endpoint: Endpoint) -> Route:
    return Route(path, endpoint, methods=["GET"])


def _post(path: str, endpoint: Endpoint) -> Route:
    return Route(path, endpoint, methods=["POST"])


@final
@attrs.frozen(eq=False)
class _Endpoints:
    """One method for each endpoint."""

    _view: EngineView
    _page: MetricsPage

    async def acceleration(self, request: Request) -> Response:
        return _answer(answers.acceleration(self._view))

    async def classification(self, request: Request) -> Response:
        return _answer(answers.classification(self._view))

    async def backends_health(self, request: Request) -> Response:
        return _answer(answers.backends_health(self._view))

    async def schema(self, request: Request) -> Response:
        return Response(json.dumps(schema()), media_type="application/schema+json")

    async def metrics(self, request: Request) -> Response:
        await self._view.refresh()
        page, content_type = self._page.render(request.headers.get("accept", ""))
        return Response(page, headers={"Content-Type": content_type})

    async def healthz(self, request: Request) -> Response:
        return _answer(answers.healthz(self._view))

    async def readyz(self, request: Request) -> Response:
        answer = answers.readyz(self._view)
        return _answer(answer, HTTPStatus.OK if answer.ready else HTTPStatus.SERVICE_UNAVAILABLE)

    async def door(self, request: Request) -> Response:
        if request.method == "POST":
            self._view.change_door(_door_change(await _read_body(request)))
        return _answer(answers.door(self._view, trio.current_time()))

    async def request(self, request: Request) -> Response:
        recalled = await self._view.recall(Recall(request_id=request.path_params["id"][:_LONGEST_ID]))
        if recalled is None:
            return problem(404, "no tier that runs remembers requests")
        if recalled.found is not None:
            return _answer(requests.request_answer(recalled.found, self._view.config))
        if recalled.silent:
            return problem(
                503, f"{recalled.silent} workers did not answer, the others do not know it: ask again"
            )
        return problem(404, _NOT_REMEMBERED)

    async def purge(self, request: Request) -> Response:
        asked = _read_request(await _read_body(request), requests.PurgeRequest)
        try:
            purge = requests.purge_of(asked, self._view.config)
        except ValueError as error:
            raise HTTPException(422, str(error)) from None
        purged = await self._view.purge(purge)
        log.info("cache.purged", service=purge.service, forgotten=purged.forgotten, silent=purged.silent)
        return _answer(requests.purge_answer(purge.service, purged))

    async def reload(self, request: Request) -> Response:
        await _read_body(request)
        return _answer(await self._view.reload())

    async def drain(self, request: Request) -> Response:
        await _read_body(request)
        answer = answers.drain(self._view)
        return _Then(_answer(answer, HTTPStatus.ACCEPTED), self._view.drain)


def _answer(answer: object, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(dump(answer), status_code=status, media_type="application/json")


@final
class _Then(Response):
    """A response that is sent first; then the call is made, also when the client is gone by then.

    A drain with no connections ends the daemon at once, and the answer must be out before.
    """

    def __init__(self, response: Response, call: Callable[[], None]) -> None:
        super().__init__(response.body, response.status_code, media_type=response.media_type)
        self._call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._call()


async def _read_body(request: Request) -> bytes:
    """Read what the client sends.

    Raises:
        HTTPException: 413 for more than 64 KiB, 408 when it takes longer than 10 s.
    """
    body = b""
    try:
        with trio.fail_after(BODY_TIMEOUT_S):
            async with aclosing(request.stream()) as chunks:
                async for chunk in chunks:
                    body += chunk
                    if len(body) > MAX_BODY_BYTES:
                        raise HTTPException(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
    except trio.TooSlowError:
        raise HTTPException(408, f"the body took longer than {BODY_TIMEOUT_S:.0f} s") from None
    except ClientDisconnect:
        raise HTTPException(400, "the body was cut off") from None
    return body


def _read_request(body: bytes, want: type[T]) -> T:
    """Read a body.

    Raises:
        HTTPException: 400: it is not such a one.
    """
    try:
        return read_request(body, want)
    except ValueError as error:
        raise HTTPException(400, str(error)) from None


def _door_change(body: bytes) -> DoorChange:
    """Read what is asked of the front door.

    Raises:
        HTTPException: 400: it is not such a body; 422: its prefix is none.
    """
    asked = _read_request(body, answers.DoorRequest)
    if asked.lasts_s is not None and not 0 < asked.lasts_s <= MOST_LASTS_S:
        raise HTTPException(
            422, f"lasts_s: got {asked.lasts_s:g}, want seconds above 0, at most {MOST_LASTS_S:g}"
        )
    try:
        prefix = read_prefix(asked.prefix)
    except NotAPrefix as error:
        hint = f"; did you mean {error.nearest}?" if error.nearest else ""
        raise HTTPException(422, f"prefix: got {quote(asked.prefix)}, want {WANT}{hint}") from None
    return DoorChange(
        action=asked.action,
        prefix=prefix,
        service=asked.service or "",
        door=asked.door,
        lasts_s=asked.lasts_s,
    )


def problem(status: int, detail: str, error: ConfigError | None = None) -> Response:
    """Return an error as RFC 9457 has it."""
    body = answers.Problem(
        type="about:blank",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        problems=error.problems if error else (),
    )
    return Response(dump(body), status_code=status, media_type="application/problem+json")


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    detail = error.detail
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(sorted(headers["Allow"].split(", ")))
        detail = f"this endpoint takes {headers['Allow']}"
    elif error.status_code == HTTPStatus.NOT_FOUND:
        detail = "no such endpoint; GET /admin/schema lists them"
    response = problem(error.status_code, detail)
    response.headers.update(headers)
    return response


async def _refused(request: Request, error: Exception) -> Response:
    """Answer what the engine refused: nothing was changed, and the body says why."""
    return problem(422, str(error), error if isinstance(error, ConfigError) else None)


async def _failed(request: Request, error: Exception) -> Response:
    # Starlette raises the error again after this answer, and the server logs it with its traceback.
    return problem(500, "a fault inside the daemon; its log has the details")


@final
@attrs.frozen(eq=False)
class _Guarded:
    """The application behind its guard; adds the headers that every answer has, and logs each request."""

    _app: ASGIApp
    _guard: Guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)

        async def send_and_log(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
                message["headers"] = [*message.get("headers", []), *extra]
                log.debug(
                    "admin.request_answered",
                    method=scope["method"],
                    path=scope["path"],
                    status=message["status"],
                )
            await send(message)

        refusal = self._guard.refuse(scope["method"], scope["path"], headers)
        if refusal is None:
            await self._app(scope, receive, send_and_log)
            return
        log.warning(
            "admin.request_refused",
            method=scope["method"],
            path=scope["path"],
            status=refusal.status,
            reason=refusal.detail,
        )
        response = problem(refusal.status, refusal.detail)
        response.headers.update(refusal.headers)
        await response(scope, receive, send_and_log)
