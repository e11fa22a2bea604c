"""Connections on which nothing moves."""

from __future__ import annotations

import socket

from marchproxy_core.testing import until
from tests.parity.ends import PATIENCE_S, fate, fate_of, goes_on
from tests.parity.scenario import scenario
from tests.parity.tier_site import SETTINGS

_IDLE_S = float(SETTINGS["idle_timeout"])


@scenario(
    "a connection on which nothing moves for `IDLE_TIMEOUT`",
    long=True,
    note="Kept to a quarter of a second by sockets, to two seconds by the others.",
)
async def idle(stage):
    client, backend = await stage.pair()
    assert await goes_on(client, backend)

    async def is_forgotten():
        return "idle_timeout" in await stage.site.drops(stage.service.name)

    await until(is_forgotten, deadline_s=PATIENCE_S, what="the connection is given up")
    told = await fate_of(client, backend)
    return f"the client {told}"


@scenario("keep-alive probes on such a connection", long=True)
async def kept_alive(stage):
    def probe_every_second(sock):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)

    client, backend = await stage.pair(prepare=probe_every_second)
    assert await goes_on(client, backend)
    # Idle flows are looked for once a second, to within a tick.
    end = await fate(client, _IDLE_S + 4)
    if end != "open":
        return f"end at the proxy; the client is {end} all the same"
    return "keep it open" if await goes_on(client, backend) else "do not keep it open"
