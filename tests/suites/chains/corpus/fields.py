"""Field lines (RFC 9112, section 5; RFC 9110, section 5.5)."""

from __future__ import annotations

from tests.suites.chains.corpus.case import AFTER, AFTERWARDS, HOST, Case, Want, get, refused, request, taken

_GOOD = {
    "an empty value": (b"X:",),
    "tabs in a value": (b"X: a\tb",),
    "obs-text": (b"X: \xe9\xff",),
    "white space around": (b"X: \t y \t",),
    "an odd name": (b"!#$%&'*+-.^_`|~1a: y",),
    "a colon in the value": (b"X: :y",),
    "a colon behind the name": (b"X:: y",),
    "a request in the value": (b"X: GET /smuggled HTTP/1.1",),
    "the same name twice": (b"X: y", b"X: z"),
    "90 of them": tuple(b"X%d: y" % number for number in range(90)),
    "a value of 4000 bytes": (b"X: " + b"y" * 4000,),
    "an encoded line end": (b"X: y%0d%0aZ: z",),
    "a name of 100 bytes": (b"X" * 100 + b": y",),
    "an address that is made up": (
        b"X-Forwarded-For: 192.0.2.66",
        b"Forwarded: for=192.0.2.66",
        b"X-Real-IP: 192.0.2.66",
    ),
    "a host that is made up": (
        b"X-Forwarded-Host: evil.test",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Port: 66",
    ),
    "an address that is made up with underscores": (b"X_Forwarded_For: 192.0.2.66", b"X_Real_IP: 192.0.2.66"),
    "a host that is made up with underscores": (
        b"X_Forwarded_Host: evil.test",
        b"X-Forwarded_Host: evil.test",
    ),
    "an id that is made up": (b"X-Request-Id: evil.test",),
}
_BAD_NAMES = {
    "a space before the colon": b"X : y",
    "a tab before the colon": b"X\t: y",
    "a space in the name": b"X Y: z",
    "no name": b": y",
    "no colon": b"X",
    "a parenthesis": b"X(: y",
    "a slash": b"X/Y: z",
    "a bracket": b"[X]: y",
    "an at sign": b"X@: y",
    "an equals sign": b"X=: y",
    "a quotation mark": b'"X": y',
    "obs-text in the name": b"X\xe9: y",
    "NUL in the name": b"X\x00: y",
    "DEL in the name": b"X\x7f: y",
    "a vertical tab in the name": b"X\x0b: y",
    "a no-break space in the name": b"X\xa0: y",
    "a backslash": b"X\\: y",
    "a semicolon": b"X;: y",
    "a request line": b"GET /smuggled HTTP/1.1",
}
_BAD_VALUES = {
    "NUL": b"\x00",
    "a bell": b"y\x07",
    "backspace": b"y\x08",
    "a vertical tab": b"y\x0b",
    "a form feed": b"\x0cy",
    "escape": b"\x1b[2J",
    "DEL": b"y\x7f",
    "CR": b"y\rZ: z",
    "CR at the end": b"y\r",
    "LF": b"y\nZ: z",
    "LF LF": b"y\n\nGET /smuggled HTTP/1.1",
    "LF and fold": b"y\n z",
}

CASES: tuple[Case, ...] = (
    *(taken(f"field: {name}", get(*lines) + AFTER, Want(), AFTERWARDS) for name, lines in _GOOD.items()),
    *(refused(f"field: {name}", get(line)) for name, line in _BAD_NAMES.items()),
    *(refused(f"field's value: {name}", get(b"X: " + value)) for name, value in _BAD_VALUES.items()),
    refused("field: folded with a space", get(b"X: y", b" z")),
    refused("field: folded with a tab", get(b"X: y", b"\tz")),
    refused("field: folded and empty", get(b"X: y", b" ")),
    refused("field: folded three times", get(b"X:", b" a", b" b", b" c")),
    refused("field: the first one folded", request(b"GET /t HTTP/1.1", b" X: y", HOST)),
    refused("field: 101 of them", get(*(b"X%d: y" % number for number in range(100))), 431),
    refused("field: a value of 40000 bytes", get(b"X: " + b"y" * 40000), 431),
    refused("field: a name of 40000 bytes", get(b"X" * 40000 + b": y"), 431),
)
