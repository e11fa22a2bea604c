"""Whether what a backend saw is what was sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.suites.chains.answers import Answer
    from tests.suites.chains.corpus import Want
    from tests.suites.chains.telling import Seen

MARKER = b"GET /marker HTTP/1.1\r\nHost: marker\r\nConnection: close\r\n\r\n"
"""Goes behind each case, on the connection that the backend had before: what was smuggled would come first there."""
_FORGED = ("192.0.2.66", "evil.test")
_OF_ONE_HOP = {"te", "keep_alive", "proxy_connection", "http2_settings", "proxy_authorization", "x_mine"}


def is_as_wanted(seen: Seen, want: Want) -> bool:
    """Whether it is the request that was sent, but for what servers do to it: Hypercorn writes methods in capitals."""
    asked = (want.method.decode().upper(), simplest(want.target.decode("latin-1")), want.body)
    is_same = (seen.method.upper(), simplest(seen.target), seen.body) == asked
    return is_same and (want.host is None or host_alone(seen.host) == host_alone(want.host.decode()))


def simplest(target: str) -> str:
    """Return a target without an empty query, of which ASGI knows nothing, and Apache's way with slashes in front."""
    return "/" + target.lstrip("/").removesuffix("?")


def host_alone(host: str) -> str:
    """Return a host without the port, which nginx keeps from SCGI, and without a dot at its end, which it takes off."""
    name, colon, port = host.rpartition(":")
    return (name if colon and (port.isdigit() or not port) else host).removesuffix(".")


def is_of_application(answer: Answer, want: Want) -> bool:
    return answer.status == 200 and (want.method == b"HEAD" or answer.body.startswith(b"saw "))


def is_declined(answer: Answer, want: Want) -> bool:
    """Whether a server did not let its application see a request: it is odd, though it can be read in one way only."""
    return answer.status >= 400 or want.method in (b"OPTIONS", b"TRACE")


def assert_clean(seen: Seen) -> None:
    """Nothing that a client makes up about itself has come through, and nothing of its own connection."""
    for name, value in seen.fields:
        assert not any(word in value for word in _FORGED), (name, value)
        assert name.replace("-", "_") not in _OF_ONE_HOP
