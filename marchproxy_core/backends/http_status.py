"""The few bytes of HTTP/1.1 that a health check speaks: one request out, one status in. Pure; reads no body.

Sources: RFC 9112 sections 3 and 4, RFC 9110 section 15.2 for interim answers.
"""

from __future__ import annotations

import re

MAX_HEAD = 16384
"""Most bytes that are read for the sake of a status."""

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?")
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_PREFIX = b"HTTP/1."


class BadAnswer(ValueError):
    """The answer is no HTTP/1.x; the text is the reason, short and free of what the server sent."""


def request(host: str, path: str) -> bytes:
    """Return the check's request.

    Raises:
        ValueError: Host or path has characters that may not stand there, such as blanks and line ends.
    """
    if not _VISIBLE.fullmatch(host) or not _VISIBLE.fullmatch(path) or not path.startswith("/"):
        raise ValueError("path or host has characters that HTTP does not allow there")
    head = (f"GET {path} HTTP/1.1", f"Host: {host}", "User-Agent: marchproxy-health", "Connection: close")
    return "\r\n".join((*head, "", "")).encode("ascii")


def status_of(data: bytes) -> int | None:
    """Return the status of an answer that begins with ``data``, None when more is needed to tell.

    Interim answers (1xx but 101) are passed over. A line ends with CR LF; a missing reason phrase is allowed
    with or without the space before it, since servers in use leave it out.

    Raises:
        BadAnswer: It is no HTTP/1.x answer, whatever follows, or has no status within ``MAX_HEAD`` bytes.
    """
    at = 0
    while True:
        if not data.startswith(_PREFIX[: len(data) - at], at):
            raise BadAnswer("not an HTTP/1.x answer")
        end = data.find(b"\r\n", at, MAX_HEAD)
        if end < 0:
            return _wait_for_more(data)
        line = _STATUS_LINE.fullmatch(data, at, end)
        if line is None:
            raise BadAnswer("malformed status line")
        status = int(line[1])
        if status >= 200 or status == 101:
            return status
        end = data.find(b"\r\n\r\n", end, MAX_HEAD)
        if end < 0:
            return _wait_for_more(data)
        at = end + 4


def _wait_for_more(data: bytes) -> int | None:
    if len(data) >= MAX_HEAD:
        raise BadAnswer(f"no status within {MAX_HEAD} bytes")
    return None
