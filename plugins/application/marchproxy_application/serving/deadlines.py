"""Whether the time of a request is up, and what becomes of it then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marchproxy_application.serving.trying import may_ask_another, repeat
from marchproxy_core.drops import DropReason
from marchproxy_core.services import RetryOn

if TYPE_CHECKING:
    from marchproxy_application.serving.exchange import Exchange


def look(exchange: Exchange, now_s: float) -> float:
    """Look whether time is up; return when to look again."""
    settings = exchange.service.carried.settings
    if exchange.tunnel is not None:
        is_closing = exchange.tunnel.is_closing
        due_s = exchange.due_s if is_closing else exchange.touched_s + settings.idle_timeout
        if now_s >= due_s:
            exchange.cut(None if is_closing else DropReason.IDLE_TIMEOUT)
        return due_s
    retry = exchange.service.http.retry
    due_s = exchange.due_s
    if not exchange.answer_begun and retry.try_timeout_s is not None:
        due_s = min(due_s, exchange.try_began_s + retry.try_timeout_s)
    if exchange.backend is not None and not exchange.is_held and exchange.request_over:
        due_s = min(due_s, exchange.touched_s + settings.read_timeout)
    if now_s >= due_s:
        _too_late(exchange, now_s)
    return due_s


def _too_late(exchange: Exchange, now_s: float) -> None:
    if exchange.answer_begun:
        exchange.cut(DropReason.REQUEST_TIMEOUT if now_s >= exchange.due_s else DropReason.READ_TIMEOUT)
        return
    limit_s = now_s - exchange.try_began_s
    is_out_of_time = now_s >= exchange.due_s
    pool = exchange.pool
    exchange.note_attempt(f"no answer within {limit_s:.3g} s")
    exchange.leave_backend()
    if pool is not None:
        exchange.service.carried.failed(pool.endpoint, f"no answer within {limit_s:.3g} s")
    retry = exchange.service.http.retry
    if not is_out_of_time and RetryOn.TIMEOUT in retry.on and may_ask_another(exchange):
        repeat(exchange, is_stale=False)
    else:
        exchange.refuse(DropReason.REQUEST_TIMEOUT if is_out_of_time else DropReason.READ_TIMEOUT, status=504)
