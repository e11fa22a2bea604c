"""What becomes of a request that failed: it is tried again only where that is safe, and within the budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from marchproxy_core.drops import DropReason
from marchproxy_core.services import RetryOn
from marchproxy_core.workers.ledger import RETRIES

if TYPE_CHECKING:
    from marchproxy_application.serving.exchange import Exchange

REPEATABLE_METHODS: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
"""Idempotent ones (RFC 9110, section 9.2.2): asked twice is as good as asked once."""
RETRY_STATUS: Final = {502: RetryOn.STATUS_502, 503: RetryOn.STATUS_503, 504: RetryOn.STATUS_504}
_RETRY_ON: Final = {
    DropReason.BACKEND_REFUSED: RetryOn.CONNECT,
    DropReason.BACKEND_TIMEOUT: RetryOn.CONNECT,
    DropReason.BACKEND_TLS_FAILED: RetryOn.CONNECT,
    DropReason.NO_SOURCE_PORT: RetryOn.CONNECT,
    DropReason.FLUSHED: RetryOn.CONNECT,
    DropReason.BACKEND_RESET: RetryOn.RESET,
}
_MOST_STALE: Final = 3
"""How often a request may find that a connection that waited for it is dead."""


def may_repeat(exchange: Exchange, reason: DropReason, *, sent: bool, is_stale: bool) -> bool:
    """Whether a request that failed may be sent again.

    Args:
        exchange: It.
        reason: Why it failed.
        sent: Whether a backend may have seen something of it.
        is_stale: Whether all that is wrong is that a connection had been closed for its age.
    """
    if not exchange.is_all_kept or exchange.answer_begun or exchange.is_over:
        return False  # the body is gone, or the client has heard something already
    if sent and exchange.method not in REPEATABLE_METHODS:
        return False
    if is_stale:
        return exchange.stale < _MOST_STALE
    service = exchange.service
    retry = service.http.retry
    return _RETRY_ON.get(reason) in retry.on and exchange.retries < retry.most and service.budget.take()


def may_ask_another(exchange: Exchange) -> bool:
    """Whether a request that a backend has answered badly, or not in time, may be sent to another one."""
    service = exchange.service
    retry = service.http.retry
    return (
        exchange.method in REPEATABLE_METHODS
        and exchange.is_all_kept
        and exchange.retries < retry.most
        and len(exchange.tried) < len(service.pools)
        and service.budget.take()
    )


def after_failure(
    exchange: Exchange,
    reason: DropReason,
    error: str,
    *,
    sent: bool,
    was_used: bool = False,
    answered: bool = False,
) -> None:
    """Try again where that is safe, else tell the client.

    Args:
        exchange: The request.
        reason: What went wrong.
        error: The same in words, for the log.
        sent: Whether the backend may have seen something of the request.
        was_used: Whether the connection had served before: it may just have been closed for its age.
        answered: Whether the backend said something that is no answer.
    """
    exchange.backend = None
    pool = exchange.pool
    assert pool is not None
    exchange.note_attempt(error)
    exchange.leave_pool()
    is_stale = was_used and reason is DropReason.BACKEND_RESET
    if not is_stale and reason not in (DropReason.NO_SOURCE_PORT, DropReason.FLUSHED):
        exchange.service.carried.failed(pool.endpoint, error)
    exchange.reason = reason
    if may_repeat(exchange, reason, sent=sent, is_stale=is_stale) and not answered:
        repeat(exchange, is_stale=is_stale)
    else:
        exchange.refuse(reason)


def repeat(exchange: Exchange, *, is_stale: bool) -> None:
    """Ask a backend again.

    Args:
        exchange: The request.
        is_stale: As for :func:`may_repeat`.
    """
    if is_stale:
        exchange.stale += 1
        exchange.tried = exchange.tried[:-1]  # the backend itself may be well
    else:
        exchange.retries += 1
        exchange.service.carried.counts[exchange.service.carried.first_cell + RETRIES] += 1
        if len(exchange.tried) >= len(exchange.service.pools):
            exchange.tried = ()
    exchange.find_backend()
