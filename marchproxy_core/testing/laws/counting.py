"""Laws of counting: what a tier's counters say after known traffic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from marchproxy_core.model import Carries, ServiceStats
from marchproxy_core.services import Protocol
from marchproxy_core.testing.laws import patience
from marchproxy_core.testing.laws.traffic import echo_once, service_for
from marchproxy_core.testing.servers import receive_exactly, tcp_server, udp_server
from marchproxy_core.testing.subject import NotApplicable
from marchproxy_core.testing.waiting import until

if TYPE_CHECKING:
    from marchproxy_core.services import Service
    from marchproxy_core.testing.subject import Running, Subject
    from marchproxy_core.testing.wire import Wire


async def tcp_is_counted_exactly(subject: Subject, wire: Wire) -> None:
    """Counters only grow, and end at what was really sent; no connection stays counted as open."""
    _skip_unless_connections(subject, "counts packets, with their headers")
    async with tcp_server(wire, name=b"hi") as server:
        service = service_for(wire, server.backend)
        async with subject.running(service) as running:
            sizes = (0, 1, 1000, 300_000)
            last = await running.stats_of(service)
            for size in sizes:
                assert len(await echo_once(wire, service.listen[0], bytes(size))) == size + 2
                last = await _grown(running, service, last)
            want = ServiceStats(
                connections_opened=len(sizes), bytes_in=sum(sizes), bytes_out=sum(sizes) + 2 * len(sizes)
            )
            await _until_counted(running, service, want)


async def an_open_connection_is_counted_as_open(subject: Subject, wire: Wire) -> None:
    """The active count follows connections as they open and end."""
    async with tcp_server(wire, name=b"hi") as server:
        service = service_for(wire, server.backend)
        async with subject.running(service) as running:
            clients = [await wire.connect(service.listen[0]) for _ in range(3)]
            for client in clients:
                with patience.in_time("a client is served"):
                    await receive_exactly(client, 2)

            async def three() -> bool:
                return (await running.stats_of(service)).connections_active == 3

            async def none() -> bool:
                return (await running.stats_of(service)).connections_active == 0

            try:
                await until(three, deadline_s=patience.PATIENCE_S, what="a count of 3 active connections")
            except TimeoutError as error:
                raise AssertionError(str(error)) from None
            finally:
                for client in clients:
                    await client.aclose()
            try:
                await until(
                    none,
                    deadline_s=patience.PATIENCE_S,
                    what="a count of 0 active connections after their end",
                )
            except TimeoutError as error:
                raise AssertionError(str(error)) from None


async def udp_is_counted_exactly(subject: Subject, wire: Wire) -> None:
    """Datagrams and their bytes are counted in both directions."""
    _skip_unless_connections(subject, "counts packets, with their headers")
    async with udp_server(wire) as server:
        service = service_for(wire, server.backend, protocol=Protocol.UDP)
        async with subject.running(service) as running:
            client = await wire.connect_udp(service.listen[0])
            with client:
                for size in (10, 200, 1000):
                    await client.send(bytes(size))
                    with patience.in_time("a datagram is answered"):
                        await client.recv(65536)
            want = ServiceStats(
                connections_opened=1, bytes_in=1210, bytes_out=1210, packets_in=3, packets_out=3
            )
            await _until_counted(running, service, want, ignoring=("connections_active",))


LAWS = (
    tcp_is_counted_exactly,
    an_open_connection_is_counted_as_open,
    udp_is_counted_exactly,
)

_COUNTED = (
    "connections_opened",
    "connections_active",
    "bytes_in",
    "bytes_out",
    "packets_in",
    "packets_out",
)


def _skip_unless_connections(subject: Subject, why: str) -> None:
    if subject.report.carries is not Carries.CONNECTIONS:
        raise NotApplicable(f"the tier carries {subject.report.carries}: it {why}")


async def _grown(running: Running, service: Service, last: ServiceStats) -> ServiceStats:
    now = await running.stats_of(service)
    for field in _COUNTED:
        if field != "connections_active":
            assert getattr(now, field) >= getattr(last, field), f"{field} went back: {last} to {now}"
    return now


async def _until_counted(
    running: Running, service: Service, want: ServiceStats, ignoring: tuple[str, ...] = ()
) -> None:
    ignored: dict[str, Any] = dict.fromkeys(ignoring, 0)
    if service.protocol is Protocol.TCP:
        ignored |= {"packets_in": 0, "packets_out": 0}
    seen: list[ServiceStats] = []

    async def counted() -> bool:
        stats = attrs.evolve(await running.stats_of(service), drops={}, backend_active={}, **ignored)
        seen.append(stats)
        return stats == want

    try:
        await until(counted, deadline_s=patience.PATIENCE_S)
    except TimeoutError:
        raise AssertionError(f"counted {seen[-1]}, want {want}") from None
