"""What a change by an unsafe method makes unusable (RFC 9111, section 4.4), also of what is still on its way."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, final
from urllib.parse import urljoin, urlsplit

from marchproxy_application.cache.messages import Request, UrlKey, first_of
from marchproxy_core.routing.paths import normal

if TYPE_CHECKING:
    from marchproxy_application.http1.fields import Field

SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PROPFIND", b"REPORT", b"SEARCH", b"QUERY"})
"""Methods that change nothing; all others, and those nobody knows, may."""
MOST_REMEMBERED = 4096
_DEFAULT_PORTS = {b"http": b":80", b"https": b":443"}


def urls_changed(request: Request, status: int, fields: Sequence[Field]) -> list[UrlKey]:
    """Return which URLs a response to an unsafe method has changed: none when it failed.

    Args:
        request: Of any method.
        status: Of its response.
        fields: Of its response; URLs of other origins in them count for nothing.
    """
    if request.method in SAFE or not 200 <= status < 400:
        return []
    changed: list[UrlKey] = [(request.scheme, request.host, request.path)]
    for name in (b"location", b"content-location"):
        value = first_of(fields, name)
        path = None if value is None else _path_here(request, value)
        if path is not None and path != request.path:
            changed.append((request.scheme, request.host, path))
    return changed


@final
class Changes:
    """When URLs last changed: what was asked for before must not be stored after it."""

    def __init__(self) -> None:
        """Begin with none."""
        self._urls: OrderedDict[UrlKey, float] = OrderedDict()
        self._all_s = float("-inf")

    def remember(self, url: UrlKey, now_s: float) -> None:
        """Remember that a URL changed."""
        self._urls[url] = now_s
        self._urls.move_to_end(url)
        if len(self._urls) > MOST_REMEMBERED:
            # Rather everything on its way than one stale answer.
            self._all_s = max(self._all_s, self._urls.popitem(last=False)[1])

    def remember_all(self, now_s: float) -> None:
        """Remember that every URL may have changed."""
        self._urls.clear()
        self._all_s = now_s

    def since(self, url: UrlKey, time_s: float) -> bool:
        """Whether a URL has changed since a time."""
        return self._all_s >= time_s or self._urls.get(url, float("-inf")) >= time_s


def _path_here(request: Request, value: bytes) -> bytes | None:
    """Return the path of a reference, None when it is of another origin, or no reference."""
    scheme, host = request.scheme.decode("latin-1"), request.host.decode("latin-1")
    try:
        base = f"{scheme}://{host}{request.path.decode('latin-1')}"
        parts = urlsplit(urljoin(base, value.decode("latin-1")))
    except ValueError:
        return None
    found_scheme = parts.scheme.encode("latin-1")
    found_host = parts.netloc.lower().encode("latin-1", "replace")
    if found_scheme != request.scheme or _bare(found_scheme, found_host) != _bare(
        request.scheme, request.host
    ):
        return None
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return normal(path.encode("latin-1"))


def _bare(scheme: bytes, host: bytes) -> bytes:
    return host.removesuffix(_DEFAULT_PORTS.get(scheme, b":"))
