"""What carries packets from client to server, and how each is put up."""

from __future__ import annotations

import contextlib
import shutil
import struct
import subprocess
from collections.abc import Awaitable, Callable
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

import attrs

from bench.packets import programs
from bench.packets.traffic import FIRST_PORT, Point, Protocol
from bench.readings import Gap
from bench.starting import TurnFailed
from marchproxy_core.bpf import (
    Link,
    Map,
    MapSpec,
    MapType,
    Program,
    ProgramType,
    XdpMode,
    compile_program,
)
from marchproxy_core.config import Settings
from marchproxy_core.model import Assignment, BackendView, Role, ServiceTable
from marchproxy_core.packet.control import Control
from marchproxy_core.packet.layout import SOURCES
from marchproxy_core.packet.reasons import Hook
from marchproxy_core.packet.tables import Tables
from marchproxy_core.services import Backend, Endpoint, Service
from marchproxy_core.services import Protocol as ServiceProtocol
from marchproxy_core.testing import Lab

SETTINGS = Settings(ebpf_conn_map_size=1 << 16, nat_port_range=(1024, 65535))
"""A table for 60,000 flows, and a port for each: all have one backend and one source address."""
_CONNTRACK = Path("/proc/sys/net/netfilter")
_LOOPBACK_FORWARDING = Path("/proc/sys/net/ipv4/conf/lo/forwarding")


@attrs.frozen(kw_only=True)
class Wires:
    """The proxy's interfaces, by index, and the addresses of services and of their backend."""

    towards_client: int
    towards_server: int
    front: IPv4Address
    backend: IPv4Address


@attrs.frozen(kw_only=True, eq=False)
class Site:
    """Where a carrier is put up.

    Args:
        lab: The laboratory.
        wires: The proxy's interfaces and addresses.
        point: What is to be under way.
        directory: For files; there until the laboratory is gone.
        cpus: For processes: not the one that is measured, where there are others.
        sink: Counts what comes through.
    """

    lab: Lab
    wires: Wires
    point: Point
    directory: Path
    cpus: frozenset[int]
    sink: Map


@attrs.frozen(kw_only=True)
class Standing:
    """What was put up.

    Args:
        program: The program whose runs the kernel can time, if it is one; closed with what is undone.
        received: Counts the packets that it has sent on, or dropped where all is to be. Blocks.
    """

    program: Program | None
    received: Callable[[], int]


@attrs.frozen(kw_only=True)
class Carrier:
    """What carries packets from the proxy's one interface to the other, or drops them.

    Args:
        name: In the JSON and in ``--carriers``.
        title: In tables.
        forwards: Whether the proxy's kernel is to forward.
        is_program: Whether it is one whose runs the kernel can time.
        first_packet_opens: Whether a TCP flow must begin with a SYN. Conntrack knows no flow by its SYN alone, when
            nobody answers that; it takes one up in the middle (nf_conntrack_tcp_loose).
        drops: Whether it drops what it gets; then it takes the points where all is to be dropped, and no others.
        put_up: Makes it; what is to be undone goes to the stack.
        missing: Tells what is not installed here.
    """

    name: str
    title: str
    forwards: bool = False
    is_program: bool = True
    first_packet_opens: bool = True
    drops: bool = False
    put_up: Callable[[contextlib.ExitStack, Site], Awaitable[Standing]]
    missing: Callable[[], Gap | None] = lambda: None

    def takes(self, point: Point) -> bool:
        """Whether this is measured there."""
        return self.drops == bool(point.prefixes)


def in_proxy(
    work: Callable[[contextlib.ExitStack, Wires, Point], Program | None],
) -> Callable[[contextlib.ExitStack, Site], Awaitable[Standing]]:
    """Have something put up that only blocks, and makes all it makes in the proxy's namespace."""

    async def put_up(undo: contextlib.ExitStack, site: Site) -> Standing:
        program = await site.lab.proxy.call(work, undo, site.wires, site.point)
        return Standing(program=program, received=partial(programs.packets, site.sink))

    return put_up


def _nftables(undo: contextlib.ExitStack, wires: Wires, point: Point) -> None:
    del undo  # rules go with the namespace
    last = FIRST_PORT + point.services - 1
    rules = f"""
table ip bench {{
    chain before {{
        type nat hook prerouting priority dstnat
        ip daddr {wires.front} {point.protocol} dport {FIRST_PORT}-{last} dnat to {wires.backend}
    }}
    chain after {{
        type nat hook postrouting priority srcnat
        ip daddr {wires.backend} masquerade
    }}
}}
"""
    done = subprocess.run(["nft", "-f", "-"], input=rules, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise TurnFailed(f"nft ended with {done.returncode}: {done.stderr.strip()}")
    # All packets of a flow have one sequence number here, and nobody acknowledges any.
    (_CONNTRACK / "nf_conntrack_tcp_be_liberal").write_text("1", encoding="ascii")
    room = int((_CONNTRACK / "nf_conntrack_max").read_text(encoding="ascii"))
    if room <= point.flows:
        raise TurnFailed(
            f"nf_conntrack_max is {room}, need more than {point.flows} - fix: sysctl net.netfilter.nf_conntrack_max"
        )


def _redirect(undo: contextlib.ExitStack, wires: Wires, point: Point) -> Program:
    del point
    spec = MapSpec(name="interface", type=MapType.ARRAY, value_size=4, max_entries=1)
    interface = undo.enter_context(Map.create(spec))
    interface.update(bytes(4), struct.pack("=I", wires.towards_server))
    program = undo.enter_context(programs.load("redirect", [interface]))
    undo.enter_context(Link.attach_xdp(program, wires.towards_client, XdpMode.DRIVER))
    return program


def _engine(hook: Hook, undo: contextlib.ExitStack, wires: Wires, point: Point) -> Program:
    # As shared_engine() does (marchproxy_core/packet/shared.py); the namespace ends with the turn.
    _LOOPBACK_FORWARDING.write_text("1", encoding="ascii")
    tables = Tables.open(SETTINGS)
    undo.callback(tables.close)
    control = Control(tables, SETTINGS)
    undo.callback(control.close)
    left_out = control.demand(hook, services_of(wires, point)).left_out
    if left_out:
        raise TurnFailed(f"the engine does not take the service: {left_out[0].reason}")
    file, function = ("xdp.c", "mp_xdp") if hook is Hook.XDP else ("tc.c", "mp_tc_ingress")
    kind = ProgramType.XDP if hook is Hook.XDP else ProgramType.SCHED_CLS
    text = (SOURCES / file).read_text(encoding="ascii")
    code = compile_program(text, functions=[function], name=file, include_dirs=[SOURCES])
    program = undo.enter_context(
        Program.load(code[function], kind, maps=tables.maps, name=f"bench_{hook.name.lower()}")
    )
    if hook is Hook.XDP:
        undo.enter_context(Link.attach_xdp(program, wires.towards_client, XdpMode.DRIVER))
    else:
        undo.enter_context(Link.attach_tcx(program, wires.towards_client))
    return program


def services_of(wires: Wires, point: Point) -> ServiceTable:
    """Return the services of a point, each at a port of its own, all with one backend."""
    protocols: dict[Protocol, ServiceProtocol] = {"tcp": ServiceProtocol.TCP, "udp": ServiceProtocol.UDP}
    assignments = {}
    for port in range(FIRST_PORT, FIRST_PORT + point.services):
        backend = Backend(endpoint=Endpoint(wires.backend, port))
        service = Service(
            name=f"service-{port}",
            protocol=protocols[point.protocol],
            listen=(Endpoint(wires.front, port),),
            backends=(backend,),
        )
        assignments[service.name] = Assignment(
            service=service, role=Role.CHOSEN, backends=(BackendView(backend=backend),)
        )
    return ServiceTable(assignments, SETTINGS)


def _nft_missing() -> Gap | None:
    if shutil.which("nft") is not None:
        return None
    return Gap(peer="nftables", reason="nftables is not installed", fix="apt-get install nftables")


CARRIERS = (
    Carrier(
        name="nftables",
        title="nftables",
        forwards=True,
        is_program=False,
        first_packet_opens=False,
        put_up=in_proxy(_nftables),
        missing=_nft_missing,
    ),
    Carrier(name="tc", title="engine, TC", put_up=in_proxy(partial(_engine, Hook.TC))),
    Carrier(name="xdp", title="engine, XDP", put_up=in_proxy(partial(_engine, Hook.XDP))),
    Carrier(name="redirect", title="bare redirect", put_up=in_proxy(_redirect)),
)
