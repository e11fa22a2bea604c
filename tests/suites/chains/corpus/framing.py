"""Where a body ends (RFC 9112, section 6): Content-Length, Transfer-Encoding, and both."""

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

_TE = b"Transfer-Encoding: chunked"
_EMPTY = b"0\r\n\r\n"
_HELLO = b"5\r\nhello\r\n0\r\n\r\n"

_BAD_LENGTHS = {
    "signed": b"+5",
    "negative": b"-5",
    "hex": b"0x5",
    "list": b"5, 5",
    "list of different": b"5, 6",
    "empty": b"",
    "comma": b"5,",
    "fraction": b"5.0",
    "exponent": b"5e0",
    "two words": b"5 5",
    "underscore": b"5_0",
    "quoted": b'"5"',
    "parameter": b"5;a=b",
    "arabic digit": b"\xd9\xa5",
    "superscript": b"\xe2\x81\xb5",
    "19 digits": b"0000000000000000005",
    "two to the 64 and 5": b"18446744073709551621",
    "letters": b"five",
    "nul": b"5\x00",
    "vertical tab": b"\x0b5",
    "form feed": b"5\x0c",
}
_BAD_CODINGS = {
    "identity": b"identity",
    "other": b"xchunked",
    "cut short": b"chunke",
    "twice": b"chunked, chunked",
    "identity behind": b"chunked, identity",
    "identity before": b"identity, chunked",
    "gzip before": b"gzip, chunked",
    "cow before": b"cow, chunked",
    "parameter": b"chunked;q=1",
    "quoted": b'"chunked"',
    "empty": b"",
    "empty member behind": b"chunked,",
    "empty member before": b", chunked",
    "two words": b"chunked chunked",
    "obs-text": b"chunked\xff",
    "no-break space": b"\xa0chunked",
}
_ODD_METHODS = (b"GET", b"DELETE", b"OPTIONS", b"PUT", b"PATCH", b"PROPFIND")

CASES: tuple[Case, ...] = (
    taken("length", post(b"Content-Length: 5", body=b"hello"), posted(b"hello")),
    taken("length zero", post(b"Content-Length: 0"), posted()),
    taken(
        "length with leading zeros",
        post(b"Content-Length: 0005", body=b"hello" + AFTER),
        posted(b"hello"),
        AFTERWARDS,
    ),
    taken(
        "length between white space",
        post(b"Content-Length: \t 5 \t ", body=b"hello" + AFTER),
        posted(b"hello"),
        AFTERWARDS,
    ),
    taken(
        "length without a space",
        post(b"content-length:5", body=b"hello" + AFTER),
        posted(b"hello"),
        AFTERWARDS,
    ),
    taken("no length", post(body=AFTER), posted(), AFTERWARDS),
    taken(
        "length longer than a request",
        post(b"Content-Length: %d" % len(SMUGGLED), body=SMUGGLED),
        posted(SMUGGLED),
    ),
    taken("chunked", post(_TE, body=_HELLO + AFTER), posted(b"hello"), AFTERWARDS),
    taken(
        "chunked in capitals",
        post(b"TRANSFER-ENCODING: CHUNKED", body=_HELLO + AFTER),
        posted(b"hello"),
        AFTERWARDS,
    ),
    taken(
        "chunked without a space",
        post(b"Transfer-Encoding:chunked", body=_HELLO + AFTER),
        posted(b"hello"),
        AFTERWARDS,
    ),
    taken(
        "chunked between tabs",
        post(b"Transfer-Encoding:\tchunked\t", body=_HELLO + AFTER),
        posted(b"hello"),
        AFTERWARDS,
    ),
    taken(
        "underscores for dashes",
        post(
            b"Transfer_Encoding: chunked",
            b"Content-Length: %d" % len(_EMPTY + SMUGGLED),
            body=_EMPTY + SMUGGLED,
        ),
        posted(_EMPTY + SMUGGLED),
    ),
    taken(
        "length with an underscore",
        post(b"Content_Length: 0", b"Content-Length: %d" % len(SMUGGLED), body=SMUGGLED),
        posted(SMUGGLED),
    ),
    taken("length with an underscore alone", post(b"Content_Length: 999", body=AFTER), posted(), AFTERWARDS),
    taken(
        "chunked with an underscore alone",
        post(b"Transfer_Encoding: chunked", body=AFTER),
        posted(),
        AFTERWARDS,
    ),
    taken(
        "another name behind chunked", post(b"Transfer-Encoding-X: chunked", body=AFTER), posted(), AFTERWARDS
    ),
    taken(
        "a body that looks chunked",
        post(b"Content-Length: %d" % len(_EMPTY + SMUGGLED), body=_EMPTY + SMUGGLED),
        posted(_EMPTY + SMUGGLED),
    ),
    refused("length and chunked", post(b"Content-Length: 5", _TE, body=_EMPTY)),
    refused("chunked and length", post(_TE, b"Content-Length: 5", body=_EMPTY)),
    refused("length of the chunks and chunked", post(b"Content-Length: 15", _TE, body=_HELLO)),
    refused("length zero and chunked", post(b"Content-Length: 0", _TE, body=_HELLO)),
    refused("malformed length and chunked", post(b"Content-Length: x", _TE, body=_EMPTY)),
    refused("length and unknown coding", post(b"Content-Length: 5", b"Transfer-Encoding: x", body=b"hello")),
    refused(
        "length and coding in small letters",
        post(b"content-length: 5", b"transfer-encoding: chunked", body=_EMPTY),
    ),
    refused("two lengths, different", post(b"Content-Length: 5", b"Content-Length: 0", body=b"hello")),
    refused("two lengths, alike", post(b"Content-Length: 5", b"Content-Length: 5", body=b"hello")),
    refused("two lengths in two spellings", post(b"Content-Length: 5", b"content-length: 05", body=b"hello")),
    refused("two lengths, one empty", post(b"Content-Length: 5", b"Content-Length:", body=b"hello")),
    refused("two codings, chunked last", post(b"Transfer-Encoding: identity", _TE, body=_EMPTY), 501),
    refused("two codings, chunked first", post(_TE, b"Transfer-Encoding: x", body=_EMPTY), 501),
    refused("two codings, alike", post(_TE, _TE, body=_EMPTY), 501),
    refused("coding in HTTP/1.0", request(b"POST /t HTTP/1.0", HOST, _TE, body=_EMPTY)),
    refused(
        "coding in HTTP/1.0 that stays",
        request(b"POST /t HTTP/1.0", HOST, b"Connection: keep-alive", _TE, body=_EMPTY),
    ),
    refused(
        "a space before the colon of the coding",
        post(b"Transfer-Encoding : chunked", b"Content-Length: 5", body=_EMPTY),
    ),
    refused("a tab before the colon of the length", post(b"Content-Length\t: 5", body=b"hello")),
    refused("a folded coding", post(b"Transfer-Encoding:", b" chunked", b"Content-Length: 5", body=_EMPTY)),
    refused(
        "a coding in a fold", post(b"X: y", b" Transfer-Encoding: chunked", b"Content-Length: 5", body=_EMPTY)
    ),
    refused(
        "a coding behind LF", post(b"X: y\nTransfer-Encoding: chunked", b"Content-Length: 5", body=_EMPTY)
    ),
    refused(
        "a coding behind CR", post(b"X: y\rTransfer-Encoding: chunked", b"Content-Length: 5", body=_EMPTY)
    ),
    refused(
        "a coding's name and LF", post(b"Transfer-Encoding\n: chunked", b"Content-Length: 5", body=_EMPTY)
    ),
    refused("a coding with NUL", post(b"Transfer-Encoding: chunked\x00", body=_EMPTY)),
    refused("a coding with a vertical tab", post(b"Transfer-Encoding: \x0bchunked", body=_EMPTY)),
    refused("a coding's name with NUL", post(b"Transfer-Encoding\x00: chunked", body=_EMPTY)),
    refused("a length's name with obs-text", post(b"Content-Length\xa0: 5", body=b"hello")),
    *(
        refused(f"length: {name}", post(b"Content-Length: " + value, body=b"hello"))
        for name, value in _BAD_LENGTHS.items()
    ),
    *(
        refused(f"coding: {name}", post(b"Transfer-Encoding: " + value, body=_EMPTY), 501)
        for name, value in _BAD_CODINGS.items()
    ),
    *(
        taken(
            f"{method.decode()} with a body",
            request(
                method + b" /t HTTP/1.1", HOST, b"Content-Length: %d" % len(SMUGGLED), body=SMUGGLED + AFTER
            ),
            Want(method=method, body=SMUGGLED),
            AFTERWARDS,
        )
        for method in _ODD_METHODS
    ),
    taken(
        "GET with chunks",
        get(_TE, body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED) + AFTER),
        Want(body=SMUGGLED),
        AFTERWARDS,
    ),
    Case("a body that never ends", post(b"Content-Length: 500", body=b"hello"), cut=posted(b"hello")),
)
