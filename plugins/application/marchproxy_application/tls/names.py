"""Names in certificates (RFC 9525) and which of them cover a host. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def normal(name: str) -> str:
    """Return a name as names are compared: in small letters, without the dot at the end that DNS has."""
    return name.lower().removesuffix(".")


def wildcard_above(host: str) -> str | None:
    """Return the one wildcard that may cover a host, ``*.example.com`` for ``www.example.com``; None: none may.

    A wildcard stands for exactly one label, the first one, and for the whole of it (RFC 9525, section 6.3).
    """
    first, dot, rest = host.partition(".")
    return f"*.{rest}" if first and dot and rest else None


def claims(host: str) -> Iterator[str]:
    """Yield what a service may call a host in ``Http.hosts``, the most special first, as routes have it.

    Unlike a certificate's, a service's wildcard stands for any number of labels. The last one is ``*``, any host.
    """
    yield host
    rest = host
    while "." in rest:
        rest = rest.partition(".")[2]
        yield f"*.{rest}"
    yield "*"
