"""A request whose bytes pass as they are after 101: how that begins, and how a drain ends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from marchproxy_application.websocket.tunnel import Tunnel
from marchproxy_core.drops import DropReason
from marchproxy_core.workers.ledger import WEBSOCKETS

if TYPE_CHECKING:
    from marchproxy_application.backends.connection import BackendConnection
    from marchproxy_application.serving.exchange import Exchange
    from marchproxy_application.serving.preparing import PreparedAnswer

_CLOSING_S: Final = 2.0
"""How long both ends of a WebSocket may take to answer its Close."""


def upgrade(exchange: Exchange, answer: PreparedAnswer, backend: BackendConnection) -> None:
    """Change the protocol, if that was asked for."""
    if not exchange.prepared.upgrade or answer.head.upgrade != exchange.prepared.upgrade:
        backend.abandon(exchange)
        exchange.backend_failed(DropReason.BAD_ANSWER, "101 that nobody asked for", sent=True, answered=True)
        return
    if not exchange.begin_answer(answer):
        return
    exchange.tunnel = Tunnel()
    exchange.kept = None
    count_tunnels(exchange, 1)
    exchange.client.answer_upgrade(exchange, answer, exchange.more_lines(), backend)


def go_away(exchange: Exchange) -> None:
    """End a WebSocket with status 1001 as soon as its frames allow it; all else ends by itself."""
    tunnel = exchange.tunnel
    if tunnel is None or tunnel.is_closing or exchange.is_over:
        return
    exchange.due_s = exchange.service.loop.now_s + _CLOSING_S
    to_client, to_backend = tunnel.go_away()
    if to_client:
        exchange.client.answer_body(to_client)
    if to_backend and exchange.backend is not None:
        exchange.backend.send_body(to_backend)


def count_tunnels(exchange: Exchange, more: int) -> None:
    """Count open WebSockets: 1 when one begins, -1 when it ends."""
    carried = exchange.service.carried
    carried.counts[carried.first_cell + WEBSOCKETS] += more
