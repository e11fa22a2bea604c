"""Who is blocked vanishes, at once and from the command line; who is not notices nothing, in a flood neither."""

from __future__ import annotations

import json

import pytest
import trio
from pyroute2 import IPRoute
from system_rig import load
from system_rig.flood import flood

from marchproxy_core.testing import until

ANSWER_S = 0.5
"""Who is not served by then is kept out: packet tiers say nothing, and the client's SYN comes again after 1 s."""
OTHER = "198.18.0.9"
"""Another client's address."""


async def is_kept_out(service, **who) -> bool:
    """Whether a newcomer gets no answer."""
    with trio.move_on_after(ANSWER_S):
        return await service.visit(**who) in ("reset", "ended", "refused")
    return True


async def block(daemon, *arguments) -> str:
    """Run ``marchproxy block``, and return what it says."""
    done = await daemon.run("block", *arguments)
    assert done.status == 0, done.errors
    return done.output


async def until_kept_out(service, **who):
    await until(lambda: is_kept_out(service, **who), what=f"{who} is kept out")


async def until_served(service, **who):
    async def is_served():
        return not await is_kept_out(service, **who)

    await until(is_served, what=f"{who} is served")


@pytest.mark.root
async def test_a_client_that_is_blocked_vanishes_at_once_and_others_notice_nothing(packets):
    await packets.lab.client.add_address(f"{OTHER}/24", "to_proxy")
    web = packets.service("web", await packets.server())
    daemon = await packets.start_on("ebpf", web)
    good, bad = await web.call(), await web.call(source=OTHER)
    async with load(web) as traffic, trio.open_nursery() as nursery:
        assert "blocked: 198.18.0.8/30" in await block(daemon, "add", "198.18.0.8/30")
        await until_kept_out(web, source=OTHER)
        answers = []

        async def ask():
            answers.append(await bad.echoes())

        nursery.start_soon(ask)
        await daemon.run("reload")
        assert await is_kept_out(web, source=OTHER)
        assert answers == []
        assert await good.echoes()
        await traffic.goes_on()
        await daemon.counts_some("marchproxy_packets_seen_total", tier="ebpf", reason="blocked")
        await daemon.told("packets.dropped_lately")
        example = daemon.events("packets.dropped_lately")[0]["examples"][0]
        assert (example["source"], example["reason"], example["hook"]) == (OTHER, "blocked", "tc")
        await block(daemon, "remove", "198.18.0.8/30")
        await until_served(web, source=OTHER)
        traffic.lost_nothing()
    assert answers == [True]  # what was sent meanwhile comes by itself


@pytest.mark.root
@pytest.mark.parametrize("version", [4, 6])
async def test_a_service_has_prefixes_of_its_own_and_longer_ones_let_in(packets, version):
    server = await packets.server(ip=str(packets.lab.server_ip.of(version)))
    front, client = packets.lab.front_ip.of(version), packets.lab.client_ip.of(version)
    wide = "198.18.0.0/24" if version == 4 else "2001:db8:c::/64"
    web = packets.service("web", server, ip=str(front), block=[wide])
    api = packets.service("api", server, ip=str(front))
    daemon = await packets.start_on("ebpf", web, api)
    await until_kept_out(web)
    assert await api.visit() == "a"
    assert await daemon.counts_some("marchproxy_drops_total", service="web", tier="ebpf", reason="blocked")
    await block(daemon, "add", str(client), "--service", "web", "--allow")
    await until_served(web)
    await block(daemon, "remove", str(client), "--service", "web")
    await until_kept_out(web)
    del web.options["block"]
    packets.write(web, api)
    assert (await daemon.run("reload")).status == 0
    await until_served(web)


@pytest.mark.root
async def test_a_client_that_sends_too_fast_is_slowed_down_and_another_is_not(packets):
    await packets.lab.client.add_address(f"{OTHER}/24", "to_proxy")
    echo = packets.service("echo", await packets.datagram_server(), protocol="udp")
    daemon = await packets.start_on("ebpf", echo, door_source_rate=0.1, door_source_burst=8)
    fast, other = await echo.talk(), await echo.talk(source=OTHER)
    served = [await fast.asks(b"%d" % at, wait_s=ANSWER_S) for at in range(10)]
    assert served == ["a"] * 8 + ["nothing"] * 2
    assert await other.asks() == "a"
    await daemon.counts("marchproxy_drops_total", 2, service="echo", tier="ebpf", reason="pace")


@pytest.mark.root
async def test_a_flood_of_syns_takes_no_more_places_than_it_may(packets):
    web = packets.service("web", await packets.server())
    most = 64
    daemon = await packets.start_on("ebpf", web, door_max_opening=most, idle_timeout=3)
    await packets.lab.proxy.call(_send_everything_back, str(packets.lab.client_ip.ip4))
    clients = [await web.call() for _ in range(3)]
    before = packets.flows()
    await packets.lab.proxy.call(flood, "to_client", packets.lab.front_ip.ip4, web.port, 200_000)
    assert packets.flows() <= before + most + 1  # two CPUs may count one flow for both
    assert await is_kept_out(web)  # what the limit costs
    assert [await client.echoes() for client in clients] == [True] * 3
    labels = {"service": "web", "tier": "ebpf", "reason": "too_many_opening"}
    assert await daemon.counts_some("marchproxy_drops_total", **labels) > 150_000
    # They lapse with IDLE_TIMEOUT, which is shorter here than the usual 16 s.
    await until_served(web)


def _send_everything_back(gateway: str) -> None:
    """Have a way to every client, so that answers are forwarded too, and a flood is not told by their lack."""
    with IPRoute() as netlink:
        netlink.route("add", dst="0.0.0.0/0", gateway=gateway)


async def test_sockets_alone_keep_the_door_too_and_a_rule_may_end_by_itself(site):
    web = site.service("web", await site.server())
    site.carry_by("sockets")
    daemon = await site.start(web, enable_xdp="false", enable_ebpf="false")
    assert await block(daemon, "add", "127.0.0.0/8", "--service", "web") == (
        "blocked: 127.0.0.0/8 to service web\nkept by: sockets\n"
    )
    await until_kept_out(web)
    await daemon.counts_some("marchproxy_drops_total", service="web", tier="sockets", reason="blocked")
    await block(daemon, "add", "127.0.0.1", "--service", "web", "--allow", "--for", "2")
    await until_served(web)
    listed = json.loads(await block(daemon, "list", "--json"))
    assert [(rule["prefix"], rule["door"], rule["origin"]) for rule in listed["rules"]] == [
        ("127.0.0.0/8", "block", "command"),
        ("127.0.0.1/32", "allow", "command"),
    ]
    await daemon.told("door.rule_lapsed", prefix="127.0.0.1/32")
    await until_kept_out(web)


async def test_what_is_asked_for_wrongly_is_told_and_changes_nothing(site):
    web = site.service("web", await site.server())
    daemon = await site.start(web, door_block="203.0.113.0/24")
    wrong = {
        ("add", "127.0.0.1/8"): (2, "did you mean 127.0.0.0/8?"),
        ("add", "127.0.0.0/8", "--service", "wep"): (5, "did you mean web?"),
        ("remove", "127.0.0.0/8"): (5, "no rule for 127.0.0.0/8"),
        ("remove", "203.0.113.0/24"): (5, "the configuration's"),
    }
    for arguments, (status, says) in wrong.items():
        done = await daemon.run("block", *arguments)
        assert (done.status, says in done.errors) == (status, True), done.errors
    listed = json.loads(await block(daemon, "list", "--json"))
    assert [(rule["prefix"], rule["origin"]) for rule in listed["rules"]] == [("203.0.113.0/24", "settings")]
    assert await web.visit() == "a"
