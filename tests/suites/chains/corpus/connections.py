"""Connection, Upgrade, Expect and what else is of one hop alone (RFC 9110, sections 7.6, 7.8 and 10.1)."""

from __future__ import annotations

from tests.suites.chains.corpus.case import (
    AFTER,
    AFTERWARDS,
    HOST,
    SMUGGLED,
    Case,
    Want,
    get,
    post,
    posted,
    refused,
    request,
    taken,
)

_HELLO = b"5\r\nhello\r\n0\r\n\r\n"
_LENGTH = b"Content-Length: 5"
_H2C = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")

_STAYS: dict[str, tuple[bytes, ...]] = {
    "a name": (b"Connection: X-Mine", b"X-Mine: y"),
    "host": (b"Connection: Host",),
    "a cookie": (b"Connection: Cookie", b"Cookie: a=b"),
    "forwarded": (b"Connection: X-Forwarded-For, X-Forwarded-Host, X-Request-Id, Via, Forwarded",),
    "forwarded with underscores": (b"Connection: X_Forwarded_For",),
    "keep-alive": (b"Connection: keep-alive", b"Keep-Alive: timeout=5"),
    "nothing": (b"Connection:",),
    "commas": (b"Connection: ,, ,",),
    "closed": (b"Connection: closed",),
    "proxy": (b"Proxy-Connection: close",),
    "te": (b"Connection: TE", b"TE: trailers, chunked"),
    "trailers announced": (b"Trailer: X, Content-Length",),
    "a proxy's password": (b"Proxy-Authorization: Basic YTpi",),
    "upgrade without a protocol": (b"Connection: Upgrade",),
    "a protocol without connection": (b"Upgrade: websocket",),
    "h2c": _H2C,
    "h2c without settings": (b"Connection: Upgrade", b"Upgrade: h2c"),
    "h2c and websocket": (b"Connection: Upgrade", b"Upgrade: h2c, websocket"),
    "TLS": (b"Connection: Upgrade", b"Upgrade: TLS/1.0"),
    "HTTP/2.0": (b"Connection: Upgrade", b"Upgrade: HTTP/2.0"),
    "HTTP/1.0 in Upgrade": (b"Connection: Upgrade", b"Upgrade: HTTP/1.0"),
    "websocket without a key": (b"Connection: Upgrade", b"Upgrade: websocket"),
    "websocket of another version": (
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 777",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ),
}

CASES: tuple[Case, ...] = (
    *(
        taken(f"connection: {name}", get(*lines) + AFTER, Want(), AFTERWARDS)
        for name, lines in _STAYS.items()
    ),
    taken("connection: close", get(b"Connection: close") + SMUGGLED, Want()),
    taken("connection: close among others", get(b"Connection: a, CLOSE ,b") + SMUGGLED, Want()),
    taken(
        "connection: close in the second field",
        get(b"Connection: keep-alive", b"Connection: close") + SMUGGLED,
        Want(),
    ),
    taken("connection: HTTP/1.0 closes", request(b"GET /t HTTP/1.0", HOST) + SMUGGLED, Want()),
    taken(
        "connection: HTTP/1.0 stays",
        request(b"GET /t HTTP/1.0", HOST, b"Connection: Keep-Alive") + AFTER,
        Want(),
        AFTERWARDS,
    ),
    taken(
        "connection: HTTP/1.0 and HTTP/1.1",
        request(b"GET /t HTTP/1.0", HOST, b"Connection: close, keep-alive") + SMUGGLED,
        Want(),
    ),
    taken(
        "connection: names the length",
        post(_LENGTH, b"Connection: Content-Length", body=b"hello" + AFTER),
        posted(b"hello"),
        AFTERWARDS,
    ),
    taken(
        "connection: names the coding",
        post(b"Transfer-Encoding: chunked", b"Connection: Transfer-Encoding", body=_HELLO + AFTER),
        posted(b"hello"),
        AFTERWARDS,
    ),
    taken(
        "upgrade: h2c with a body",
        post(*_H2C, b"Content-Length: %d" % len(SMUGGLED), body=SMUGGLED + AFTER),
        posted(SMUGGLED),
        AFTERWARDS,
    ),
    taken(
        "upgrade: websocket in a POST",
        post(b"Connection: Upgrade", b"Upgrade: websocket", _LENGTH, body=b"hello" + AFTER),
        posted(b"hello"),
        AFTERWARDS,
    ),
    taken(
        "upgrade: in HTTP/1.0",
        request(b"GET /t HTTP/1.0", HOST, b"Connection: Upgrade", b"Upgrade: websocket") + SMUGGLED,
        Want(),
    ),
    taken(
        "expect: 100-continue",
        post(b"Expect: 100-continue", _LENGTH, body=b"hello" + AFTER),
        posted(b"hello"),
        AFTERWARDS,
    ),
    taken(
        "expect: in capitals",
        post(b"Expect: 100-CONTINUE", _LENGTH, body=b"hello" + AFTER),
        posted(b"hello"),
        AFTERWARDS,
    ),
    taken("expect: without a body", get(b"Expect: 100-continue") + AFTER, Want(), AFTERWARDS),
    taken(
        "expect: with chunks",
        post(b"Expect: 100-continue", b"Transfer-Encoding: chunked", body=_HELLO + AFTER),
        posted(b"hello"),
        AFTERWARDS,
    ),
    taken(
        "expect: in HTTP/1.0",
        request(b"POST /t HTTP/1.0", HOST, b"Expect: 100-continue", _LENGTH, body=b"hello"),
        posted(b"hello"),
    ),
    refused("expect: something else", post(b"Expect: 200-ok", _LENGTH, body=b"hello"), 417),
    refused("expect: two", post(b"Expect: 100-continue, x", _LENGTH, body=b"hello"), 417),
    refused("expect: empty", post(b"Expect:", _LENGTH, body=b"hello"), 417),
    Case("expect: a body that never comes", post(b"Expect: 100-continue", _LENGTH), cut=posted()),
)
