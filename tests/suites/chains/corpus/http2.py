"""Odd requests of HTTP/2 (RFC 9113, section 8), most of which would be two in HTTP/1.1 if they were copied."""

from __future__ import annotations

import attrs

from tests.suites.chains.corpus.case import SMUGGLED, Want, posted

Header = tuple[bytes, bytes]

_END = b"0\r\n\r\n"
_METHOD, _SCHEME, _AUTHORITY, _PATH = b":method", b":scheme", b":authority", b":path"
_GET = {_METHOD: b"GET", _SCHEME: b"http", _AUTHORITY: b"a.test", _PATH: b"/t"}
_POST = _GET | {_METHOD: b"POST"}


@attrs.frozen
class Stream:
    """What a client sends in a stream."""

    name: str
    headers: tuple[Header, ...]
    body: bytes | None = None
    trailers: tuple[Header, ...] = ()
    seen: Want | None = None
    """None: it is refused."""


def _get(*fields: Header, **pseudo: bytes) -> tuple[Header, ...]:
    return (*(_GET | {b":" + name.encode(): value for name, value in pseudo.items()}).items(), *fields)


def _post(*fields: Header) -> tuple[Header, ...]:
    return (*_POST.items(), *fields)


def _without(*names: bytes) -> tuple[Header, ...]:
    return tuple((name, value) for name, value in _GET.items() if name not in names)


_INJECTIONS = {
    "CR LF": b"y\r\nZ: z",
    "LF": b"y\nZ: z",
    "CR": b"y\rZ: z",
    "NUL": b"y\x00z",
    "a coding": b"y\r\nTransfer-Encoding: chunked",
    "a request": b"y\r\n\r\n" + SMUGGLED,
    "a request and LF": b"y\n\nGET /smuggled HTTP/1.1\nHost: a.test\n\n",
    "CR LF in front": b"\r\ny",
    "CR LF behind": b"y\r\n",
    "a space in front": b" y",
    "a tab behind": b"y\t",
    "escape": b"\x1b[2J",
}
_BAD_NAMES = {
    "capitals": b"X-Mine",
    "a colon": b"x:y",
    "a coding": b"x: y\r\ntransfer-encoding",
    "CR LF": b"x\r\ny",
    "LF": b"x\ny",
    "a space": b"x y",
    "a space behind": b"transfer-encoding ",
    "NUL": b"x\x00",
    "nothing": b"",
    "obs-text": b"x\xe9",
    "a request": b"x\r\n\r\nget /smuggled http/1.1\r\nhost",
}
_BAD_PATHS = {
    "nothing": b"",
    "a word": b"t",
    "a star": b"*",
    "a space": b"/t HTTP/1.1",
    "a request": b"/t HTTP/1.1\r\nHost: a.test\r\n\r\nGET /smuggled",
    "LF": b"/t\n",
    "a tab": b"/t\tu",
    "NUL": b"/\x00",
    "a fragment": b"/t#u",
    "obs-text": b"/\xc3\xa9",
    "an authority": b"a.test:80",
}
_BAD_METHODS = {
    "nothing": b"",
    "a request": b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\nGET",
    "a request line": b"GET /smuggled HTTP/1.1\r\nX:",
    "a space": b"GET ",
    "LF": b"GET\n",
    "at": b"G@T",
}
_BAD_AUTHORITIES = {
    "CR LF": b"a.test\r\nX: y",
    "a space": b"a.test b.test",
    "a path": b"a.test/t",
    "a user": b"u@a.test",
    "a port of letters": b"a.test:x",
    "NUL": b"a.test\x00",
    "a request": b"a.test\r\n\r\n" + SMUGGLED,
}
_OF_CONNECTIONS: dict[bytes, bytes] = {
    b"transfer-encoding": b"chunked",
    b"connection": b"close",
    b"keep-alive": b"timeout=5",
    b"proxy-connection": b"keep-alive",
    b"upgrade": b"h2c",
    b"te": b"gzip",
}
_BAD_LENGTHS = {
    "too much": (b"3", b"hello"),
    "too little": (b"50", b"hello"),
    "none of it": (b"5", b""),
    "zero": (b"0", SMUGGLED),
    "signed": (b"+5", b"hello"),
    "a list": (b"5, 5", b"hello"),
    "no number": (b"x", b"hello"),
    "nothing": (b"", b"hello"),
}
_BAD_TRAILERS: dict[str, tuple[Header, ...]] = {
    "a length": ((b"content-length", b"5"),),
    "a coding": ((b"transfer-encoding", b"chunked"),),
    "a path": ((b":path", b"/smuggled"),),
    "a status": ((b":status", b"200"),),
    "CR LF": ((b"x", b"y\r\n\r\n" + SMUGGLED),),
    "capitals": ((b"X", b"y"),),
    "a host": ((b"host", b"b.test"),),
}

_REFUSED = (
    *(Stream(f"value: {name}", _get((b"x", value))) for name, value in _INJECTIONS.items()),
    *(Stream(f"name: {name}", _get((value, b"y"))) for name, value in _BAD_NAMES.items()),
    *(Stream(f"path: {name}", _get(path=value)) for name, value in _BAD_PATHS.items()),
    *(Stream(f"method: {name}", _get(method=value)) for name, value in _BAD_METHODS.items()),
    *(Stream(f"authority: {name}", _get(authority=value)) for name, value in _BAD_AUTHORITIES.items()),
    *(
        Stream(f"of a connection: {name.decode()}", _get((name, value)))
        for name, value in _OF_CONNECTIONS.items()
    ),
    *(
        Stream(f"length: {name}", _post((b"content-length", value)), body)
        for name, (value, body) in _BAD_LENGTHS.items()
    ),
    *(Stream(f"trailer: {name}", _post(), b"hello", trailers) for name, trailers in _BAD_TRAILERS.items()),
    Stream("two lengths", _post((b"content-length", b"5"), (b"content-length", b"0")), b"hello"),
    Stream("a coding and a body", _post((b"transfer-encoding", b"chunked")), _END + SMUGGLED),
    Stream("a scheme with a request", _get(scheme=b"http://a.test/smuggled HTTP/1.1\r\n")),
    Stream("no path", _without(_PATH)),
    Stream("no method", _without(_METHOD)),
    Stream("no scheme", _without(_SCHEME)),
    Stream("no authority and no host", _without(_AUTHORITY)),
    Stream("two paths", _get((_PATH, b"/smuggled"))),
    Stream("two methods", ((_METHOD, b"GET"), *_GET.items())),
    Stream("a path behind fields", (*_without(_PATH), (b"x", b"y"), (_PATH, b"/smuggled"))),
    Stream("a pseudo-header that is none", _get((b":x", b"y"))),
    Stream("a status", _get((b":status", b"200"))),
    Stream("another host", _get((b"host", b"b.test"))),
    Stream("two hosts", (*_without(_AUTHORITY), (b"host", b"a.test"), (b"host", b"b.test"))),
    Stream("CONNECT", ((_METHOD, b"CONNECT"), (_AUTHORITY, b"a.test:80"))),
    Stream("CONNECT with a path", ((_METHOD, b"CONNECT"), *_without(_METHOD))),
)
_TAKEN = (
    Stream("GET", _get(), seen=Want()),
    Stream("HEAD", _get(method=b"HEAD"), seen=Want(method=b"HEAD")),
    Stream("a host for an authority", (*_without(_AUTHORITY), (b"host", b"a.test")), seen=Want()),
    Stream("a host like the authority", _get((b"host", b"a.test")), seen=Want()),
    Stream("https", _get(scheme=b"http"), seen=Want()),
    Stream("te: trailers", _get((b"te", b"trailers")), seen=Want()),
    Stream("dot segments", _get(path=b"/a/%2e%2e/t"), seen=Want()),
    Stream("obs-text", _get((b"x", b"\xe9")), seen=Want()),
    Stream("crumbs of a cookie", _get((b"cookie", b"a=b"), (b"cookie", b"c=d")), seen=Want()),
    Stream(
        "an address made up",
        _get((b"x-forwarded-for", b"192.0.2.66"), (b"x_real_ip", b"192.0.2.66")),
        seen=Want(),
    ),
    Stream(
        "underscores for dashes",
        _post((b"transfer_encoding", b"chunked")),
        _END + SMUGGLED,
        seen=posted(_END + SMUGGLED),
    ),
    Stream("a body", _post(), b"hello", seen=posted(b"hello")),
    Stream("a body with its length", _post((b"content-length", b"5")), b"hello", seen=posted(b"hello")),
    Stream("an empty body", _post(), b"", seen=posted()),
    Stream("no body", _post(), seen=posted()),
    Stream("a request for a body", _post(), SMUGGLED, seen=posted(SMUGGLED)),
    Stream("an end and a request for a body", _post(), _END + SMUGGLED, seen=posted(_END + SMUGGLED)),
    Stream("a request for the body of a GET", _get(), SMUGGLED, seen=Want(body=SMUGGLED)),
    Stream("a trailer", _post(), b"hello", ((b"x", b"y"),), seen=posted(b"hello")),
    Stream(
        "a trailer that says who asks",
        _post(),
        b"hello",
        ((b"authorization", b"evil.test"),),
        seen=posted(b"hello"),
    ),
    Stream("expect", _post((b"expect", b"100-continue")), b"hello", seen=posted(b"hello")),
)

STREAMS = (*_REFUSED, *_TAKEN)
