"""Answers that the proxy gives itself: a status, a line of text, and the id that the log has too. Pure."""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus

from marchproxy_application.http1.fields import read_field
from marchproxy_application.http1.response import ResponseHead
from marchproxy_application.serving.preparing import PreparedAnswer
from marchproxy_core.drops import DropReason

STATUS_OF = {
    DropReason.NO_ROUTE: 404,
    DropReason.MISDIRECTED: 421,
    DropReason.NOT_CACHED: 504,
    DropReason.REQUEST_RATE: 429,
    DropReason.CLIENT_REQUEST_RATE: 429,
    DropReason.MAX_REQUESTS: 503,
    DropReason.BODY_TOO_LARGE: 413,
    DropReason.CLIENT_TOO_SLOW: 408,
    DropReason.REQUEST_TIMEOUT: 504,
    DropReason.BACKEND_TIMEOUT: 504,
    DropReason.BACKEND_REFUSED: 502,
    DropReason.BACKEND_RESET: 502,
    DropReason.BACKEND_TLS_FAILED: 502,
    DropReason.BAD_ANSWER: 502,
    DropReason.READ_TIMEOUT: 408,
    DropReason.UPGRADE_REFUSED: 426,
}
"""The status of RFC 9110 that goes with a reason; 503 where none is here."""


def own_answer(status: int, request_id: bytes, *, is_head: bool = False) -> tuple[PreparedAnswer, bytes]:
    """Return head and body of an answer.

    Args:
        status: The status.
        request_id: The request's, so that its client can name it.
        is_head: Whether the body is left out, since HEAD asks for none.
    """
    phrase = reason_phrase(status)
    body = b"%d %b\nrequest %b\n" % (status, phrase, request_id)
    return _head(status, len(body)), b"" if is_head else body


def reason_phrase(status: int) -> bytes:
    """Return the words that go with a status."""
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b"Unknown"


@lru_cache(256)
def _head(status: int, length: int) -> PreparedAnswer:
    fields = [
        read_field(line)
        for line in (
            b"Content-Type: text/plain; charset=utf-8",
            b"Cache-Control: no-store",
            b"Content-Length: %d" % length,
        )
    ]
    phrase = reason_phrase(status)
    start = b"HTTP/1.1 %d %b\r\n%b" % (status, phrase, b"".join(field.line for field in fields))
    head = ResponseHead(status, phrase, 1, fields, length=length)
    return PreparedAnswer(head=head, fields=fields, start=start, is_delimited=True, start_chunked=start)
