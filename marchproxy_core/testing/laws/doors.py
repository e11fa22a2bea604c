"""Laws of the front door: who is kept out, and who is not. For tiers that say that they keep it."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import trio

from marchproxy_core.door import Door, Rule
from marchproxy_core.services import Protocol
from marchproxy_core.testing.laws import patience
from marchproxy_core.testing.laws.traffic import service_for
from marchproxy_core.testing.servers import receive_exactly, tcp_server, udp_server
from marchproxy_core.testing.subject import NotApplicable
from marchproxy_core.testing.waiting import until

if TYPE_CHECKING:
    from marchproxy_core.door import Prefix
    from marchproxy_core.services import Endpoint, IPAddress, Service
    from marchproxy_core.testing.subject import Running, Subject
    from marchproxy_core.testing.wire import Wire

_ANSWER_S = 0.25
"""How long a client waits that may be kept out; one that is let in is served in a fraction of it."""
_NAME = b"in"


async def blocked_clients_stay_out(subject: Subject, wire: Wire) -> None:
    """Clients of a blocked prefix are not served, until the rule goes; those of a longer one that is allowed are."""
    _skip_unless_kept(subject)
    for version in wire.versions:
        async with tcp_server(wire, version, name=_NAME) as server:
            service = service_for(wire, server.backend, version=version)
            async with subject.running(service) as running:
                own, around = await _prefixes(wire, service.listen[0])
                await _is(wire, service, served=True)
                running.guard(_rule(around, Door.BLOCK))
                await _is(wire, service, served=False)
                running.guard(_rule(around, Door.BLOCK), _rule(own, Door.ALLOW))
                await _is(wire, service, served=True)
                running.guard(_rule(around, Door.ALLOW), _rule(own, Door.BLOCK))
                await _is(wire, service, served=False)
                running.guard()
                await _is(wire, service, served=True)


async def a_service_keeps_its_own_clients_out(subject: Subject, wire: Wire) -> None:
    """A rule about one service does not touch another, and is counted as ``blocked`` where it acts."""
    _skip_unless_kept(subject)
    async with tcp_server(wire, name=_NAME) as server:
        one, other = (service_for(wire, server.backend, name=name) for name in ("one", "other"))
        async with subject.running(one, other) as running:
            _, around = await _prefixes(wire, one.listen[0])
            running.guard(_rule(around, Door.BLOCK, one.name))
            await _is(wire, one, served=False)
            await _is(wire, other, served=True)
            await _until_counted(running, one)
            assert "blocked" not in (await running.stats_of(other)).drops


async def blocked_senders_of_datagrams_stay_out(subject: Subject, wire: Wire) -> None:
    """The same holds for the first datagram of a UDP client."""
    _skip_unless_kept(subject)
    async with udp_server(wire, name=_NAME) as server:
        service = service_for(wire, server.backend, protocol=Protocol.UDP)
        async with subject.running(service) as running:
            _, around = await _prefixes(wire, service.listen[0])
            running.guard(_rule(around, Door.BLOCK))
            await _is(wire, service, served=False)
            running.guard()
            await _is(wire, service, served=True)


def _skip_unless_kept(subject: Subject) -> None:
    if not subject.report.keeps_door:
        raise NotApplicable("the tier does not say that it keeps to the rules at the front door")


def _rule(prefix: Prefix, door: Door, service: str = "") -> Rule:
    return Rule(prefix=prefix, door=door, service=service)


async def _prefixes(wire: Wire, endpoint: Endpoint) -> tuple[Prefix, Prefix]:
    """Return the client's own address, and a prefix that has it but not the servers."""
    with await wire.connect_udp(endpoint) as sock:
        ip: IPAddress = ipaddress.ip_address(sock.getsockname()[0])
    own = ipaddress.ip_network(ip)
    return own, own.supernet(1)


async def _is(wire: Wire, service: Service, *, served: bool) -> None:
    """Wait until new clients are served, or are not."""
    asked = _is_served_by_udp if service.protocol is Protocol.UDP else _is_served_by_tcp

    async def agrees() -> bool:
        return await asked(wire, service.listen[0]) is served

    what = f"a client is {'served' if served else 'kept out'} at {service.listen[0]}"
    try:
        await until(agrees, deadline_s=patience.PATIENCE_S, what=what)
    except TimeoutError as error:
        raise AssertionError(str(error)) from None
    assert await agrees(), f"{what}, and the next one is not"


async def _is_served_by_tcp(wire: Wire, endpoint: Endpoint) -> bool:
    with trio.move_on_after(_ANSWER_S):
        try:
            async with await wire.connect(endpoint) as client:
                return await receive_exactly(client, len(_NAME)) == _NAME
        except (OSError, trio.BrokenResourceError):
            return False
    return False


async def _is_served_by_udp(wire: Wire, endpoint: Endpoint) -> bool:
    with await wire.connect_udp(endpoint) as client, trio.move_on_after(_ANSWER_S):
        try:
            await client.send(b"")
            return bool(await client.recv(100) == _NAME)
        except OSError:
            return False
    return False


async def _until_counted(running: Running, service: Service) -> None:
    async def is_counted() -> bool:
        return (await running.stats_of(service)).drops.get("blocked", 0) > 0

    try:
        await until(is_counted, deadline_s=patience.PATIENCE_S, what="a count of what was blocked")
    except TimeoutError as error:
        raise AssertionError(str(error)) from None


LAWS = (blocked_clients_stay_out, a_service_keeps_its_own_clients_out, blocked_senders_of_datagrams_stay_out)
