"""One tier's daemon between namespaces, and the scenarios against it."""

from __future__ import annotations

import math
import socket
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs
import httpx
import trio
from prometheus_client.metrics_core import Sample
from prometheus_client.parser import text_string_to_metric_families

from marchproxy_core.testing import until
from marchproxy_core.testing.lab import Lab, Namespace, open_lab
from tests.parity import rig  # noqa: F401 - makes system_rig known
from tests.parity.ends import PATIENCE_S

from system_rig.daemon import Daemon  # isort: skip
from system_rig.packet_site import HOOKS, PacketSite  # isort: skip
from system_rig.service import Service  # isort: skip
from system_rig.sockets import opener_in  # isort: skip

TIERS = ("sockets", "ebpf", "xdp")
"""Lowest first: below each one those before it are ready to take over, as they are on an operator's host."""
NAT_PORTS = range(2000, 10000)
"""Outside of the lab's ``ip_local_port_range``."""
_CLOSED_PORT = 9
_METRICS_AGE_S = 0.5
SECOND_FRONT = {4: "198.18.0.7", 6: "2001:db8:c::7"}
SETTINGS = {
    "nat_port_range": f"{NAT_PORTS.start}-{NAT_PORTS.stop - 1}",
    "connect_timeout": 1,
    "write_timeout": 2,
    "idle_timeout": 8,
    "drain_timeout": 5,
}


@attrs.define(eq=False)
class TierSite:
    """A lab with a daemon whose highest tier is the one under test."""

    tier: str
    lab: Lab
    packets: PacketSite
    services: list[Service] = attrs.field(factory=list)
    own: list[Service] = attrs.field(factory=list)
    """Those of the services whose traffic only the tier under test is to carry."""
    daemon: Daemon = attrs.field(init=False)
    keeps: ExitStack = attrs.field(factory=ExitStack)
    _samples: list[Sample] = attrs.field(factory=list)
    _read_s: float = -math.inf
    _reading: trio.Lock = attrs.field(factory=trio.Lock)

    def keep(self, sock: trio.socket.SocketType) -> None:
        """Close a socket at the end of the site."""
        self.keeps.callback(sock.close)

    async def start(self) -> None:
        """Start a daemon with the services of all stages, and wait until the tier carries them."""
        places = {tier: place for place, tier in enumerate(TIERS)}
        enable = {
            f"enable_{tier}": "true" if places[tier] <= places[self.tier] else "false" for tier in TIERS
        }
        # Ranks above sockets, and would take what that is to show.
        enable["enable_application"] = "false"
        self.daemon = await self.packets.start(*self.services, **SETTINGS, **enable)
        await until(self._carries_all, deadline_s=PATIENCE_S, what=f"{self.tier} carries its services")

    async def _carries_all(self) -> bool:
        answer = await self.daemon.ask("/admin/rules/classification")
        chosen = {row["name"]: row["chosen"] for row in answer.json()["services"]}
        hook = HOOKS.get(self.tier)
        return all(
            chosen[service.name] == self.tier and (hook is None or self.packets.is_in_kernel(service, hook))
            for service in self.own
        )

    async def samples(self) -> list[Sample]:
        """Return the daemon's metrics, at most half a second old: a page of so many services is no small work."""
        async with self._reading:
            if trio.current_time() - self._read_s > _METRICS_AGE_S:
                page = (await self.daemon.ask("/metrics")).text
                self._samples = [
                    sample for family in text_string_to_metric_families(page) for sample in family.samples
                ]
                self._read_s = trio.current_time()
            return self._samples

    async def opened(self) -> dict[str, set[str]]:
        """Return the tiers that took connections or flows, by service."""
        found: dict[str, set[str]] = defaultdict(set)
        for sample in await self.samples():
            if sample.name == "marchproxy_connections_opened_total" and sample.value:
                found[sample.labels["service"]].add(sample.labels["tier"])
        return found

    async def block(self, prefix: str, service: str | None) -> None:
        """Keep clients out of a service, or of all, as ``marchproxy block add`` does."""
        transport = httpx.AsyncHTTPTransport(uds=self.daemon.admin.removeprefix("unix:"), verify=False)
        async with httpx.AsyncClient(transport=transport, timeout=PATIENCE_S) as client:
            request = {"action": "add", "prefix": prefix} | ({"service": service} if service else {})
            answer = await client.post("http://localhost/admin/door", json=request)
        assert answer.status_code == 200, answer.text

    async def drops(self, service: str) -> set[str]:
        """Return the reasons for which something of a service was dropped so far."""
        return {
            sample.labels["reason"]
            for sample in await self.samples()
            if sample.name == "marchproxy_drops_total"
            and sample.labels["service"] == service
            and sample.value
        }

    def lost(self) -> list[str]:
        """Say which tiers this daemon lost so far, and why."""
        return [
            f"{event['tier']} was demoted: {event['reason']}" for event in self.daemon.events("tier.demoted")
        ]

    async def carried_elsewhere(self) -> dict[str, set[str]]:
        """Return the services whose traffic another tier took, which was not to."""
        found = await self.opened()
        others = {service.name: found.get(service.name, set()) - {self.tier} for service in self.own}
        return {name: tiers for name, tiers in others.items() if tiers}

    async def introduce(self, namespace: Namespace, source: str, ip: str) -> None:
        """Talk to the proxy until it answers that the port is closed: to answer, it has to know who asks."""
        with opener_in(namespace)(ip, socket.SOCK_DGRAM) as sock:
            await sock.bind((source, 0))
            await sock.connect((ip, _CLOSED_PORT))

            async def is_answered() -> bool:
                try:
                    await sock.send(b"hello")
                    with trio.move_on_after(0.1):
                        await sock.recv(1)
                except ConnectionRefusedError:
                    return True
                return False

            await until(is_answered, deadline_s=PATIENCE_S, what=f"the proxy answers {source}")

    async def prepare(self) -> None:
        """Have the lab as every tier needs it, and nothing in it that answers now so, now otherwise."""
        lab = self.lab
        for namespace in (lab.client, lab.server):
            # A veth takes the frames that XDP redirects to it if its peer has NAPI.
            await namespace.run(["ethtool", "-K", "to_proxy", "gro", "on"])
        for namespace in lab.namespaces:
            # Else a host tells a few of its refusals only, icmp(7).
            await namespace.set_sysctl("net.ipv4.icmp_ratelimit", 0)
            await namespace.set_sysctl("net.ipv6.icmp.ratelimit", 0)
        for version, length in ((4, 24), (6, 64)):
            await lab.proxy.add_address(f"{SECOND_FRONT[version]}/{length}", "to_client")
            await self.introduce(lab.client, str(lab.client_ip.of(version)), str(lab.front_ip.of(version)))
            await self.introduce(lab.server, str(lab.server_ip.of(version)), str(lab.back_ip.of(version)))


@asynccontextmanager
async def open_site(tier: str) -> AsyncIterator[TierSite]:
    """Make the lab; the caller adds services and starts the daemon. All is gone on return."""
    with TemporaryDirectory() as directory, ExitStack() as keeps:
        async with open_lab() as lab, trio.open_nursery() as nursery:
            packets = PacketSite(directory=Path(directory), nursery=nursery, lab=lab)
            site = TierSite(tier, lab, packets, keeps=keeps)
            try:
                await site.prepare()
                yield site
            finally:
                with trio.CancelScope(shield=True):
                    await packets.end()
                nursery.cancel_scope.cancel()
