"""What the browser is shown: a page that talks over a WebSocket with the server that it came from, by ASGI on trio.

A browser dumps a page when it is loaded, and a page is loaded when its last picture is: that one comes when the
WebSocket has ended.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

import trio

_LONGEST_S = 20.0
_PAGE = b"""<!doctype html>
<title>page</title>
<ul id="told"></ul>
<script>
const tell = (name, value) => {
  const item = document.createElement("li");
  item.id = name;
  item.textContent = value;
  document.getElementById("told").append(item);
};
tell("page", performance.getEntriesByType("navigation")[0].nextHopProtocol);
const socket = new WebSocket(`wss://${location.host}/echo`);
const said = "\\u00e9cho ".repeat(10000);
socket.onopen = () => socket.send(said);
socket.onmessage = ({data}) => {
  if (data.startsWith("via ")) {
    tell("socket", data);
    return;
  }
  tell("echo", data === said ? "same" : "another");
  socket.close(1000, "done");
};
socket.onclose = ({code, wasClean}) => {
  tell("close", `${code} ${wasClean}`);
  fetch("/closed", {method: "POST", body: said}).then(async answer => {
    tell("fetch", `${answer.status} ${await answer.text()}`);
    return fetch(`/loaded${location.search}`, {method: "POST"});
  });
};
</script>
<script>
document.write(`<img src="/last.png${location.search}" alt="">`);
</script>
"""

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
_loaded: defaultdict[bytes, trio.Event] = defaultdict(trio.Event)
"""By the query of the page, which is another one each time."""


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Answer by ASGI 3."""
    if scope["type"] == "websocket":
        await _echo(scope, receive, send)
    elif scope["type"] == "http":
        await _answer(scope["path"], scope["query_string"], await _body(receive), send)
    else:
        raise NotImplementedError(scope["type"])


async def _echo(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    via = dict(scope["headers"]).get(b"via", b"").decode()
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": f"via {via}"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event["text"]})


async def _body(receive: Receive) -> bytes:
    body, has_more = b"", True
    while has_more:
        event = await receive()
        body += event.get("body", b"")
        has_more = event.get("more_body", False)
    return body


async def _answer(path: str, query: bytes, body: bytes, send: Send) -> None:
    kind, content = b"text/plain", b"%d" % len(body)
    if path == "/":
        kind, content = b"text/html; charset=utf-8", _PAGE
    elif path == "/loaded":
        _loaded[query].set()
    elif path == "/last.png":
        with trio.move_on_after(_LONGEST_S):
            await _loaded[query].wait()
    headers = [
        (b"content-type", kind),
        (b"content-length", b"%d" % len(content)),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})
