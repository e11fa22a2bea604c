"""Targets (RFC 9112, section 3.2; RFC 3986): their forms, their authorities, dot segments and percent-encodings."""

from __future__ import annotations

from tests.suites.chains.corpus.case import AFTER, AFTERWARDS, HOST, Case, Want, refused, request, taken

_PATHS: dict[bytes, bytes] = {
    b"/": b"/",
    b"/a/../b": b"/b",
    b"/a/./b": b"/a/b",
    b"/a/..": b"/",
    b"/..": b"/",
    b"/../../b": b"/b",
    b"/a/%2e%2e/b": b"/b",
    b"/a/%2E./b": b"/b",
    b"/a/.%2e/b": b"/b",
    b"/a/..;x/b": b"/a/..;x/b",
    b"/a//b": b"/a//b",
    b"//b": b"//b",
    b"//b.test/c": b"//b.test/c",
    b"/a//../b": b"/a/b",
    b"/a%2fb": b"/a%2Fb",
    b"/a%2f..%2fb": b"/a%2F..%2Fb",
    b"/a%5cb": b"/a%5Cb",
    b"/a\\..\\b": b"/a\\..\\b",
    b"/%61%62": b"/ab",
    b"/%": b"/%25",
    b"/%zz": b"/%25zz",
    b"/%2": b"/%252",
    b"/%%32e%%32e/b": b"/%252e%252e/b",
    b"/%252e%252e/b": b"/%252e%252e/b",
    b"/%00": b"/%00",
    b"/%0d%0aX:%20y": b"/%0D%0AX:%20y",
    b"/%20HTTP/1.1": b"/%20HTTP/1.1",
    b"/%c0%ae%c0%ae/b": b"/%C0%AE%C0%AE/b",
    b"/%23": b"/%23",
    b"/%3fa": b"/%3Fa",
    b"/a?": b"/a?",
    b"/a?b=c&d": b"/a?b=c&d",
    b"/a?b=/../c": b"/a?b=/../c",
    b"/a?%2e%0d": b"/a?%2e%0d",
    b"/?a?b": b"/?a?b",
    b"/a;b=c/d": b"/a;b=c/d",
    b"/a:b@c": b"/a:b@c",
    b"/http://b.test/": b"/http://b.test/",
    b"/<a>": b"/<a>",
    b'/"a"': b'/"a"',
    b"/{a}|^`": b"/{a}|^`",
    b"/a/.../b": b"/a/.../b",
    b"/.a/..b": b"/.a/..b",
}
_ABSOLUTE: dict[bytes, bytes] = {
    b"http://a.test/b": b"/b",
    b"http://a.test": b"/",
    b"http://a.test/": b"/",
    b"http://a.test?b": b"/?b",
    b"HTTP://A.TEST/b": b"/b",
    b"https://a.test/b": b"/b",
    b"http://a.test/../b": b"/b",
    b"http://a.test//b": b"//b",
    b"http://a.test/http://b.test/": b"/http://b.test/",
}
_BAD = {
    "a word": b"t",
    "a word that is a host": b"a.test",
    "a host and path": b"a.test/t",
    "authority form": b"a.test:80",
    "a star": b"*",
    "a star and path": b"*/t",
    "a query alone": b"?t",
    "a fragment": b"/t#u",
    "a fragment alone": b"#",
    "a relative path": b"./t",
    "a parent": b"../t",
    "a backslash": b"\\t",
    "percent": b"%2ft",
    "another scheme": b"ftp://a.test/",
    "no scheme": b"://a.test/",
    "file": b"file:///t",
    "javascript": b"javascript:t",
    "one slash": b"http:/a.test/",
    "no authority": b"http:///t",
    "no authority and a query": b"http://?t",
    "user information": b"http://u@a.test/",
    "user and password": b"http://u:p@a.test/",
    "host as user information": b"http://a.test@b.test/",
    "a port too large": b"http://a.test:65536/",
    "a port of letters": b"http://a.test:http/",
    "two ports": b"http://a.test:80:80/",
    "a backslash in the authority": b"http://a.test\\@b.test/",
    "a fragment in absolute form": b"http://a.test#b",
    "another host": b"http://b.test/",
    "another port": b"http://a.test:81/",
    "a trailing dot": b"http://a.test./",
    "an encoded host": b"http://a%2etest/",
    "a broken encoding in the host": b"http://a%test/",
    "an unclosed bracket": b"http://[::1/",
    "obs-text": b"/\xc3\xa9",
    "obs-text in the query": b"/t?\xe9",
    "DEL": b"/\x7f",
    "escape": b"/\x1b[2J",
    "a vertical tab": b"/\x0b",
    "a tab": b"/a\tb",
}

CASES: tuple[Case, ...] = (
    *(
        taken(
            f"path: {path.decode()}",
            request(b"GET " + path + b" HTTP/1.1", HOST) + AFTER,
            Want(seen),
            AFTERWARDS,
        )
        for path, seen in _PATHS.items()
    ),
    *(
        taken(
            f"target: {target.decode()}",
            request(b"GET " + target + b" HTTP/1.1", HOST) + AFTER,
            Want(seen),
            AFTERWARDS,
        )
        for target, seen in _ABSOLUTE.items()
    ),
    *(
        refused(f"target: {name}", request(b"GET " + target + b" HTTP/1.1", HOST))
        for name, target in _BAD.items()
    ),
    taken("OPTIONS *", request(b"OPTIONS * HTTP/1.1", HOST) + AFTER, Want(b"*", b"OPTIONS"), AFTERWARDS),
    taken(
        "OPTIONS without a path",
        request(b"OPTIONS http://a.test HTTP/1.1", HOST) + AFTER,
        Want(b"*", b"OPTIONS"),
        AFTERWARDS,
    ),
    taken("absolute form in HTTP/1.0", request(b"GET http://a.test/t HTTP/1.0"), Want()),
)
