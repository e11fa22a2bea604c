"""Traffic that goes on while something happens, and that misses nothing: every byte, every new connection."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio
from system_rig.client import LONGEST_S, RESET, Client, DatagramClient
from system_rig.service import Service

from marchproxy_core.testing import until
from marchproxy_core.testing.servers import receive_exactly

_PATTERN = random.Random(4).randbytes(65_521)  # a prime length: no chunk is ever the one before
_CHUNK = 12_000
_PACE_S = 0.004
"""Between two chunks, so that the daemon gets the CPU as well."""
_NEWCOMERS = 15
_LOST_AFTER_S = 1.0


@attrs.define(eq=False)
class Stream:
    """A connection that goes on and on."""

    client: Client
    chunks: int = 0
    fault: str = ""

    async def run(self) -> None:
        """Send the pattern, and look at every byte that comes back."""
        at = 0
        while not self.fault:
            data = (_PATTERN[at:] + _PATTERN)[:_CHUNK]
            try:
                await self.client.stream.send_all(data)
                answer = await receive_exactly(self.client.stream, len(data))
            except (*RESET, EOFError) as error:
                self.fault = f"ended after {self.chunks} chunks: {error!r}"
                return
            if answer != data:
                self.fault = f"other bytes came back after {self.chunks} chunks"
            self.chunks += 1
            at = (at + _CHUNK) % len(_PATTERN)
            await trio.sleep(_PACE_S)


@attrs.define(eq=False)
class Load:
    """All of it; made by :func:`load`."""

    web: Service
    nursery: trio.Nursery
    streams: list[Stream] = attrs.field(factory=list)
    served: int = 0
    failed: list[tuple[float, str]] = attrs.field(factory=list)
    """Newcomers that were not served: when they came, and what they met."""
    datagrams: DatagramClient | None = None
    answered: int = 0
    unanswered: int = 0

    async def goes_on(self) -> None:
        """Wait until every stream has moved on, and newcomers were served after this was called."""
        chunks = [one.chunks for one in self.streams]
        newcomers, answers = self.served + _NEWCOMERS, self.answered + _NEWCOMERS

        def it_did() -> bool:
            moved = all(
                one.fault or one.chunks > before + 3 for one, before in zip(self.streams, chunks, strict=True)
            )
            return moved and self.served >= newcomers and (self.datagrams is None or self.answered >= answers)

        await until(it_did, deadline_s=LONGEST_S, what=f"traffic goes on: {self}")

    def lost_nothing(self) -> None:
        """Fail when a byte or a newcomer was lost."""
        assert [one.fault for one in self.streams if one.fault] == []
        assert self.failed == []
        assert self.unanswered == 0

    async def join(self, count: int = 3) -> None:
        """Have so many streams more."""
        for _ in range(count):
            stream = Stream(await self.web.call())
            self.streams.append(stream)
            self.nursery.start_soon(stream.run)

    def __str__(self) -> str:
        faults = [one.fault for one in self.streams if one.fault]
        return f"{self.served} served, {self.failed=}, {faults=}, {self.unanswered=}"

    async def _newcomers(self) -> None:
        while True:
            came = trio.current_time()
            met = await self.web.visit()
            if met in ("refused", "reset", "ended"):
                self.failed.append((came, met))
            else:
                self.served += 1
            await trio.sleep(_PACE_S)

    async def _datagrams(self, client: DatagramClient) -> None:
        number = 0
        while True:
            number += 1
            answer = await client.asks(b"datagram %d" % number, wait_s=_LOST_AFTER_S)
            if answer in ("nothing", "refused"):
                self.unanswered += 1
            else:
                self.answered += 1
            await trio.sleep(_PACE_S)


@asynccontextmanager
async def load(web: Service, echo: Service | None = None, *, streams: int = 3) -> AsyncIterator[Load]:
    """Yield traffic to a TCP service and, if given, to a UDP service; it ends with the block."""
    async with trio.open_nursery() as nursery:
        traffic = Load(web, nursery)
        await traffic.join(streams)
        nursery.start_soon(traffic._newcomers)
        if echo is not None:
            traffic.datagrams = await echo.talk()
            nursery.start_soon(traffic._datagrams, traffic.datagrams)
        await traffic.goes_on()
        yield traffic
        nursery.cancel_scope.cancel()
