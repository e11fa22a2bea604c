"""An engine made of real values, served on real sockets; loaded by the conftest files."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import attrs
import httpx
import trio

from marchproxy_core.admin.server import serve_admin
from marchproxy_core.admin.view import ReloadResult
from marchproxy_core.backends import HealthBoard
from marchproxy_core.config import Config, Settings, UnixAddress
from marchproxy_core.engine.door import FrontDoor
from marchproxy_core.errors import TierFault
from marchproxy_core.model import (
    Candidate,
    Decision,
    Path,
    Plan,
    Requirement,
    ServicePlan,
    ServiceStats,
    TierRow,
    TierState,
    TierStats,
)
from marchproxy_core.plugins import PluginRow
from marchproxy_core.questions import Purge, Purged, Recalled
from marchproxy_core.services import Auth, AuthType, Backend, Cache, Endpoint, Http, Protocol, Service

if TYPE_CHECKING:
    from marchproxy_core.door import DoorChange, KnownRule
    from marchproxy_core.questions import Recall

LOOPBACK = Endpoint.parse("127.0.0.1:1")
ANY_PORT = attrs.evolve(LOOPBACK, port=0)

WEB = Service(
    name="web",
    listen=(Endpoint.parse("0.0.0.0:8000"), Endpoint.parse("[::]:8000")),
    backends=(
        Backend(endpoint=Endpoint.parse("10.0.0.1:80")),
        Backend(endpoint=Endpoint.parse("10.0.0.2:80")),
    ),
    origin="rules.yaml:3",
)
DNS = Service(
    name="dns",
    protocol=Protocol.UDP,
    listen=(Endpoint.parse("0.0.0.0:53"),),
    backends=(Backend(endpoint=Endpoint.parse("10.0.0.3:53"), weight=0),),
)
LOCKED = Service(
    name="locked",
    listen=(Endpoint.parse("0.0.0.0:8443"),),
    backends=(Backend(endpoint=Endpoint.parse("10.0.0.4:80")),),
    auth=Auth(type=AuthType.JWT),
    cache=Cache(),
    http=Http(),
)


def planned(service: Service, *chain: str) -> ServicePlan:
    decision = Decision(
        subject=f"tier of service {service.name}",
        chosen=chain[0] if chain else None,
        candidates=(
            Candidate("xdp", False, "refused: need CAP_BPF, have none"),
            Candidate("sockets", bool(chain), "carries every fast-path service"),
        ),
    )
    path = Path.SLOW if service.slow_path_reasons else Path.FAST
    return ServicePlan(service=service, path=path, chain=chain, decision=decision)


PLAN = Plan(
    tiers=(
        TierRow(
            name="xdp",
            order=200,
            state=TierState.REFUSED,
            reason="need CAP_BPF, have none",
            requirements=(
                Requirement(
                    need="CAP_BPF", have="none", fix="run as root", met=False, source="capabilities(7)"
                ),
                Requirement(need="a driver with XDP", have="could not ask", met=None),
            ),
        ),
        TierRow(name="ebpf", order=500, state=TierState.ARMED, reason="below", keeps_door=True),
        TierRow(
            name="sockets", order=700, state=TierState.CHOSEN, reason="carries 2 of 3", carries=("web", "dns")
        ),
        TierRow(name="torn", order=None, state=TierState.BROKEN, reason="tier 'torn' failed at import: no"),
    ),
    services=(planned(WEB, "sockets"), planned(DNS, "sockets"), planned(LOCKED)),
)


KEPT: dict[str, object] = {
    "timestamp": "2026-01-02T03:04:05.678901Z",
    "level": "info",
    "event": "request.answered",
    "process": "application.0",
    "id": "0123456789ab00000001",
    "service": "locked",
    "client": "192.0.2.7",
    "method": "GET",
    "host": "example.com",
    "path": "/a?b=\x1b[2J",
    "route": "example.com/",
    "version": "1.1",
    "status": 502,
    "origin": "proxy",
    "backend": None,
    "bytes_in": 0,
    "bytes_out": 42,
    "duration_ms": 12.345,
    "reason": "backend_reset",
    "attempts": [{"backend": "10.0.0.4:80", "ms": 11.5, "error": "reset"}],
    "cache": "miss",
    "subject": "alice",
}
"""A request as a worker remembers it."""


@attrs.define(eq=False, slots=False)
class FakeEngine:
    """What the engine is to the admin API."""

    config: Config
    plan: Plan = PLAN
    ready: bool = True
    started_at: datetime = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    board: HealthBoard = attrs.field(factory=lambda: HealthBoard((WEB, DNS, LOCKED), now=0.0))
    counters: dict[str, TierStats] = attrs.field(factory=dict)
    not_read_yet: dict[str, TierStats] = attrs.field(factory=dict)
    """What a refresh brings."""
    moves: dict[tuple[str, str, str], int] = attrs.field(factory=dict)
    on_reload: Callable[[], ReloadResult] = ReloadResult
    reloads: int = 0
    drained: trio.Event = attrs.field(factory=trio.Event)
    requests: dict[str, dict[str, object]] | None = attrs.field(factory=lambda: {KEPT["id"]: KEPT})
    """What workers remember, by id; None: no tier does."""
    silent: int = 0
    """Workers that say nothing."""
    purges: list[Purge] = attrs.field(factory=list)
    _front_door: FrontDoor | None = None

    @property
    def plugins(self) -> tuple[PluginRow, ...]:
        torn = TierFault("torn", "import", "ModuleNotFoundError: no module named 'torn'", "reinstall torn")
        return (
            PluginRow(
                name="sockets", dist="marchproxy-sockets", version="0.1.0", value="marchproxy_sockets.plugin"
            ),
            PluginRow(name="torn", dist="torn", version="9", value="torn", fault=torn),
            PluginRow(name="xdp", dist="marchproxy-xdp", version="0.1.0", value="marchproxy_xdp.plugin"),
        )

    def stats(self) -> Mapping[str, TierStats]:
        return self.counters

    async def refresh(self) -> None:
        await trio.lowlevel.checkpoint()
        self.counters = {**self.counters, **self.not_read_yet}

    def fallbacks(self) -> Mapping[tuple[str, str, str], int]:
        return self.moves

    async def reload(self) -> ReloadResult:
        await trio.lowlevel.checkpoint()
        self.reloads += 1
        return self.on_reload()

    @property
    def front_door(self) -> FrontDoor:
        if self._front_door is None:
            self._front_door = FrontDoor(self.config)
        return self._front_door

    def door(self) -> tuple[KnownRule, ...]:
        return self.front_door.known

    def change_door(self, change: DoorChange) -> None:
        self.front_door.change(change, trio.current_time())

    async def recall(self, question: Recall) -> Recalled | None:
        await trio.lowlevel.checkpoint()
        if self.requests is None:
            return None
        return Recalled(found=self.requests.get(question.request_id), silent=self.silent)

    async def purge(self, question: Purge) -> Purged:
        await trio.lowlevel.checkpoint()
        self.purges.append(question)
        return Purged(forgotten=3, silent=self.silent)

    def drain(self) -> None:
        self.drained.set()


SOME_TRAFFIC = {
    "xdp": TierStats(packets_seen={"not_ours": 30, "blocked": 7}),
    "sockets": TierStats(
        services={
            "web": ServiceStats(
                connections_opened=12,
                connections_active=3,
                bytes_in=1000,
                bytes_out=2000,
                drops={"no_backend": 2, "Not A Name!": 1},
                backend_active={"10.0.0.1:80": 2, "10.0.0.2:80": 1},
            ),
            "dns": ServiceStats(
                connections_opened=5, packets_in=7, packets_out=6, bytes_in=70, bytes_out=600
            ),
            "gone": ServiceStats(connections_opened=99),
        }
    ),
}

SOME_REQUESTS = {
    "application": TierStats(
        services={
            "locked": ServiceStats(
                connections_opened=4,
                drops={"no_host": 1},
                answers={"2xx": 5, "4xx": 2},
                durations=(3, 0, 2, *[0] * 10, 2),
                duration_sum_s=31.5,
                cache={"hit": 2, "miss": 5},
                retries=1,
                reused=4,
                websockets_active=3,
            )
        }
    )
}
"""What a tier counts that reads requests."""


def make_engine(settings: Settings | None = None) -> FakeEngine:
    """Return an engine with three services, some traffic and one fall-back."""
    config = Config(settings=settings or Settings(admin_listen=ANY_PORT), services=(WEB, DNS, LOCKED))
    return FakeEngine(
        config=config, counters=dict(SOME_TRAFFIC), moves={("xdp", "sockets", "interface_gone"): 2}
    )


@asynccontextmanager
async def serving(engine: FakeEngine) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the engine on its own address, and yield a client for it."""
    settings = engine.config.settings
    async with trio.open_nursery() as nursery:
        address = await nursery.start(serve_admin, engine, settings)
        unix = isinstance(settings.admin_listen, UnixAddress)
        transport = httpx.AsyncHTTPTransport(uds=settings.admin_listen.path) if unix else None
        base = "http://localhost" if unix else f"http://{address}"
        async with httpx.AsyncClient(transport=transport, base_url=base, trust_env=False) as client:
            yield client
        nursery.cancel_scope.cancel()
