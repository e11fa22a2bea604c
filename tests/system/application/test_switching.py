"""A service goes from the fast path to the slow one and back by reloads, and no request fails meanwhile."""

from __future__ import annotations

import attrs
import pytest
import trio
from system_rig.web_client import ENDED, WebClient
from system_rig.workshop import Workshop

from marchproxy_core.testing import until

ROUNDS = 3
_REQUESTS = 25


@attrs.define(eq=False)
class Asker:
    """Asks all the time; keeps what was answered, and what failed."""

    service: object
    fields: dict[str, str]
    keeps: bool
    statuses: list[int] = attrs.Factory(list)
    failed: list[str] = attrs.Factory(list)
    stale: int = 0
    """Requests of which nothing was heard on a connection that had served before."""

    async def run(self):
        client = None
        while True:
            if client is None:
                client = await WebClient.to(self.service)
            answer = await self._ask(client)
            if answer is None or not (self.keeps and client.keeps):
                await client.close()
                client = None
            await trio.lowlevel.checkpoint()

    async def _ask(self, client):
        try:
            answer = await client.ask(**self.fields)
        except ENDED as error:
            # RFC 9112, section 9.3.1: an idle connection may end at any time, and whoever asked meanwhile asks again.
            if client.asked > 1 and not client.heard:
                self.stale += 1
            else:
                self.failed.append(f"after {len(self.statuses)} answers: {error!r}")
            return None
        self.statuses.append(answer.status)
        return answer

    async def meets(self, *statuses):
        """Wait until the last answers were all among these."""
        start = len(self.statuses)

        def it_does():
            last = self.statuses[start:][-_REQUESTS:]
            return bool(self.failed) or (len(last) == _REQUESTS and set(last) <= set(statuses))

        await until(it_does, deadline_s=30, what=f"answers are of {statuses}: {self.statuses[-5:]}")
        assert not self.failed


async def reloaded(daemon):
    result = await daemon.run("reload")
    assert result.status == 0, result.errors


@pytest.mark.parametrize("fast", ["sockets", "application"])
async def test_auth_that_is_switched_on_and_off_fails_no_request(site, fast):
    """Either two tiers share the work, or one has all of it and changes how it reads the same service."""
    if fast == "sockets":
        site.settings |= {"enable_sockets": "auto", "tier_order": ["sockets", "application"]}
    await switched(site, fast)


@pytest.mark.root
async def test_a_service_leaves_the_kernel_for_auth_and_comes_back_and_fails_no_request(packets):
    packets.carry_by("application")
    await switched(packets, "ebpf")


async def switched(site, fast):
    """Switch auth on and off, with clients all the while.

    Args:
        site: Where.
        fast: The tier that carries the service without auth.
    """
    workshop = Workshop(site.directory)
    web = site.service("web", await site.web_server())
    plain = dict(web.options)
    daemon = await site.start(web)
    known = {"authorization": workshop.bearer()}
    stranger, friend = Asker(web, {}, keeps=False), Asker(web, known, keeps=False)
    keeper = Asker(web, known, keeps=True)
    old = await WebClient.to(web)
    assert (await old.ask()).status == 200
    everybody = (stranger, friend, keeper)
    async with trio.open_nursery() as nursery:
        for one in everybody:
            nursery.start_soon(one.run)
            await one.meets(200)
        for _ in range(ROUNDS):
            web.options = plain | workshop.auth()
            site.write(web)
            await reloaded(daemon)
            await is_with(daemon, "application")
            await stranger.meets(401)
            await friend.meets(200)
            await keeper.meets(200)
            assert "via" not in (await old.ask()).fields  # established as plain bytes, it goes on so
            web.options = plain
            site.write(web)
            await reloaded(daemon)
            await is_with(daemon, fast)
            for one in everybody:
                await one.meets(200)
            assert "via" not in (await old.ask()).fields
        nursery.cancel_scope.cancel()
    assert [one.failed for one in everybody] == [[], [], []]
    assert set(stranger.statuses) == {200, 401}
    assert set(friend.statuses) == set(keeper.statuses) == {200}
    # Each time that the connection was closed, one more at most.
    assert keeper.stale <= ROUNDS


async def is_with(daemon, tier):
    """Wait until a tier has the service; a packet tier that nobody needed meanwhile is attached anew."""
    await until(
        lambda: daemon.events("service.moved")[-1]["tier"] == tier, deadline_s=30, what=f"{tier} has it"
    )


@pytest.mark.parametrize("key", ["websocket", "compression"])
async def test_a_connection_of_plain_bytes_goes_on_when_its_service_becomes_http(site, key):
    web = site.service("web", await site.web_server())
    daemon = await site.start(web)
    client = await WebClient.to(web)
    assert (await client.ask()).text == "a"
    web.options[key] = {"websocket": True, "compression": ["gzip"]}[key]
    site.write(web)
    await reloaded(daemon)

    async def is_http():
        other = await WebClient.to(web)
        answer = await other.ask()
        await other.close()
        return "via" in answer.fields

    await until(is_http, what="new connections are read as HTTP")
    assert "via" not in (await client.ask()).fields
