"""Several requests in one go (RFC 9112, section 9.3.2): each is seen once, and none behind a malformed one."""

from __future__ import annotations

from tests.suites.chains.corpus.case import (
    AFTER,
    AFTERWARDS,
    HOST,
    SMUGGLED,
    Case,
    Want,
    chunked,
    get,
    post,
    posted,
    refused,
    request,
    taken,
)

_GET = get()
_POST = post(b"Content-Length: 5", body=b"hello")
_CHUNKED = chunked(b"5\r\nhello\r\n0\r\nX: y\r\n\r\n")
_HEAD = request(b"HEAD /t HTTP/1.1", HOST)
_HELLO = posted(b"hello")
_OTHER = request(b"GET http://b.test/after HTTP/1.1", b"Host: b.test")

CASES: tuple[Case, ...] = (
    taken("two", _GET + AFTER, Want(), AFTERWARDS),
    taken("ten", _GET * 9 + AFTER, *[Want()] * 9, AFTERWARDS),
    taken("a body before", _POST + AFTER, _HELLO, AFTERWARDS),
    taken("a body behind", AFTER + _POST, AFTERWARDS, _HELLO),
    taken("bodies of both kinds", _POST + _CHUNKED + _POST + _CHUNKED + AFTER, *[_HELLO] * 4, AFTERWARDS),
    taken("HEAD before", _HEAD + AFTER, Want(method=b"HEAD"), AFTERWARDS),
    taken("HEAD between", _GET + _HEAD + _POST + AFTER, Want(), Want(method=b"HEAD"), _HELLO, AFTERWARDS),
    taken("an empty body before", post(b"Content-Length: 0") + AFTER, posted(), AFTERWARDS),
    taken("another host behind", _GET + _OTHER, Want(), Want(b"/after", host=b"b.test")),
    taken("an empty line between", _POST + b"\r\n" + AFTER, _HELLO, AFTERWARDS),
    taken("empty lines between", _GET + b"\r\n\r\n" + AFTER, Want(), AFTERWARDS),
    taken("close in the second", _GET + get(b"Connection: close") + SMUGGLED, Want(), Want()),
    Case("half a second one", _GET + AFTER[:-2], (Want(),)),
    Case("half a body in the second", _GET + _POST[:-2], (Want(),), cut=posted(b"hel")),
    refused("LF between", _POST + b"\n" + AFTER, 400, _HELLO),
    refused("NUL between", _POST + b"\x00" + AFTER, 400, _HELLO),
    refused("a space between", _GET + b" " + AFTER, 400, Want()),
    taken(
        "more than its length",
        post(b"Content-Length: 4", body=b"hello") + AFTER,
        posted(b"hell"),
        Want(b"/after", b"oGET"),
    ),
    refused("a body without a length", post(body=b"hello\r\n\r\n"), 400, posted()),
    refused("chunks without a coding", post(body=b"5\r\nhello\r\n0\r\n\r\n"), 400, posted()),
    refused(
        "length and coding in the second",
        _GET + post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        400,
        Want(),
    ),
    refused("no host in the second", _GET + request(b"GET /t HTTP/1.1"), 400, Want()),
    refused("HTTP/2.0 in the second", _POST + request(b"GET /t HTTP/2.0", HOST), 505, _HELLO),
    refused("CONNECT in the second", _GET + request(b"CONNECT a.test:80 HTTP/1.1", HOST), 501, Want()),
    refused("a fold in the second", _CHUNKED + get(b"X: y", b" z"), 400, _HELLO),
    refused(
        "a status line in the second", _GET + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 400, Want()
    ),
)
