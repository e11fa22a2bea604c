"""What a client of HTTP/1.1 is expected to send next."""

from __future__ import annotations

import enum
from typing import Final


class State(enum.Enum):
    """Of a connection; one is in it until the next, in this order, and HEAD follows on ANSWER."""

    HEAD = enum.auto()
    """A request's head is awaited, or has come in part."""
    BODY = enum.auto()
    ANSWER = enum.auto()
    """The request is whole; the next one is not looked at before it is answered."""
    TUNNEL = enum.auto()
    LAST_WORDS = enum.auto()
    """All is said; what is still to be sent is sent, then the connection is closed."""
    LINGER = enum.auto()
    """What still comes is thrown away."""


# By these names: looking a member up in its class costs eight times as much (CPython 3.11).
HEAD: Final = State.HEAD
BODY: Final = State.BODY
ANSWER: Final = State.ANSWER
TUNNEL: Final = State.TUNNEL
LAST_WORDS: Final = State.LAST_WORDS
LINGER: Final = State.LINGER
