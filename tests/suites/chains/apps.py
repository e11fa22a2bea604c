"""The application behind the chains' Python servers: tells what it saw, and says it in its answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import quote

from tests.suites.chains.telling import tell_by_environment

_PLAIN = [("Content-Type", "text/plain")]


def cgi_fields(environ: dict[str, Any]) -> list[tuple[str, str]]:
    """Return fields out of what CGI makes of them (RFC 3875, section 4.1.18)."""
    fields = [
        (name.removeprefix("HTTP_").lower(), value)
        for name, value in environ.items()
        if name.startswith("HTTP_") and isinstance(value, str)
    ]
    length = environ.get("CONTENT_LENGTH")
    return [*fields, ("content_length", length)] if length else fields


def wsgi(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Answer by PEP 3333; reads the body to its end, and tells nobody of one that ends half-way."""
    body = environ["wsgi.input"].read()
    if len(body) < int(environ.get("CONTENT_LENGTH") or 0):
        return []  # the client is gone
    target = environ.get("RAW_URI") or environ.get("REQUEST_URI") or environ["PATH_INFO"]
    answer = tell_by_environment(environ["REQUEST_METHOD"], target, body, cgi_fields(environ))
    start_response("200 OK", [*_PLAIN, ("Content-Length", str(len(answer)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer]


async def asgi(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Answer by ASGI 3; a WebSocket is not taken, and a request that ends half-way not told."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1000})
        return
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    body, has_more = b"", True
    while has_more:
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        body += event.get("body", b"")
        has_more = event.get("more_body", False)
    target = (scope.get("raw_path") or quote(scope["path"]).encode()).decode("latin-1")
    query = scope["query_string"].decode("latin-1")
    fields = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
    answer = tell_by_environment(scope["method"], f"{target}?{query}" if query else target, body, fields)
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
