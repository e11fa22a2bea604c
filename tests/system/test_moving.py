"""A tier that fails: its services move to the next one and back, and nobody else's clients notice."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from marchproxy_core.testing import until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def brittle(site):
    """Give the site's daemons a tier above ``sockets`` that breaks once the file returned is there."""
    installed = site.directory / "installed"
    about = installed / "brittle_tier-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: brittle-tier\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[marchproxy.tiers]\nbrittle = brittle_tier\n")
    shutil.copy(Path(__file__).parent / "rig" / "brittle_tier.py", installed)
    path = [str(installed), str(ROOT / "examples" / "tier_template"), os.environ.get("PYTHONPATH", "")]
    breaker = site.directory / "break"
    site.carry_by("sockets")
    site.environ |= {"PYTHONPATH": os.pathsep.join(path), "BRITTLE_TIER_BREAKER": str(breaker)}
    return breaker


async def tier_of(daemon, name):
    rows = (await daemon.ask("/admin/rules/classification")).json()["services"]
    (row,) = [row for row in rows if row["name"] == name]
    return row["chosen"]


async def moved(daemon, name, tier):
    async def reached():
        return await tier_of(daemon, name) == tier

    await until(reached, deadline_s=30, what=f"{name} is with {tier}")


async def test_a_tier_that_fails_loses_its_services_and_gets_them_back(site, brittle):
    a = await site.server()
    web, pinned = site.service("web", a), site.service("pinned", a, tier="sockets")
    daemon = await site.start(web, pinned)
    assert [await tier_of(daemon, name) for name in ("web", "pinned")] == ["brittle", "sockets"]
    lost, bystander = await web.call(), await pinned.call()
    await daemon.counts("marchproxy_connections_active", 1, service="web", tier="brittle")

    brittle.touch()
    assert await lost.fate() in ("ended", "reset")
    assert [await web.visit() for _ in range(50)] == ["a"] * 50  # also before anybody says that it moved
    await daemon.told("service.moved", service="web", left="brittle", tier="sockets")
    assert await daemon.answers("/readyz")
    kept = await web.call()
    await moved(daemon, "web", "brittle")
    assert [await web.visit() for _ in range(50)] == ["a"] * 50
    for client in (kept, bystander):
        assert await client.echoes()
        assert await client.end() == "ended"

    await daemon.counts("marchproxy_connections_active", 0)
    assert await daemon.metric("marchproxy_connections_opened_total", service="web", tier="brittle") >= 1
    await daemon.counts("marchproxy_connections_opened_total", 102, service="web")
    moves = {"from": "brittle", "to": "sockets"}
    assert await daemon.metric("marchproxy_fallbacks_total", **moves) == 1
    assert await daemon.metric("marchproxy_fallbacks_total", **{"from": "sockets", "to": "brittle"}) == 1
    (event,) = daemon.events("tier.demoted")
    assert (event["tier"], "the test broke it" in event["reason"]) == ("brittle", True)


async def test_a_daemon_drains_with_connections_in_two_tiers(site, brittle):
    web = site.service("web", await site.server())
    daemon = await site.start(web)
    brittle.touch()
    await daemon.told("service.moved", service="web", tier="sockets")
    low = await web.call()
    await moved(daemon, "web", "brittle")
    high = await web.call()
    daemon.signal(signal.SIGTERM)
    await daemon.told("drain.started")
    assert await low.echoes()
    assert await low.end() == "ended"
    assert await high.echoes()
    assert await high.end() == "ended"
    assert await daemon.exit_status() == 0
    assert daemon.events("drain.finished")


async def test_clients_of_a_service_without_another_tier_wait_until_its_tier_is_back(site, brittle):
    web = site.service("web", await site.server(), tier="brittle")
    daemon = await site.start(web)
    assert await web.visit() == "a"
    brittle.touch()
    await daemon.told("service.moved", service="web", left="brittle", tier=None)
    waiting = [await web.knock() for _ in range(20)]
    assert [event["level"] for event in daemon.events("service.moved") if not event["tier"]] == ["error"]
    for client in waiting:
        assert await client.hears() == b"a"
        assert await client.end() == "ended"
    await moved(daemon, "web", "brittle")
    assert await daemon.answers("/readyz")
