"""Why a message is not taken: what is counted and logged, and the status that its sender is told."""

from __future__ import annotations

import enum


class Refusal(enum.Enum):
    """One reason each; its name in small letters is what metrics, logs and documents say."""

    def __init__(self, status: int, text: str) -> None:
        """Keep the status of RFC 9110 that goes with it, and what an operator reads."""
        self.status = status
        self.text = text

    BAD_REQUEST_LINE = 400, "the request line is not METHOD SP TARGET SP HTTP-VERSION"
    BAD_TARGET = 400, "the request's target is malformed, or not of a form that its method may have"
    BAD_VERSION = 505, "the version is neither HTTP/1.0 nor HTTP/1.1"
    BAD_STATUS_LINE = 502, "the status line is malformed"
    BAD_LINE_END = 400, "a line ends in a bare LF or CR"
    FOLDED_FIELD = 400, "a field is folded over several lines"
    BAD_FIELD_NAME = 400, "a field's name is no token, or has a space before its colon"
    BAD_FIELD_VALUE = 400, "a field's value has a control character"
    NO_HOST = 400, "no Host field, or more than one"
    BAD_HOST = 400, "the Host field is no host and port, or not the one of the target"
    BAD_LENGTH = 400, "Content-Length is no number, or there are several"
    LENGTH_AND_CODING = 400, "Content-Length and Transfer-Encoding in one message"
    UNKNOWN_CODING = 501, "a transfer coding other than chunked alone"
    CODING_IN_HTTP_1_0 = 400, "Transfer-Encoding in HTTP/1.0"
    BAD_CHUNK = 400, "a chunk's size, extension or end is malformed"
    BAD_TRAILER = 400, "a trailer field is malformed, or one that may not be there"
    METHOD_NOT_IMPLEMENTED = 501, "CONNECT is not implemented"
    UNKNOWN_EXPECTATION = 417, "an expectation other than 100-continue"
    HEAD_TOO_LARGE = 431, "the head is too large, or has too many fields"
    TARGET_TOO_LONG = 414, "the request's target is too long"


class Refused(Exception):
    """A message is not taken; what its sender has sent behind it cannot be told apart from it and is not read."""

    def __init__(self, refusal: Refusal) -> None:
        """Keep the reason."""
        super().__init__(refusal.text)
        self.refusal = refusal
