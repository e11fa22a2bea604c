"""Laws of change: services come, go, stand by and drain; backends go down; what is established stays."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from marchproxy_core.model import Carries, Role
from marchproxy_core.services import Backend, Endpoint, Protocol
from marchproxy_core.testing.laws import patience
from marchproxy_core.testing.laws.traffic import (
    ask_udp,
    echo_once,
    service_for,
)
from marchproxy_core.testing.servers import receive_exactly, tcp_server, udp_server
from marchproxy_core.testing.subject import NotApplicable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from marchproxy_core.services import Service
    from marchproxy_core.testing.subject import Subject
    from marchproxy_core.testing.wire import Wire

_UNANSWERED_S = 0.3
_IN_A_ROW = 4


async def services_come_and_go(subject: Subject, wire: Wire) -> None:
    """A service added later is served, one removed is not; a third notices nothing."""
    async with tcp_server(wire, name=b"x") as server:
        stays, added = (service_for(wire, server.backend, name=name) for name in ("stays", "added"))
        async with subject.running(stays) as running, established(wire, stays) as check:
            running.put(added)
            await until_served(wire, added)
            await check()
            running.remove(added)
            await patience.until(lambda: _is_refused(wire, added), "that a removed service takes no client")
            await check()
            assert await echo_once(wire, stays.listen[0], b"y") == b"xy"


async def on_standby_clients_wait_and_are_served_once_chosen(subject: Subject, wire: Wire) -> None:
    """On standby the tier accepts nobody: clients stay in the listeners' queue until it is chosen."""
    if subject.report.carries is not Carries.CONNECTIONS:
        raise NotApplicable("the tier carries packets: tiers below it take what it leaves")
    async with tcp_server(wire, name=b"hi") as server:
        service = service_for(wire, server.backend)
        async with subject.running(service) as running, established(wire, service) as check:
            running.put(service, role=Role.STANDBY)
            waiting = await _until_unanswered(wire, service)
            try:
                await check()
                running.put(service)
                for client in waiting:
                    with trio.move_on_after(patience.PATIENCE_S):
                        assert await receive_exactly(client, 2) == b"hi"
                        continue
                    raise AssertionError("a client that waited during standby was not served afterwards")
            finally:
                for client in waiting:
                    await client.aclose()


async def a_draining_service_keeps_what_is_established(subject: Subject, wire: Wire) -> None:
    """Draining, the tier takes no new client and carries the old ones on."""
    async with tcp_server(wire, name=b"x") as server:
        service = service_for(wire, server.backend)
        async with subject.running(service) as running, established(wire, service) as check:
            running.drain(service)
            await patience.until(
                lambda: _is_refused(wire, service), "that a draining service takes no client"
            )
            await check()


async def a_draining_udp_service_keeps_its_flows(subject: Subject, wire: Wire) -> None:
    """Draining, the flows of known clients go on."""
    async with udp_server(wire) as server:
        service = service_for(wire, server.backend, protocol=Protocol.UDP)
        async with subject.running(service) as running:
            with await wire.connect_udp(service.listen[0]) as client:
                assert await ask_udp(client, b"before") == b"before"
                running.drain(service)
                for number in range(20):
                    message = b"after %d" % number
                    assert await ask_udp(client, message) == message


async def the_health_of_backends_is_followed(subject: Subject, wire: Wire) -> None:
    """New clients go where a backend is up; with none up, they go on being served."""
    async with tcp_server(wire, name=b"a") as a, tcp_server(wire, name=b"b") as b:
        service = service_for(wire, a.backend, b.backend)
        async with subject.running(service) as running:
            for down, up in ((a, b"b"), (b, b"a")):
                running.put(service, down=[down.backend])
                await until_all_go_to(wire, service, up)
            running.put(service, down=[a.backend, b.backend])
            await until_served(wire, service)
            drained = attrs.evolve(service, backends=(a.backend, attrs.evolve(b.backend, weight=0)))
            running.put(drained)
            await until_all_go_to(wire, service, b"a")


async def a_changed_service_keeps_what_is_established(subject: Subject, wire: Wire) -> None:
    """After a reload new clients go to the new backend; who is connected to the old one stays there."""
    async with tcp_server(wire, name=b"a") as a, tcp_server(wire, name=b"b") as b:
        service = service_for(wire, a.backend)
        async with subject.running(service) as running, established(wire, service) as check:
            running.put(attrs.evolve(service, backends=(b.backend,)))
            await until_all_go_to(wire, service, b"b")
            await check()


async def a_backend_that_refuses_costs_no_client(subject: Subject, wire: Wire) -> None:
    """With one of two backends refusing, every client is served by the other, and the core is told."""
    if subject.report.carries is not Carries.CONNECTIONS:
        raise NotApplicable("the tier carries packets: it does not see that a connection was refused")
    async with tcp_server(wire, name=b"x") as server:
        gone = await _refusing_backend(wire)
        service = service_for(wire, gone, server.backend)
        async with subject.running(service) as running:
            for _ in range(_IN_A_ROW):
                answer = await _answer(wire, service, patience.PATIENCE_S)
                assert answer == b"x", f"one of two backends refused, and a client got {answer!r}"

            async def told() -> bool:
                return any(not seen.ok and seen.backend == gone.endpoint for seen in running.observed)

            await patience.until(told, f"that the core is told of backend {gone.endpoint}, which refused")


async def a_refused_client_learns_of_it(subject: Subject, wire: Wire) -> None:
    """With its only backend refusing, a client is not left hanging, and the next one is served again."""
    async with tcp_server(wire, name=b"x") as server:
        service = service_for(wire, await _refusing_backend(wire))
        async with subject.running(service) as running:
            answer = await _answer(wire, service, patience.PATIENCE_S)
            assert answer is not None, "the only backend refused, and the client was left hanging"
            assert answer == b"", f"the only backend refused, and the client got {answer!r}"
            running.put(attrs.evolve(service, backends=(server.backend,)))
            await until_served(wire, service)


LAWS = (
    services_come_and_go,
    on_standby_clients_wait_and_are_served_once_chosen,
    a_draining_service_keeps_what_is_established,
    a_draining_udp_service_keeps_its_flows,
    the_health_of_backends_is_followed,
    a_changed_service_keeps_what_is_established,
    a_backend_that_refuses_costs_no_client,
    a_refused_client_learns_of_it,
)


@asynccontextmanager
async def established(wire: Wire, service: Service) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Hold a connection open; the value is a check that it still carries bytes both ways."""
    async with await wire.connect(service.listen[0]) as client:
        with patience.in_time("the first client is served"):
            assert await client.receive_some(), "the first client was not served at all"

        async def check() -> None:
            got = b""
            with trio.move_on_after(patience.PATIENCE_S):
                try:
                    await client.send_all(b"still there?")
                    got = await receive_exactly(client, 12)
                except trio.BrokenResourceError as error:
                    got = repr(error.__cause__).encode()
            assert got == b"still there?", f"an established connection was lost: {got!r}"

        yield check


async def _refusing_backend(wire: Wire) -> Backend:
    with await wire.bind_server(Protocol.UDP, 4) as sock:  # so nobody listens on this port by TCP
        return Backend(endpoint=Endpoint(wire.server.ip4, sock.getsockname()[1]))


async def _answer(wire: Wire, service: Service, patience_s: float) -> bytes | None:
    """Connect and return the backend's name, b"" when refused or closed, None when nothing happened in time."""
    with trio.move_on_after(patience_s):
        try:
            async with await wire.connect(service.listen[0]) as client:
                return await client.receive_some()
        except (OSError, trio.BrokenResourceError):
            return b""
    return None


async def _is_refused(wire: Wire, service: Service) -> bool:
    return await _answer(wire, service, _UNANSWERED_S) == b""


async def until_served(wire: Wire, service: Service) -> None:
    """Wait until a client is served. Of a tier that takes packets the first ones may still find the listeners."""

    async def is_served() -> bool:
        return bool(await _answer(wire, service, patience.PATIENCE_S / 5))

    await patience.until(is_served, f"that {service.name} is served")


async def until_all_go_to(wire: Wire, service: Service, name: bytes) -> None:
    """Wait until several new clients in a row meet the backend of that name."""

    async def all_go_there() -> bool:
        answers = [await _answer(wire, service, patience.PATIENCE_S) for _ in range(_IN_A_ROW * 2)]
        return set(answers) == {name}

    await patience.until(all_go_there, f"that all new clients go to backend {name.decode()}")


async def _until_unanswered(wire: Wire, service: Service) -> list[trio.SocketStream]:
    """Wait until several clients in a row are let in by the kernel and left alone; return them, connected."""
    waiting: list[trio.SocketStream] = []

    async def left_alone() -> bool:
        client = await wire.connect(service.listen[0])
        waiting.append(client)
        with trio.move_on_after(_UNANSWERED_S):
            answered = await client.receive_some()
            assert answered, "on standby a client was turned away; it is to wait"
            await close_all()
        return len(waiting) == _IN_A_ROW

    async def close_all() -> None:
        for client in waiting:
            await client.aclose()
        waiting.clear()

    try:
        await patience.until(left_alone, "that on standby no client is accepted", times=3)
    except BaseException:
        await close_all()
        raise
    return waiting
