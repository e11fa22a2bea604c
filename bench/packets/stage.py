"""One turn: a laboratory with generator, carrier and sink, flows open, and counting.

All is on one CPU, where generator and carrier take turns, at most a ring each. The interface that packets come in by is
polled by a thread of its own (threaded NAPI, since Linux 5.12), which does all that happens to a packet between the two
veth pairs. Only what it runs counts: not the generator, and not what else is on that CPU. It goes before everybody who
is not real-time. The sink counts in the soft interrupt that this thread's sending raises, so what the sink does is
counted too. The generator raises none: what it sends only wakes the thread.

With a CPU for each, what is measured would be mostly the lock around the frames that go back to the generator
(page_pool_put_unrefed_netmem(), net/core/page_pool.c) and cache lines that travel; a NIC has neither.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

from bench.packets import generate, host, programs, traffic
from bench.packets.carriers import Carrier, Site, Wires
from bench.packets.samples import Moment, Sample, Totals
from bench.packets.traffic import Ends, Point
from bench.starting import TurnFailed, flat, pinned
from marchproxy_core.bpf import (
    LIVE_FRAMES,
    Link,
    Map,
    MapSpec,
    MapType,
    Program,
    XdpMode,
    count_run_time,
    run_program,
)
from marchproxy_core.errors import MarchProxyError
from marchproxy_core.testing import Lab, open_lab, until

RING = 256
"""Frames that a veth holds (VETH_RING_SIZE, drivers/net/veth.c), and the most that the generator sends at once."""
_OPENING_BATCH = 64
_SETTLE_S = 0.3
_PASSES = 6
_PLAN = MapSpec(name="plan", type=MapType.ARRAY, value_size=traffic.PLAN_BYTES, max_entries=1)


@attrs.frozen(kw_only=True, eq=False)
class Generator:
    """The generator's program with what it reads and counts."""

    program: Program
    plan: Map
    count: Map
    ends: Ends
    cpu: int


@attrs.frozen(kw_only=True, eq=False)
class Stage:
    """One turn while it stands; made by :func:`set_up`."""

    lab: Lab
    point: Point
    generator: Generator
    carrier_program: Program | None
    received: Callable[[], int]
    """Counts the packets that came through, or were dropped."""
    threads: tuple[int, int]
    """The poller, and its CPU's ksoftirqd, which takes over when soft interrupts go on for long."""

    async def measure(self, seconds: float, *, profile: bool = False) -> Sample:
        """Send as fast as possible, and count for a while.

        Args:
            seconds: How long.
            profile: Whether the kernel times programs meanwhile.

        Raises:
            TurnFailed: The generator ended by itself, or somebody else had programs timed.
        """
        one = self.generator
        await trio.to_thread.run_sync(one.plan.update, bytes(4), traffic.plan(self.point, one.ends))
        before = await self._totals()
        process = await self.lab.client.start(
            pinned(self._generator_argv(), frozenset({one.cpu})), stderr=subprocess.PIPE
        )

        async def sends() -> bool:
            if process.poll() is not None:
                raise TurnFailed(f"the generator ended with {process.returncode}")
            return programs.packets(one.count) > before.offered

        await until(sends, what="the generator")
        with contextlib.ExitStack() as undo:
            if profile:
                undo.enter_context(await trio.to_thread.run_sync(count_run_time))
            await trio.sleep(_SETTLE_S)
            first = self._look()
            await trio.sleep(seconds)
            last = self._look()
        if process.poll() is not None:
            raise TurnFailed(f"the generator ended with {process.returncode} while it was needed")
        process.kill()
        await process.wait()
        vanished = (await self._totals()).vanished_since(before)
        if not profile and last.program_runs > first.program_runs:
            raise TurnFailed("somebody had the kernel time programs meanwhile (kernel.bpf_stats_enabled)")
        return Sample.between(first, last, vanished=vanished)

    async def _totals(self) -> Totals:
        """Count what is under way nowhere; called while nothing is sent."""
        found_full = await self.lab.client.call(host.not_sent, "to_proxy")
        return Totals(
            offered=programs.packets(self.generator.count), found_full=found_full, received=self.received()
        )

    def _generator_argv(self) -> list[str]:
        """Return its command line."""
        one = self.generator
        frame = _frame(self.point, one).hex()
        return [sys.executable, generate.__file__, str(one.program.info().id), frame, str(RING)]

    def _look(self) -> Moment:
        core_ns = sum(map(host.run_time, self.threads))
        info = self.carrier_program.info() if self.carrier_program is not None else None
        return Moment(
            at_s=time.monotonic(),
            offered=programs.packets(self.generator.count),
            received=self.received(),
            core_ns=core_ns,
            program_ns=info.run_time_ns if info is not None else 0,
            program_runs=info.run_count if info is not None else 0,
        )


@asynccontextmanager
async def set_up(carrier: Carrier, point: Point, *, cpu: int) -> AsyncIterator[Stage]:
    """Make a laboratory in which the carrier stands and all flows of the point are open; all is gone on return.

    Args:
        carrier: What is measured.
        point: What is to be under way.
        cpu: For the generator, and for all that happens to a packet until it is in the sink or dropped.

    Raises:
        TurnFailed: Something did not come up, or flows could not be opened.
    """
    with tempfile.TemporaryDirectory(prefix="marchproxy-bench-") as name:
        try:
            async with open_lab(forwarding=carrier.forwards) as lab:
                with contextlib.ExitStack() as undo:
                    wires, ends = await _wire_up(lab)
                    site = Site(
                        sink=await _sink(lab, undo),
                        lab=lab,
                        wires=wires,
                        point=point,
                        directory=Path(name),
                        cpus=frozenset(os.sched_getaffinity(0)) - {cpu} or frozenset({cpu}),
                    )
                    generator = await trio.to_thread.run_sync(_generator, undo, ends, cpu)
                    yield await _stage(carrier, undo, site, generator)
        except* (MarchProxyError, OSError, TimeoutError) as failed:
            raise TurnFailed("; ".join(flat(failed))) from failed


async def _stage(carrier: Carrier, undo: contextlib.ExitStack, site: Site, generator: Generator) -> Stage:
    """Put the carrier up, and open the flows if it sends any on."""
    lab = site.lab
    standing = await carrier.put_up(undo, site)
    threads = (await host.pin_poller(lab.proxy, generator.cpu), host.softirq_thread(generator.cpu))
    if not carrier.drops:
        await _open_flows(site, generator, opens=carrier.first_packet_opens)
    return Stage(
        lab=lab,
        point=site.point,
        generator=generator,
        carrier_program=standing.program,
        received=standing.received,
        threads=threads,
    )


async def _sink(lab: Lab, undo: contextlib.ExitStack) -> Map:
    """Have what reaches the server counted and dropped."""
    sink = undo.enter_context(Map.create(programs.COUNT))
    drop = undo.enter_context(programs.load("count_and_drop", [sink]))
    server_end = await lab.server.call(host.index, "to_proxy")
    undo.enter_context(await lab.server.call(Link.attach_xdp, drop, server_end, XdpMode.DRIVER))
    return sink


async def _wire_up(lab: Lab) -> tuple[Wires, Ends]:
    """Make neighbours known for good, since the sink answers nobody who asks for them, and interfaces receive."""
    client_mac = await lab.client.call(host.mac, "to_proxy")
    server_mac = await lab.server.call(host.mac, "to_proxy")
    await lab.proxy.call(host.know, "to_client", str(lab.client_ip.ip4), client_mac)
    await lab.proxy.call(host.know, "to_server", str(lab.server_ip.ip4), server_mac)
    # A veth receives redirected frames only with NAPI, which XDP or GRO brings (drivers/net/veth.c). The client
    # gets none here, but MarchProxy attaches no XDP program where answers would be lost.
    await lab.proxy.run(["ethtool", "-K", "to_client", "gro", "on"])
    await lab.client.run(["ethtool", "-K", "to_proxy", "gro", "on"])
    wires = Wires(
        towards_client=await lab.proxy.call(host.index, "to_client"),
        towards_server=await lab.proxy.call(host.index, "to_server"),
        front=lab.front_ip.ip4,
        backend=lab.server_ip.ip4,
    )
    ends = Ends(
        source=lab.client_ip.ip4,
        destination=lab.front_ip.ip4,
        source_mac=bytes.fromhex(client_mac.replace(":", "")),
        destination_mac=bytes.fromhex((await lab.proxy.call(host.mac, "to_client")).replace(":", "")),
        interface=await lab.client.call(host.index, "to_proxy"),
    )
    return wires, ends


def _generator(undo: contextlib.ExitStack, ends: Ends, cpu: int) -> Generator:
    plan = undo.enter_context(Map.create(_PLAN))
    count = undo.enter_context(Map.create(programs.COUNT))
    program = undo.enter_context(programs.load("generate", [plan, count]))
    return Generator(program=program, plan=plan, count=count, ends=ends, cpu=cpu)


async def _open_flows(site: Site, generator: Generator, *, opens: bool) -> None:
    """Send one packet of each flow, slowly enough that none is lost.

    Raises:
        TurnFailed: In no pass all of them came through.
    """
    point, sink = site.point, site.sink
    missing = point.flows
    for each in range(_PASSES):
        pace = min(traffic.PRIMING_PACE * 4**each, traffic.SLOWEST_PACE)
        plan = traffic.plan(point, generator.ends, opens=opens, pace=pace)
        wanted = programs.packets(sink) + point.flows
        await site.lab.client.call(_send, generator, plan, _frame(point, generator), point.flows * pace)
        with trio.move_on_after(_SETTLE_S):
            await until(partial(_has_counted, sink, wanted), what="the last packet")
        missing = wanted - programs.packets(sink)
        if missing <= 0:
            return
    raise TurnFailed(f"of the first packets of {point.flows:,} flows {missing:,} did not come through")


def _has_counted(count: Map, wanted: int) -> bool:
    return programs.packets(count) >= wanted


def _frame(point: Point, generator: Generator) -> bytes:
    return traffic.template(point.protocol, generator.ends)


def _send(generator: Generator, plan: bytes, frame: bytes, runs: int) -> None:
    generator.plan.update(bytes(4), plan)
    with _on_cpu(generator.cpu):
        run_program(generator.program, frame, repeat=runs, flags=LIVE_FRAMES, batch_size=_OPENING_BATCH)


@contextlib.contextmanager
def _on_cpu(cpu: int) -> Iterator[None]:
    """Have the calling thread on one CPU: the generator counts the flows that it opens on each CPU apart."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
