"""The routes of one listener: the most special host first, then the longest path.

A host is more special the longer it is, an exact one more than a wildcard, and any host is the least. Where a host's
own routes have no path for a request, those of less special hosts are asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import final

import attrs

_MOST_KNOWN = 1024
"""Hosts whose routes are remembered."""


@attrs.frozen(kw_only=True)
class Route:
    """What a service takes.

    Args:
        service: Its name.
        host: ``example.com``, ``*.example.com`` for all names below it, or ``*`` for any; in small letters, no port.
        path: A prefix; ``/`` is every path. It ends where a segment does: ``/api`` takes ``/api/users``, not ``/apis``.
    """

    service: str
    host: bytes = b"*"
    path: bytes = b"/"

    def takes_path(self, path: bytes) -> bool:
        """Whether a path, without its query, is below the prefix."""
        prefix = self.path
        return path.startswith(prefix) and (
            prefix.endswith(b"/") or len(path) == len(prefix) or path[len(prefix)] == 0x2F
        )


@final
class Router:
    """Finds a request's route."""

    def __init__(self, routes: Iterable[Route]) -> None:
        """Sort the routes: those of one host by the lengths of their paths, the longest first."""
        self._by_host: dict[bytes, list[Route]] = {}
        self._known: dict[bytes, tuple[Route, ...]] = {}
        for route in routes:
            self._by_host.setdefault(route.host, []).append(route)
        for found in self._by_host.values():
            found.sort(key=lambda route: -len(route.path))

    def find(self, host: bytes, path: bytes) -> Route | None:
        """Return the route of a request, None when there is none.

        Args:
            host: As the request names it, in small letters; may have a port, which counts for nothing.
            path: In normal form; may have a query. The server as a whole, ``*``, is for who takes every path.
        """
        bare = b"/" if path == b"*" else path.partition(b"?")[0]
        for route in self.candidates(host):
            if route.takes_path(bare):
                return route
        return None

    def candidates(self, host: bytes) -> tuple[Route, ...]:
        """Return all routes for a host, the one that is asked first first."""
        known = self._known.get(host)
        if known is None:
            known = tuple(route for name in _names(host) for route in self._by_host.get(name, ()))
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[host] = known
        return known


def _names(host: bytes) -> Iterator[bytes]:
    """Yield what a host may be called in a route: itself, the wildcards that it is below, anybody."""
    bare = host[: host.find(b"]") + 1] if host.startswith(b"[") else host.partition(b":")[0]
    bare = bare.removesuffix(b".")  # absolute, as DNS has it
    yield bare
    rest = bare
    while b"." in rest:
        rest = rest.partition(b".")[2]
        yield b"*." + rest
    yield b"*"
