"""What drops all that comes from a blocked prefix: MarchProxy as an operator runs it, and the least that XDP can do."""

from __future__ import annotations

import contextlib
import struct
from functools import partial
from pathlib import Path

import trio

from bench import configurations
from bench.configurations import Service
from bench.packets import programs, traffic
from bench.packets.carriers import Carrier, Site, Standing
from bench.peers import tier_missing
from bench.starting import pinned, start_marchproxy
from marchproxy_core.bpf import Link, Map, Program, XdpMode, items
from marchproxy_core.bpf.pins import pin_folder
from marchproxy_core.packet import layout
from marchproxy_core.packet.counting import NO_SERVICE
from marchproxy_core.packet.reasons import Hook, Reason
from marchproxy_core.packet.shared import schema_directory
from marchproxy_core.packet.tables import word
from marchproxy_core.testing import until

_LINKS = {Hook.XDP: "xdp", Hook.TC: "tc"}
"""What the names of the tiers' pinned links begin with."""
_COUNT = struct.Struct("=Q")
_BLOCKED_AT = layout.COUNTERS.offset("reasons") + Reason.BLOCKED * _COUNT.size
_PATIENCE_S = 30.0


async def _bare(undo: contextlib.ExitStack, site: Site) -> Standing:
    def put_up() -> Standing:
        count = undo.enter_context(Map.create(programs.COUNT))
        program = undo.enter_context(programs.load("drop", [count]))
        undo.enter_context(Link.attach_xdp(program, site.wires.towards_client, XdpMode.DRIVER))
        return Standing(program=program, received=partial(programs.packets, count))

    return await site.lab.proxy.call(put_up)


async def _put_up_daemon(tier: str, hook: Hook, undo: contextlib.ExitStack, site: Site) -> Standing:
    """Start the daemon with the blocklist, and find its program and counters where it pinned them."""
    wires, point = site.wires, site.point
    service = Service(
        protocol=point.protocol, front=str(wires.front), backend=str(wires.backend), port=traffic.FIRST_PORT
    )
    # XDP_MODE has the tier stay where it loses by being on a veth, and in the driver.
    extra = {"door_block": traffic.blocked(point), **({"xdp_mode": "native"} if hook is Hook.XDP else {})}
    argv = configurations.marchproxy(site.directory, service, tier=tier, settings=extra)
    await start_marchproxy(site.lab.proxy, pinned(argv, site.cpus), site.directory / "peer.log", tier)
    pins = pin_folder() / await site.lab.proxy.call(schema_directory)
    prefixes = undo.enter_context(Map.open_pinned(pins / "prefixes"))

    async def has_all() -> bool:
        return await trio.to_thread.run_sync(_entries, prefixes) >= point.prefixes

    await until(has_all, deadline_s=_PATIENCE_S, what=f"{point.prefixes:,} prefixes in the tables")
    counters = undo.enter_context(Map.open_pinned(pins / "counters"))
    return Standing(
        program=undo.enter_context(_program_behind(pins / f"{_LINKS[hook]}-{wires.towards_client}")),
        received=partial(_blocked, counters, hook),
    )


def _entries(table: Map) -> int:
    return sum(1 for _ in items(table))


def _program_behind(pinned_link: Path) -> Program:
    with Link.open_pinned(pinned_link) as link:
        return Program.open_id(link.info().program_id)


def _blocked(counters: Map, hook: Hook) -> int:
    """Return how many packets of no service the engine counted as blocked, on all CPUs."""
    value = counters.lookup(word(2 * NO_SERVICE + hook))
    assert value is not None  # an array has every place
    return sum(int(_COUNT.unpack_from(one, _BLOCKED_AT)[0]) for one in counters.split(value))


DROPPERS = (
    Carrier(
        name="door_tc",
        title="MarchProxy ebpf",
        drops=True,
        put_up=partial(_put_up_daemon, "ebpf", Hook.TC),
        missing=tier_missing("door_tc", "ebpf"),
    ),
    Carrier(
        name="door_xdp",
        title="MarchProxy xdp",
        drops=True,
        put_up=partial(_put_up_daemon, "xdp", Hook.XDP),
        missing=tier_missing("door_xdp", "xdp"),
    ),
    Carrier(name="drop", title="bare XDP_DROP", drops=True, put_up=_bare),
)
