"""A client who is blocked at the front door."""

from __future__ import annotations

import trio

from marchproxy_core.testing import until
from tests.parity.ends import PATIENCE_S, SILENCE_S, goes_on
from tests.parity.scenario import scenario

_NET = {4: "198.18.0.", 6: "2001:db8:c::"}


async def _blocked_client(stage, number, *, for_one_service):
    source = f"{_NET[stage.version]}{number}"
    service = stage.service.name if for_one_service else None
    await stage.introduce(source)
    if stage.scenario.protocol == "udp":
        return await _blocked_datagrams(stage, source, service)
    client, backend = await stage.pair(source=source)
    assert await goes_on(client, backend)
    async with stage.greeting():
        await stage.site.block(source, service)
        met = []

        async def is_kept_out():
            met.append(await stage.comes(source=source))
            return met[-1] != "is served"

        await until(is_kept_out, deadline_s=PATIENCE_S, what=f"{source} is kept out")
    there = "goes on" if await goes_on(client, backend) else "hears nothing any more"
    return f"a new client {met[-1]}; one that is there {there}"


async def _blocked_datagrams(stage, source, service):
    known = await stage.client(source=source)
    assert await _is_heard(stage, known)
    await stage.site.block(source, service)

    async def is_kept_out():
        return not await _is_heard(stage, await stage.client(source=source))

    await until(is_kept_out, deadline_s=PATIENCE_S, what=f"{source} is kept out")
    there = "goes on" if await _is_heard(stage, known) else "is not heard any more"
    return f"a new client is not heard; one that is there {there}"


async def _is_heard(stage, client):
    await client.send(b"hello")
    with trio.move_on_after(SILENCE_S / 2):
        await stage.backend.recvfrom(100)
        return True
    return False


@scenario("a client is blocked, by a rule about all services")
async def from_all(stage):
    return await _blocked_client(stage, 41, for_one_service=False)


@scenario("a client is blocked, by a rule about this service")
async def from_one(stage):
    return await _blocked_client(stage, 42, for_one_service=True)


@scenario("a UDP client is blocked, by a rule about all services", protocol="udp")
async def datagrams_from_all(stage):
    return await _blocked_client(stage, 43, for_one_service=False)


@scenario("a UDP client is blocked, by a rule about this service", protocol="udp")
async def datagrams_from_one(stage):
    return await _blocked_client(stage, 44, for_one_service=True)
