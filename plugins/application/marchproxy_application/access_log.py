"""One line for each request, in the form of all other events, at a tenth of their price; and the last of them.

Where lines are JSON, a request's is put together by hand and several lines go in one write of at most 4 KiB, which a
pipe takes as a whole (pipe(7), PIPE_BUF); for people, structlog renders it as any other.
"""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, final

import structlog

from marchproxy_application.remembered import Remembered
from marchproxy_core import logs

if TYPE_CHECKING:
    from marchproxy_application.serving.client import Client
    from marchproxy_application.serving.exchange import Exchange
    from marchproxy_core.drops import DropReason
    from marchproxy_core.relay.loop import Loop

log = structlog.get_logger()

_MOST_BYTES = 4096
_STANDARD_ERROR = 2
_LONGEST_PATH = 1024


@final
class AccessLog:
    """Writes requests' lines; one for the worker."""

    def __init__(self, loop: Loop) -> None:
        """Have nothing to write."""
        self._loop = loop
        self._lines: list[bytes] = []
        self._bytes = 0
        self._second = 0
        self._date = ""
        self._is_due = False
        self._is_json = logs.format_in_force() is logs.LogFormat.JSON
        self.remembered = Remembered()
        self._process = f'"process": "{logs.process_in_force()}", '

    def tell(self, exchange: Exchange, took_s: float, *, is_logged: bool = True) -> None:
        """Remember what became of a request, and write it; at the end of the loop's turn at the latest.

        Args:
            exchange: The request.
            took_s: How long it took.
            is_logged: Whether it is written.
        """
        now_s = time.time()
        second = int(now_s)
        if second != self._second:
            self._second = second
            self._date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        client, pool, reason = exchange.client, exchange.pool, exchange.reason
        asked = exchange.prepared.log_part
        is_plain = reason is None and not (exchange.attempts or exchange.cache_outcome or exchange.subject)
        more = "" if is_plain else _more(exchange)
        line = (
            f'{{"timestamp": "{self._date}.{int((now_s - second) * 1e6):06d}Z", "level": "info", '
            f'"event": "request.answered", {self._process}"id": "{exchange.request_id.decode()}", '
            f'"service": "{exchange.service.name}", "client": "{client.address.decode()}", {asked}, '
            f'"version": "{client.version}", "status": {exchange.status}, "origin": "{exchange.origin}", '
            f'"backend": {"null" if pool is None else pool.quoted}, "bytes_in": {exchange.bytes_in}, '
            f'"bytes_out": {exchange.bytes_out}, "duration_ms": {took_s * 1000:.3f}{more}}}\n'
        ).encode("ascii")
        self.remembered.keep(exchange.request_id, line)
        if not is_logged:
            return
        if not self._is_json:
            _tell_people(exchange, took_s)
            return
        if self._bytes + len(line) > _MOST_BYTES:
            self.flush()
        self._lines.append(line)
        self._bytes += len(line)
        if not self._is_due:
            self._is_due = True
            self._loop.again(self._flush_later)

    def remember_refused(
        self, service: str, client: Client, request_id: bytes, status: int, reason: DropReason
    ) -> None:
        """Remember what was answered without being a request of any service."""
        told = {
            "timestamp": datetime.now(UTC).isoformat(),
            "process": logs.process_in_force(),
            "id": request_id.decode(),
            "service": service,
            "client": client.address.decode(),
            "status": status,
            "origin": "proxy",
            "reason": reason.value,
        }
        self.remembered.keep(request_id, json.dumps(told).encode())

    def flush(self) -> None:
        """Write what there is."""
        if self._lines:
            data = b"".join(self._lines)
            self._lines.clear()
            self._bytes = 0
            try:
                os.write(_STANDARD_ERROR, data)
            except (OSError, ValueError):
                return  # a log that nobody can take any more must not end the traffic

    def _flush_later(self) -> None:
        self._is_due = False
        self.flush()


def _more(exchange: Exchange) -> str:
    more = f', "reason": "{exchange.reason.value}"' if exchange.reason is not None else ""
    if exchange.detail:
        more += f', "detail": "{exchange.detail}"'
    if exchange.attempts:
        more += f', "attempts": {json.dumps(_attempts(exchange))}'
    if exchange.cache_outcome:
        more += f', "cache": "{exchange.cache_outcome}"'
    if exchange.subject:
        more += f', "subject": {json.dumps(exchange.subject)}'.replace("\x7f", "\\u007f")
    return more


def _attempts(exchange: Exchange) -> list[dict[str, object]]:
    return [{"backend": name, "ms": ms, "error": error} for name, ms, error in exchange.attempts]


def _tell_people(exchange: Exchange, took_s: float) -> None:
    optional: dict[str, object] = {
        "reason": exchange.reason.value if exchange.reason else None,
        "detail": exchange.detail or None,
        "attempts": _attempts(exchange) or None,
        "cache": exchange.cache_outcome or None,
        "subject": exchange.subject or None,
    }
    log.info(
        "request.answered",
        id=exchange.request_id.decode(),
        service=exchange.service.name,
        client=exchange.client.address.decode(),
        method=exchange.method.decode("latin-1"),
        host=exchange.prepared.head.host.decode("latin-1"),
        path=exchange.prepared.path[:_LONGEST_PATH].decode("latin-1"),
        route=exchange.prepared.route.decode("latin-1"),
        version=exchange.client.version,
        status=exchange.status,
        origin=exchange.origin,
        backend=exchange.pool.name if exchange.pool else None,
        bytes_in=exchange.bytes_in,
        bytes_out=exchange.bytes_out,
        duration_ms=round(took_s * 1000, 3),
        **{key: value for key, value in optional.items() if value is not None},
    )
