"""Fetches a key set over HTTP, within bounds of time and size; blocks, so it is for a thread of its own.

Redirects are followed, but never from https to http. Proxies of the environment and ``.netrc`` are not looked at,
since ``http.client`` knows none. Says nothing of what the body means.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import threading
from typing import final
from urllib.parse import SplitResult, urljoin, urlsplit

import attrs

MOST_BYTES = 1 << 20
MOST_REDIRECTS = 3
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_FIELDS = {
    "Accept": "application/jwk-set+json, application/json",
    "Accept-Encoding": "identity",
    "Connection": "close",
    "User-Agent": "MarchProxy",
}
_MAX_AGE = re.compile(r"(?:^|[,\s])max-age\s*=\s*\"?([0-9]{1,9})\b", re.IGNORECASE)
_STALE = re.compile(r"(?:^|[,\s])(?:no-cache|no-store)(?:$|[,\s=])", re.IGNORECASE)
_AGE = re.compile(r"[0-9]{1,9}")


class FetchFailed(Exception):
    """Nothing was fetched; says why."""


@attrs.frozen(kw_only=True)
class Fetched:
    """A body, and for how long its sender calls it fresh."""

    body: bytes
    max_age_s: float | None
    """From now; None: he says nothing. 0: he wants it asked for each time."""


@attrs.frozen(kw_only=True)
class Patience:
    """How long a fetch may take, in seconds."""

    step_s: float = 5.0
    """Connecting to one address; and until the next bytes come."""
    whole_s: float = 15.0
    """Each request that redirects lead to, from its connection on; names are looked up as long as the resolver does."""


@final
class Fetcher:
    """Fetches one URL, again and again, from one thread; :meth:`abort` may be called from another."""

    def __init__(
        self,
        url: str,
        *,
        context: ssl.SSLContext | None = None,
        patience: Patience = Patience(),
    ) -> None:
        """Check the URL.

        Args:
            url: http or https, without user and password.
            context: For https; None: the system's authorities, names checked.
            patience: How long it may take.

        Raises:
            ValueError: The URL is none that can be fetched.
        """
        _split(url)
        self._url = url
        self._context = context
        self._patience = patience
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._aborted = False
        self._was_cut = False

    def fetch(self) -> Fetched:
        """Fetch it.

        Raises:
            FetchFailed: Unreachable, not verified, too slow, too large, or an answer other than 200.
        """
        url = self._url
        try:
            for _ in range(MOST_REDIRECTS + 1):
                found = self._request(_split(url))
                if isinstance(found, Fetched):
                    return found
                following = urljoin(url, found)
                if url.lower().startswith("https:") and not following.lower().startswith("https:"):
                    raise FetchFailed("it redirects from https to something else")
                url = following
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise FetchFailed(f"{type(error).__name__}: {error}") from error
        raise FetchFailed(f"more than {MOST_REDIRECTS} redirects")

    def abort(self) -> None:
        """End what is under way, and let nothing begin."""
        with self._lock:
            self._aborted = True
        self._cut()

    def _request(self, url: SplitResult) -> Fetched | str:
        """Return what is there, or where it is said to be."""
        connection = self._connection(url)
        # Each read has its own time; only a cut from outside bounds a sender who sends a byte now and then.
        timer = threading.Timer(self._patience.whole_s, self._cut)
        timer.daemon = True
        try:
            connection.connect()
            with self._lock:
                self._socket = connection.sock
                self._was_cut = False
                if self._aborted:
                    raise FetchFailed("closed")
            timer.start()
            target = (url.path or "/") + (f"?{url.query}" if url.query else "")
            connection.request("GET", target, headers=_FIELDS)
            found = _read(connection.getresponse())
        except (OSError, http.client.HTTPException) as error:
            if self._was_cut:
                raise self._too_slow() from error
            raise
        else:
            if self._was_cut:  # an end of the connection may look like the end of the body
                raise self._too_slow()
            return found
        finally:
            timer.cancel()
            with self._lock:
                self._socket = None
            connection.close()

    def _connection(self, url: SplitResult) -> http.client.HTTPConnection:
        host, port, step_s = url.hostname or "", url.port, self._patience.step_s
        if url.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=step_s)
        context = self._context or ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, timeout=step_s, context=context)

    def _too_slow(self) -> FetchFailed:
        return FetchFailed("closed" if self._aborted else f"it took longer than {self._patience.whole_s:g} s")

    def _cut(self) -> None:
        with self._lock:
            if self._socket is not None:
                self._was_cut = True
                try:
                    # Not SSLSocket's own, which takes the TLS state away from under the thread that reads.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
                except OSError:
                    return  # it ended by itself


def _split(url: str) -> SplitResult:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError(f"{url!r:.200} is no http or https URL")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL with user and password is not fetched")
    return parts


def _read(response: http.client.HTTPResponse) -> Fetched | str:
    location = response.headers.get("Location")
    if response.status in _REDIRECTS and location:
        return location
    if response.status != 200:
        raise FetchFailed(f"it was answered with {response.status}")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise FetchFailed("its content is encoded, although that was not asked for")
    body = response.read(MOST_BYTES + 1)
    if len(body) > MOST_BYTES:
        raise FetchFailed("it is larger than 1 MiB")
    if response.length:
        # http.client says nothing of a body that ends early when a number of bytes was asked for (CPython 3.11).
        raise FetchFailed(f"its last {response.length} bytes did not come")
    control = ", ".join(response.headers.get_all("Cache-Control") or ())
    return Fetched(body=body, max_age_s=fresh_for(control, response.headers.get("Age", "")))


def fresh_for(cache_control: str, age: str) -> float | None:
    """Return for how many seconds a response is fresh (RFC 9111, sections 4.2 and 5.2.2); None: it does not say."""
    if _STALE.search(cache_control):
        return 0.0
    match = _MAX_AGE.search(cache_control)
    if match is None:
        return None
    spent = float(age) if _AGE.fullmatch(age) else 0.0
    return max(0.0, float(match[1]) - spent)
