"""The worker's one loop: epoll, deadlines, and work put off; nothing else runs in the process.

Whoever owns a descriptor registers a handler for it. Handlers run to their end and never block. A descriptor is
closed at the end of a turn, not before: within a turn no event can reach the handler of a newer descriptor
of the same number.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, final

import structlog

if TYPE_CHECKING:
    from socket import SocketType

log = structlog.get_logger()

TICK_S = 0.25
"""How exact deadlines are kept."""
_MOST_EVENTS = 512

Handler = Callable[[int], None]
"""Called with the events of ``epoll_ctl(2)``."""


class Expiring(Protocol):
    """What has a deadline in the loop."""

    due_tick: int
    """Where the loop has put it; 0 when it has no deadline. The loop's to write."""

    def on_deadline(self, now_s: float) -> float | None:
        """Look whether time is up; return when to look again, None for never."""
        ...


@final
class Loop:
    """Runs until :meth:`stop`; for one thread."""

    def __init__(self) -> None:
        """Make the epoll instance; :meth:`close` closes it."""
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._again: list[Callable[[], None]] = []
        self._to_close: list[SocketType] = []
        self._due: dict[int, set[Expiring]] = {}
        self._tick = int(time.monotonic() / TICK_S)
        self._running = True
        self.now_s = time.monotonic()
        """The time at the beginning of this turn, in seconds of CLOCK_MONOTONIC."""
        self.on_tick: Callable[[], None] = lambda: None
        """Called every ``TICK_S`` seconds."""

    def watch(self, descriptor: int, events: int, handler: Handler) -> None:
        """Call the handler at each of these events; events and edge or level triggering as in epoll_ctl(2).

        Raises:
            OSError: No memory or no watches left (``fs.epoll.max_user_watches``).
        """
        self._epoll.register(descriptor, events)
        self._handlers[descriptor] = handler

    def hand_over(self, descriptor: int, handler: Handler) -> None:
        """Give the events of a watched descriptor to another handler."""
        self._handlers[descriptor] = handler

    def forget(self, descriptor: int) -> None:
        """Watch it no more; it stays open."""
        if self._handlers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def close_socket(self, sock: SocketType, *, is_copy: bool = True) -> None:
        """Watch it no more, and close it at the end of the turn.

        Args:
            sock: The socket.
            is_copy: Whether other descriptors may stand for the same socket. If none does, close(2) takes it out
                of epoll by itself, and a system call is saved (epoll(7), question 6).
        """
        if is_copy:
            self.forget(sock.fileno())
        else:
            self._handlers.pop(sock.fileno(), None)
        self._to_close.append(sock)

    def again(self, work: Callable[[], None]) -> None:
        """Call this in the next turn, after others had theirs."""
        self._again.append(work)

    def expire_at(self, item: Expiring, due_s: float | None) -> None:
        """Call the item's ``on_deadline`` at that time, or up to a tick later; None: never. Replaces what was set."""
        if item.due_tick:
            self._take_out(item)
        if due_s is not None:
            tick = max(int(due_s / TICK_S), self._tick) + 1
            item.due_tick = tick
            due = self._due.get(tick)
            if due is None:
                self._due[tick] = {item}
            else:
                due.add(item)

    def expire_by(self, item: Expiring, due_s: float) -> None:
        """The same, unless it would be looked at before that anyway."""
        if not item.due_tick or due_s < item.due_tick * TICK_S - 2 * TICK_S:
            self.expire_at(item, due_s)

    def stop(self) -> None:
        """Have :meth:`run` return at the end of the turn."""
        self._running = False

    def run(self) -> None:
        """Turn until stopped."""
        while self._running:
            self.turn()

    def turn(self) -> None:
        """Wait for events, a deadline or work put off, and do what is to be done."""
        until_tick_s = (self._tick + 1) * TICK_S - time.monotonic()
        timeout_s = 0.0 if self._again or until_tick_s < 0 else until_tick_s
        events = self._epoll.poll(timeout_s, _MOST_EVENTS)
        self.now_s = now_s = time.monotonic()
        handlers = self._handlers
        for descriptor, event in events:
            handler = handlers.get(descriptor)
            if handler is not None:
                try:
                    handler(event)
                except Exception:  # noqa: BLE001 - a bug about one descriptor must not end all connections
                    self._failed(descriptor)
        if self._again:
            todo, self._again = self._again, []
            for work in todo:
                work()
        if now_s >= (self._tick + 1) * TICK_S:
            self._look_at_clock()
        if self._to_close:
            closing, self._to_close = self._to_close, []
            for sock in closing:
                sock.close()

    def close(self) -> None:
        """Close the epoll instance and what is about to be closed."""
        for sock in self._to_close:
            sock.close()
        self._to_close.clear()
        self._epoll.close()

    def _look_at_clock(self) -> None:
        now_tick = int(self.now_s / TICK_S)
        for tick in range(self._tick + 1, now_tick + 1):
            for item in self._due.pop(tick, ()):
                item.due_tick = 0
                due_s = item.on_deadline(self.now_s)
                if due_s is not None:
                    self.expire_at(item, due_s)
        self._tick = now_tick
        self.on_tick()

    def _take_out(self, item: Expiring) -> None:
        due = self._due.get(item.due_tick)
        if due is not None:
            due.discard(item)
            if not due:
                del self._due[item.due_tick]
        item.due_tick = 0

    def _failed(self, descriptor: int) -> None:
        log.exception("worker.handler_failed", descriptor=descriptor)
        self.forget(descriptor)
