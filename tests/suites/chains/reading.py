"""What our own readers find in the bytes of a connection: the rules that the tier goes by, without its sockets."""

from __future__ import annotations

from marchproxy_application.http1.chunks import ChunkReader
from marchproxy_application.http1.refusals import Refused
from marchproxy_application.http1.request import read_request
from marchproxy_core.routing.paths import normal
from tests.suites.chains.corpus.case import Want

_MOST_FIELDS = 100


def read_all(raw: bytes) -> list[Want]:
    """Return the whole requests, up to the first that is refused, that never ends, or that no other may follow."""
    found: list[Want] = []
    try:
        while (read := _read_one(raw)) is not None:
            want, raw, may_go_on = read
            found.append(want)
            if not may_go_on:
                break
    except Refused:
        pass
    return found


def _read_one(raw: bytes) -> tuple[Want, bytes, bool] | None:
    while raw.startswith(b"\r\n"):
        raw = raw[2:]
    end = raw.find(b"\r\n\r\n") + 4
    if end < 4:
        return None
    head = read_request(raw[:end])
    if len(head.fields) > _MOST_FIELDS:
        return None
    body, rest = raw[end : end + head.length], raw[end + head.length :]
    if head.is_chunked:
        chunks = ChunkReader()
        body = b"".join(chunks.feed(raw[end:]))
        if not chunks.is_over:
            return None
        rest = chunks.rest
    elif len(body) < head.length:
        return None
    path = head.path if head.path == b"*" else normal(head.path)
    return Want(path, head.method, bytes(body), head.host or None), bytes(rest), head.keeps_alive
