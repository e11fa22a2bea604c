"""Host (RFC 9110, section 7.2; RFC 9112, section 3.2): there, once, and a host."""

from __future__ import annotations

from tests.suites.chains.corpus.case import AFTER, AFTERWARDS, HOST, Case, Want, refused, request, taken

_LINE = b"GET /t HTTP/1.1"
_GOOD: dict[bytes, bytes] = {
    b"A.Test": b"a.test",
    b"a.test:80": b"a.test:80",
    b"a.test:": b"a.test:",
    b"a.test:0": b"a.test:0",
    b"a.test:65535": b"a.test:65535",
    b"a.test.": b"a.test.",
    b"127.0.0.1": b"127.0.0.1",
    b"[::1]": b"[::1]",
    b"[::1]:80": b"[::1]:80",
    b"a_b.test": b"a_b.test",
    b"a,b.test": b"a,b.test",
    b"xn--nxasmq6b": b"xn--nxasmq6b",
    b"a%2etest": b"a%2etest",
}
_BAD = {
    "a port too large": b"a.test:65536",
    "a port of letters": b"a.test:8a",
    "a signed port": b"a.test:+80",
    "two ports": b"a.test:80:80",
    "a user": b"u@a.test",
    "a path": b"a.test/t",
    "a query": b"a.test?t",
    "a fragment": b"a.test#t",
    "two words": b"a.test b.test",
    "a list": b"a.test, b.test",
    "a backslash": b"a.test\\b",
    "a scheme": b"http://a.test",
    "an unclosed bracket": b"[::1",
    "a bracket behind": b"::1]",
    "a zone": b"[fe80::1%25eth0]",
    "no bracket": b"::1",
    "obs-text": b"\xe9.test",
    "NUL": b"a.test\x00b",
    "a tab": b"a.test\tb",
    "quotes": b'"a.test"',
    "a broken encoding": b"a%.test",
    "angle brackets": b"<a.test>",
    "a bar": b"a|b",
}

CASES: tuple[Case, ...] = (
    *(
        taken(f"host: {host.decode()}", request(_LINE, b"Host: " + host) + AFTER, Want(host=seen), AFTERWARDS)
        for host, seen in _GOOD.items()
    ),
    taken("host: empty", request(_LINE, b"Host:"), Want(host=None)),
    taken("host: without a space", request(_LINE, b"hOST:a.test") + AFTER, Want(), AFTERWARDS),
    taken("host: behind others", request(_LINE, b"X: y", b"Accept: */*", HOST) + AFTER, Want(), AFTERWARDS),
    taken(
        "host: alike in both",
        request(b"GET http://a.test:80/t HTTP/1.1", b"Host: a.test:80"),
        Want(host=b"a.test:80"),
    ),
    *(refused(f"host: {name}", request(_LINE, b"Host: " + host)) for name, host in _BAD.items()),
    refused("host: none", request(_LINE)),
    refused("host: none, in absolute form", request(b"GET http://a.test/t HTTP/1.1")),
    refused("host: two, alike", request(_LINE, HOST, HOST)),
    refused("host: two, different", request(_LINE, HOST, b"Host: b.test")),
    refused("host: two, one empty", request(_LINE, HOST, b"Host:")),
    refused("host: two in HTTP/1.0", request(b"GET /t HTTP/1.0", HOST, b"Host: b.test")),
    refused("host: two in two spellings", request(_LINE, HOST, b"HOST: b.test")),
    refused("host: a space before the colon", request(_LINE, b"Host : a.test")),
    refused("host: a space in front", request(_LINE, b" Host: a.test")),
    refused("host: a second one folded", request(_LINE, HOST, b" b.test")),
    refused("host: empty, against the target", request(b"GET http://a.test/t HTTP/1.1", b"Host:")),
    refused(
        "host: a port against the target", request(b"GET http://a.test/t HTTP/1.1", b"Host: a.test:8080")
    ),
)
