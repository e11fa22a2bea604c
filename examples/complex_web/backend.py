"""The example's backend: a page, what the proxy says about a client, and a WebSocket echo. Not for use in earnest."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.routing import Route, WebSocketRoute

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.websockets import WebSocket

ADDRESS = "127.0.0.1:19480"

PAGE = """<!doctype html>
<title>complex-web</title>
<h1>complex-web</h1>
<p>HTTP: <b id="http">...</b>. WebSocket: <b id="socket">...</b>.</p>
<script>
document.getElementById("http").textContent = performance.getEntriesByType("navigation")[0].nextHopProtocol;
const socket = new WebSocket("wss://" + location.host + "/page/echo");
socket.onopen = () => socket.send("hello through the proxy");
socket.onmessage = message => { document.getElementById("socket").textContent = message.data; };
socket.onerror = () => { document.getElementById("socket").textContent = "failed"; };
</script>
"""


async def page(request: Request) -> HTMLResponse:
    """The page that a browser loads."""
    del request
    return HTMLResponse(PAGE, headers={"Cache-Control": "max-age=10"})


async def whoami(request: Request) -> JSONResponse:
    """What the proxy says about the client."""
    names = ("x-user", "x-forwarded-for", "x-forwarded-proto", "x-request-id")
    return JSONResponse({name: request.headers.get(name) for name in names})


async def health(request: Request) -> PlainTextResponse:
    """For the health check."""
    del request
    return PlainTextResponse("well\n")


async def echo(socket: WebSocket) -> None:
    """Send back every message."""
    await socket.accept()
    async for message in socket.iter_text():
        await socket.send_text(message)


app = Starlette(
    routes=[
        Route("/health", health),
        Route("/page", page),
        Route("/api/whoami", whoami),
        WebSocketRoute("/page/echo", echo),
        WebSocketRoute("/api/echo", echo),
    ]
)

if __name__ == "__main__":
    trio.run(partial(serve, app, Config.from_mapping(bind=[ADDRESS])))  # type: ignore[arg-type]
