"""Whether a client of HTTP/1.1 takes too long: over a head, a body, our answer, or until it asks again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marchproxy_application.serving.client_connection import LINGER_S
from marchproxy_application.serving.http1_state import BODY, LAST_WORDS, LINGER
from marchproxy_application.serving.request_reading import GRACE_S
from marchproxy_core.drops import DropReason

if TYPE_CHECKING:
    from marchproxy_application.serving.http1_connection import Http1Connection


def look(connection: Http1Connection, now_s: float) -> float | None:
    """Cut what takes too long; else say when to look again."""
    settings = connection.carried.settings
    if connection.unsent:
        due_s = connection.unsent_since_s + settings.write_timeout
        if now_s >= due_s or _reads_too_slowly(connection, now_s):
            connection.cut(DropReason.WRITE_TIMEOUT if now_s >= due_s else DropReason.CLIENT_TOO_SLOW)
            return None
        if connection.exchange is not None:
            due_s = min(due_s, connection.exchange.look(now_s))
        return min(due_s, now_s + 1.0) if connection.min_rate else max(due_s, now_s + 0.25)
    if connection.state in (LAST_WORDS, LINGER):
        connection.close()
        return None
    exchange = connection.exchange
    if exchange is None:
        return _look_at_head(connection, now_s)
    due_s = exchange.look(now_s)
    if connection.closed or connection.exchange is not exchange:
        return None if connection.closed else now_s + 1.0
    if connection.state is BODY and not exchange.holds_request:
        body_due_s = connection.heard_since_s + settings.read_timeout
        if now_s >= body_due_s or _is_too_slow(connection, now_s):
            late = DropReason.READ_TIMEOUT if now_s >= body_due_s else DropReason.CLIENT_TOO_SLOW
            exchange.refuse(late)
            return now_s + 1.0
        due_s = min(due_s, body_due_s)
    return max(min(due_s, now_s + exchange.service.look_after_s), now_s + 0.25)


def _look_at_head(connection: Http1Connection, now_s: float) -> float | None:
    settings = connection.carried.settings
    if not connection.buffer:
        due_s = connection.heard_since_s + settings.keep_alive_timeout
        if now_s >= due_s or connection.front.is_draining:
            connection.close()
            return None
        return due_s
    due_s = connection.heard_since_s + settings.read_timeout
    if now_s >= due_s or _is_too_slow(connection, now_s):
        late = DropReason.READ_TIMEOUT if now_s >= due_s else DropReason.CLIENT_TOO_SLOW
        connection.answer_alone(408, late)
        return None if connection.closed else now_s + LINGER_S
    return min(due_s, now_s + 1.0) if connection.min_rate else due_s


def _reads_too_slowly(connection: Http1Connection, now_s: float) -> bool:
    rate, took_s = connection.min_rate, now_s - connection.waits_since_s
    return bool(rate) and took_s > GRACE_S and connection.taken < rate * took_s


def _is_too_slow(connection: Http1Connection, now_s: float) -> bool:
    rate, took_s = connection.min_rate, now_s - connection.heard_since_s
    return bool(rate) and took_s > GRACE_S and connection.heard < rate * took_s
