"""A key set of a URL, kept fresh off the request path by a thread of its own.

The worker makes one :class:`JwksSource` for each URL, closes it at its end, and gives ``current`` to its verifiers
when it is woken. The last good set is kept while fetches fail: an issuer that is down must not lock everybody out.
"""

from __future__ import annotations

import random
import ssl
import threading
import time
from collections.abc import Callable
from typing import final
from urllib.parse import urlsplit

import structlog

from marchproxy_application.auth.fetching import Fetched, Fetcher, FetchFailed, Patience
from marchproxy_application.auth.keys import KeySet, UnusableKey, read_jwks
from marchproxy_application.auth.schedule import Limits, Schedule

log = structlog.get_logger()


@final
class JwksSource:
    """The key set of a URL."""

    def __init__(
        self,
        url: str,
        refresh_s: float,
        wake: Callable[[], None],
        *,
        context: ssl.SSLContext | None = None,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        patience: Patience = Patience(),  # noqa: B008 - frozen
    ) -> None:
        """Start the thread and the first fetch; :meth:`close` ends both.

        Args:
            url: http or https, without user and password.
            refresh_s: The pause after an answer that does not say how long it is fresh.
            wake: Called from the thread after each fetch, whether it brought something new or nothing, so that
                requests that are held can be looked at again; never after :meth:`close`. It must not block or raise.
            context: For https; None: the system's authorities, names checked.
            limits: Of the pauses.
            patience: How long a fetch may take.

        Raises:
            ValueError: The URL is none that can be fetched.
        """
        self._fetcher = Fetcher(url, context=context, patience=patience)
        self._shown = urlsplit(url)._replace(query="", fragment="").geturl()
        self._wake = wake
        self._schedule = Schedule(refresh_s, limits, spread=random.uniform(0.9, 1.0))
        self._changed = threading.Condition()
        self._closed = False
        self._current: KeySet | None = None
        self._fetches = 0
        # A daemon: a look-up of a name cannot be cut short, and must not keep the worker from ending.
        self._thread = threading.Thread(target=self._run, name="jwks", daemon=True)
        self._thread.start()

    @property
    def current(self) -> KeySet | None:
        """The last good set; None before the first. Never blocks."""
        return self._current

    @property
    def fetches(self) -> int:
        """How many fetches have ended, well or not."""
        return self._fetches

    @property
    def failures(self) -> int:
        """How many fetches in a row have failed by now."""
        return self._schedule.failures

    def want(self, kid: str | None) -> bool:
        """Ask for a key that is not there; never blocks on the network.

        Args:
            kid: As the token has it; None: no key is there at all.

        Returns:
            Whether it is worth while to hold the request until the next wake: a fetch is under way or starts now,
            or the key came just now. False: the last fetch was too short a time ago, or fetches fail.
        """
        with self._changed:
            if self._closed:
                return False
            if kid is not None and self._current is not None and self._current.named(kid):
                return True
            if not self._schedule.want(time.monotonic()):
                return False
            self._changed.notify()
            return True

    def close(self, *, wait_s: float = 0.0) -> None:
        """End the thread; ``wake`` is not called any more.

        Args:
            wait_s: For how long to wait for its end; it may still be in a look-up of the name.
        """
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._fetcher.abort()
        self._thread.join(wait_s)

    def _run(self) -> None:
        while self._wait_until_due():
            try:
                fetched = self._fetcher.fetch()
                self._took(fetched)
            except (FetchFailed, UnusableKey) as error:
                self._failed(str(error))

    def _wait_until_due(self) -> bool:
        """Wait for the next fetch, and note that it starts; False: the end."""
        with self._changed:
            while not self._closed:
                now_s = time.monotonic()
                if self._schedule.due_s <= now_s:
                    self._schedule.start(now_s)
                    return True
                self._changed.wait(self._schedule.due_s - now_s)
            return False

    def _took(self, fetched: Fetched) -> None:
        read = read_jwks(fetched.body)
        if not read.keys.keys:
            raise UnusableKey(
                "it has no key that can be used: " + ("; ".join(read.left_out[:3]) or "it is empty")
            )
        with self._changed:
            if self._closed:
                return
            is_news = read.keys != self._current or self._schedule.failures > 0
            pause_s = self._schedule.succeed(time.monotonic(), fetched.max_age_s)
            if read.keys != self._current:
                self._current = read.keys
            self._finish()
        say = log.info if is_news else log.debug
        say(
            "jwks.fetched",
            url=self._shown,
            keys=len(read.keys.keys),
            left_out=list(read.left_out[:10]),
            next_in_s=round(pause_s, 1),
        )

    def _failed(self, error: str) -> None:
        with self._changed:
            if self._closed:
                return
            pause_s = self._schedule.fail(time.monotonic())
            has_keys = self._current is not None
            failures = self._schedule.failures
            self._finish()
        log.warning(
            "jwks.failed",
            url=self._shown,
            error=error,
            failures=failures,
            retry_in_s=round(pause_s, 1),
            has_keys=has_keys,
        )

    def _finish(self) -> None:
        """Tell the worker; with the lock held, so that it is not told after :meth:`close`."""
        self._fetches += 1
        self._wake()
