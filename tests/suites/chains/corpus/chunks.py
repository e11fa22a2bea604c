"""The chunked coding (RFC 9112, section 7.1)."""

from __future__ import annotations

from tests.suites.chains.corpus.case import AFTER, AFTERWARDS, SMUGGLED, Case, chunked, posted, taken

_END = b"0\r\n\r\n"

_GOOD = {
    "several": (b"2\r\nhe\r\n3\r\nllo\r\n" + _END, b"hello"),
    "none": (_END, b""),
    "capital hex": (b"A\r\n0123456789\r\n" + _END, b"0123456789"),
    "small hex": (b"a\r\n0123456789\r\n" + _END, b"0123456789"),
    "leading zeros": (b"0005\r\nhello\r\n000\r\n\r\n", b"hello"),
    "an extension": (b"5;a=b\r\nhello\r\n0;c\r\n\r\n", b"hello"),
    "a quoted extension": (b'5;a="b;c=5"\r\nhello\r\n' + _END, b"hello"),
    "an extension behind white space": (b"5 ;a\r\nhello\r\n" + _END, b"hello"),
    "white space behind the size": (b"5 \t\r\nhello\r\n" + _END, b"hello"),
    "an extension like a size": (b"5;5\r\nhello\r\n" + _END, b"hello"),
    "a request inside": (b"%x\r\n%b\r\n" % (len(SMUGGLED), SMUGGLED) + _END, SMUGGLED),
    "an end inside": (b"5\r\n0\r\n\r\n\r\n" + _END, b"0\r\n\r\n"),
    "a trailer": (b"5\r\nhello\r\n0\r\nX: y\r\n\r\n", b"hello"),
    "trailers": (b"5\r\nhello\r\n0\r\nX: y\r\nX: z\r\nY:\r\n\r\n", b"hello"),
    "a trailer that says who asks": (
        b"5\r\nhello\r\n0\r\nAuthorization: evil.test\r\nCookie: evil.test\r\n\r\n",
        b"hello",
    ),
    "a trailer that says what it is": (b"5\r\nhello\r\n0\r\nContent-Type: evil.test\r\n\r\n", b"hello"),
    "a trailer with underscores": (b"5\r\nhello\r\n0\r\nX_Forwarded_For: 192.0.2.66\r\n\r\n", b"hello"),
    "a trailer of this hop": (b"5\r\nhello\r\n0\r\nKeep-Alive: 5\r\n\r\n", b"hello"),
}
_BAD_SIZES = {
    "LF behind the size": b"5\nhello\r\n",
    "CR behind the size": b"5\rhello\r\n",
    "CR CR LF behind the size": b"5\r\r\nhello\r\n",
    "a prefix": b"0x5\r\nhello\r\n",
    "a sign": b"+5\r\nhello\r\n",
    "minus": b"-5\r\nhello\r\n",
    "no hex": b"5g\r\nhello\r\n",
    "no size": b"\r\nhello\r\n",
    "an extension without a size": b";5\r\nhello\r\n",
    "a space before the size": b" 5\r\nhello\r\n",
    "two sizes": b"5 5\r\nhello\r\n",
    "underscore in the size": b"0_5\r\nhello\r\n",
    "arabic digit": b"\xd9\xa5\r\nhello\r\n",
    "a size of 2 to the 64 and 5": b"10000000000000005\r\nhello\r\n",
    "a size of 2 to the 32 and 5 in 16 digits": b"0000000100000005\r\nhello\r\n",
    "NUL in the extension": b"5;\x00\r\nhello\r\n",
    "LF in the extension": b"5;a\nhello\r\n",
    "CR in the extension": b"5;a\rb\r\nhello\r\n",
    "LF in a quoted extension": b'5;a="\n"\r\nhello\r\n',
    "a very long size": b"0" * 2000 + b"5\r\nhello\r\n",
    "a very long extension": b"5;" + b"a" * 2000 + b"\r\nhello\r\n",
    "LF behind the last size": b"0\n\r\n",
}
_BAD_ENDS = {
    "LF behind the chunk": b"5\r\nhello\n",
    "CR behind the chunk": b"5\r\nhello\r",
    "a chunk that is too long": b"5\r\nhello, world\r\n",
    "nothing behind the chunk": b"5\r\nhello",
    "two other bytes behind the chunk": b"5\r\nhelloXX",
    "space behind the chunk": b"5\r\nhello \r\n",
}
_BAD_TRAILERS = {
    "LF": b"X: y\n\r\n",
    "LF at the end": b"X: y\r\n\n",
    "a length": b"Content-Length: 5\r\n\r\n",
    "a coding": b"Transfer-Encoding: chunked\r\n\r\n",
    "a host": b"Host: b.test\r\n\r\n",
    "connection": b"Connection: close\r\n\r\n",
    "forwarded": b"X-Forwarded-For: 192.0.2.66\r\n\r\n",
    "a fold": b"X: y\r\n z\r\n\r\n",
    "a space before the colon": b"X : y\r\n\r\n",
    "no colon": b"X\r\n\r\n",
    "NUL": b"X: \x00\r\n\r\n",
    "a request line": SMUGGLED,
    "a long one": b"X: " + b"y" * 20000 + b"\r\n\r\n",
    "a hundred and one": b"X: y\r\n" * 101 + b"\r\n",
}


def _refused(name: str, body: bytes, read: bytes = b"") -> Case:
    return Case(name, chunked(body) + SMUGGLED, (), 400, posted(read))


CASES: tuple[Case, ...] = (
    *(
        taken(f"chunks: {name}", chunked(body) + AFTER, posted(read), AFTERWARDS)
        for name, (body, read) in _GOOD.items()
    ),
    *(_refused(f"chunks: {name}", size + _END) for name, size in _BAD_SIZES.items()),
    *(_refused(f"chunks: {name}", body + _END, b"hello") for name, body in _BAD_ENDS.items()),
    _refused("chunks: a chunk that is too short", b"5\r\nhel\r\n" + _END, b"hel\r\n"),
    *(
        _refused(f"trailer: {name}", b"5\r\nhello\r\n0\r\n" + lines, b"hello")
        for name, lines in _BAD_TRAILERS.items()
    ),
    Case("chunks: no last one", chunked(b"5\r\nhello\r\n"), cut=posted(b"hello")),
    Case("chunks: a last one without its end", chunked(b"5\r\nhello\r\n0\r\n"), cut=posted(b"hello")),
    Case("chunks: one that never ends", chunked(b"500\r\nhello"), cut=posted(b"hello")),
)
