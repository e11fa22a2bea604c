"""Who answers a client's SYN, and what if nobody is there."""

from __future__ import annotations

import trio

from tests.parity.scenario import scenario

_CLIENTS = 20
"""Of as many, with two backends, the chance that all meet the same one is 2 to the power of -20."""
_STRANGER = {4: "198.18.0.30", 6: "2001:db8:c::30"}
_LINK_LAYER = (
    "XDP cannot ask for a link-layer address: the next tier takes him, and its answer makes him known."
)


@scenario("a backend that refuses", backends=("refuses",))
async def refused(stage):
    return f"the client {await stage.comes()}"


@scenario(
    "a backend that refuses, beside another",
    backends=("refuses", "open"),
    note="Health checks take a backend out that fails; without them, sockets ejects it for a while.",
)
async def one_of_two_refuses(stage):
    return await _met_by_many(stage)


@scenario("a backend that does not answer", backends=("silent",))
async def silent(stage):
    return f"the client {await stage.comes()}"


@scenario("a backend that does not answer, beside another", backends=("silent", "open"))
async def one_of_two_is_silent(stage):
    return await _met_by_many(stage)


async def _met_by_many(stage):
    met = set()

    async def come():
        met.add(await stage.comes())

    async with stage.greeting(), trio.open_nursery() as nursery:
        for _ in range(_CLIENTS):
            nursery.start_soon(come)
    if met == {"is served"}:
        return "each client is served by the other, which is tried within `CONNECT_TIMEOUT`"
    return f"a client {' or '.join(sorted(met, reverse=True))}, as his backend does"


@scenario("no backend has a weight", backends=("drained",), carried_below=True)
async def nobody(stage):
    return f"the client {await stage.comes()}{await stage.by_whom()}"


@scenario("a client whose link-layer address the proxy does not know", carried_below=True, note=_LINK_LAYER)
async def stranger(stage):
    # The client's end knows the proxy, so nothing but the packet itself tells the proxy of the new address.
    assert await stage.connect()
    await stage.accept()
    length = 24 if stage.version == 4 else 64
    source = _STRANGER[stage.version]
    await stage.site.lab.client.add_address(f"{source}/{length}", "to_proxy")
    async with stage.greeting():
        met = await stage.comes(source=source)
    return f"{met}{await stage.by_whom()}"
