"""The kit catches tiers that carry or count wrongly: for each law, tiers that are wrong in just that way."""

from __future__ import annotations

import socket
from contextlib import suppress

import trio

from marchproxy_core.testing import FakeTier
from marchproxy_core.testing.fake_relay import Relay
from marchproxy_core.testing.laws import counting, traffic


class StartsTooEarly(Relay):
    """Says that it started, and serves nothing until the second table."""

    async def run(self, services, *, task_status):
        task_status.started()
        later = services.changes()
        await anext(later)
        await anext(later)
        await super().run(services, task_status=trio.TASK_STATUS_IGNORED)


class Pumps(Relay):
    """A relay of its own making, to be wrong in one way."""

    async def _relay(self, counters, client, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.pump, client, server, lambda n: self.count(counters, "bytes_in", n))
            nursery.start_soon(self.pump, server, client, lambda n: self.count(counters, "bytes_out", n))

    def count(self, counters, field, n):
        setattr(counters, field, getattr(counters, field) + n)

    async def pump(self, source, sink, count):
        try:
            while data := await source.recv(65536):
                data = self.changed(data)
                await trio.SocketStream(sink).send_all(data)
                count(len(data))
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        self.at_end(source, sink)

    def changed(self, data):
        return data

    def at_end(self, source, sink):
        if sink.fileno() >= 0:
            with suppress(OSError):
                sink.shutdown(socket.SHUT_WR)


class ClosesBothAtHalfClose(Pumps):
    def at_end(self, source, sink):
        source.close()
        sink.close()


class TurnsBits(Pumps):
    turned = False

    def changed(self, data):
        if len(data) == 65536 and not self.turned:
            self.turned = True
            return bytes([data[0] ^ 1]) + data[1:]
        return data


class LosesBytes(Pumps):
    def changed(self, data):
        return data[:-1] if len(data) == 65536 else data


class HoardsWithoutBound(Pumps):
    async def pump(self, source, sink, count):
        send, receive = trio.open_memory_channel(float("inf"))

        async def write():
            async for data in receive:
                await trio.SocketStream(sink).send_all(data)
                count(len(data))
            self.at_end(source, sink)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            with send:
                while data := await source.recv(1 << 20):
                    send.send_nowait(data)


class CountsTwice(Pumps):
    def count(self, counters, field, n):
        super().count(counters, field, 2 * n)


class CountsBackwards(Pumps):
    def count(self, counters, field, n):
        setattr(counters, field, n)


class NeverCountsTheEnd(Relay):
    async def _connection(self, served, client):
        try:
            await super()._connection(served, client)
        finally:
            served.counters.active += 1


class CountsNoDatagrams(Relay):
    async def _receive(self, served, listening, scope, nursery):
        served.counters = type(served.counters)()
        await super()._receive(served, listening, scope, nursery)


class OneFlowForAll(Relay):
    """Answers whoever asked last, from one flow."""

    async def _receive(self, served, listening, scope, nursery):
        with scope, listening:
            flow = await self._new_flow(served, 0)
            with flow:
                while True:
                    data, client = await listening.recvfrom(65536)
                    await flow.send(data)
                    await listening.sendto(await flow.recv(65536), client)


def relaying(relay):
    return lambda: FakeTier(make_relay=relay)


BROKEN = {
    traffic.tcp_flows_as_soon_as_it_started: ((relaying(StartsTooEarly), "gave up .*: a client is served"),),
    traffic.half_close_passes_through: ((relaying(ClosesBothAtHalfClose), "after the client's end"),),
    traffic.reset_passes_through: ((relaying(Pumps), "the client reset, the server saw"),),
    traffic.bulk_arrives_exactly_in_both_directions: (
        (relaying(TurnsBits), "not the same ones"),
        (relaying(LosesBytes), r"got \d+ back"),
    ),
    traffic.a_reader_that_stalls_stalls_the_sender: ((relaying(HoardsWithoutBound), "no bound"),),
    traffic.udp_answers_each_client: ((relaying(OneFlowForAll), "5 clients came to the backend as [12]"),),
    counting.tcp_is_counted_exactly: (
        (relaying(CountsTwice), "counted .*, want"),
        (relaying(CountsBackwards), "went back"),
    ),
    counting.an_open_connection_is_counted_as_open: ((relaying(NeverCountsTheEnd), "0 active connections"),),
    counting.udp_is_counted_exactly: ((relaying(CountsNoDatagrams), "counted .*, want"),),
}


def test_every_law_has_a_tier_that_breaks_it():
    assert set(BROKEN) == {*traffic.LAWS, *counting.LAWS}


async def test_a_tier_that_breaks_the_law_is_caught(assert_caught, law, make, said):
    await assert_caught(law, make(), said)
