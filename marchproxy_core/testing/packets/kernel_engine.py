"""The XDP and TC builds, as the packet table drives them: real programs, maps and routes, run by BPF_PROG_TEST_RUN."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, final

from marchproxy_core.bpf import (
    XDP_HAS_FRAGS,
    Map,
    Program,
    ProgramType,
    compile_program,
    possible_cpus,
    read_batches,
    run_program,
    xdp_context,
)
from marchproxy_core.config import Settings
from marchproxy_core.packet import layout
from marchproxy_core.packet.layout import SOURCES
from marchproxy_core.packet.reasons import Hook, Reason, Verdict
from marchproxy_core.packet.tables import Tables, flow_stride, picks_spec, word
from marchproxy_core.testing.lab import naming
from marchproxy_core.testing.packets.engine import CounterBook, FlowFields, Refused, Result, flows_in_use
from marchproxy_core.testing.packets.places import FRONT, Interface
from marchproxy_core.testing.packets.row import Build
from marchproxy_core.testing.packets.world import BACKENDS, FLOWS, SERVICES, World, entries

if TYPE_CHECKING:
    from collections.abc import Mapping

    from marchproxy_core.testing.packets.ground import Ground

_XDP_VERDICTS = {1: Verdict.DROP, 2: Verdict.PASS, 3: Verdict.FORWARD, 4: Verdict.FORWARD}
_XDP_TX = 3
_SENDS_BACK = frozenset({Build.XDP, Build.XDP_GENERIC})
"""Those that use XDP_TX; on veth, where others run, it wakes nobody."""
_TC_VERDICTS = {0xFFFFFFFF: Verdict.PASS, 2: Verdict.DROP, 7: Verdict.FORWARD}
_MACROS = {
    Build.XDP_PARTIAL: ("MP_PARTIAL",),
    Build.XDP_PIECES: ("MP_PARTIAL", "MP_FRAGS"),
    Build.XDP_GENERIC: ("MP_PARTIAL", "MP_GENERIC"),
}
_ANSWERED = frozenset({Reason.TTL_EXPIRED, Reason.TOO_BIG})
"""Reasons of packets that are sent back as ICMP errors; the program returns the same for all that it sends."""
MOST_SLOTS = 64
"""Picks that a service may have here."""
_LEAST_BYTES = {0x0800: 14 + 20, 0x86DD: 14 + 40}
_ETHERNET_BYTES = 14
_GSO_SIZE = 176
"""Offset in ``struct __sk_buff`` (uapi/linux/bpf.h)."""
_SKB_BYTES = 192
_IFINDEX = 40


@final
class KernelTableEngine:
    """One program and its tables; close it."""

    def __init__(self, ground: Ground, build: Build) -> None:
        """Compile and load.

        Args:
            ground: Where it is run; stays open for as long.
            build: One of the kernel's.

        Raises:
            TierUnavailable: bcc or the kernel's headers are missing.
            ProgramRefused, BpfError: The kernel does not take it.
        """
        self.build = build
        self._ground = ground
        with contextlib.ExitStack() as undo:
            self._tables = Tables.open(
                Settings(
                    ebpf_conn_map_size=FLOWS,
                    ebpf_service_map_size=SERVICES - 1,
                    ebpf_stats_map_size=SERVICES - 1,
                    ebpf_maps_size=BACKENDS,
                )
            )
            undo.callback(self._tables.close)
            self._program = undo.enter_context(contextlib.closing(load_build(build, self._tables)))
            # Made once: the kernel waits for all programs after each change of a map of maps
            # (maybe_wait_bpf_programs()).
            self._picks = []
            for number in range(SERVICES):
                picks = undo.enter_context(contextlib.closing(Map.create(picks_spec(MOST_SLOTS))))
                self._tables.picks.update(word(number), word(picks.fd))
                self._picks.append(picks)
            self._undo = undo.pop_all()
        names = sorted(_TABLE_NUMBERS, key=lambda name: _TABLE_NUMBERS[name])
        self._maps: Mapping[str, Map] = dict(zip(names, self._tables.maps, strict=True))
        self._book = CounterBook(self, possible_cpus())

    def close(self) -> None:
        """Close program and tables."""
        self._undo.close()

    def begin(self, world: World) -> None:
        """Empty all tables but the counters, and fill them."""
        for table in (self._tables.keys, self._tables.services, self._tables.prefixes, self._tables.paces):
            for key in tuple(table.keys()):
                table.delete(key)
        for queue in (self._tables.free, self._tables.samples):
            while queue.pop() is not None:
                pass
        for memory in (self._tables.flow_memory, self._tables.load_memory):
            memory[:] = bytes(len(memory))
        for place in range(BACKENDS):
            self._tables.backends.update(word(place), bytes(layout.BACKEND.size))
        for place in range(world.flows):
            self._tables.free.push(word(place))
        self.rearrange(world)

    def rearrange(self, world: World) -> None:
        """Write services, backends and settings."""
        for table, key, value in entries(world, self.build.hook):
            if table == "PICKS":
                self._picks[int.from_bytes(key[:4], "little")].update(key[4:], value)
            else:
                self._maps[table].update(key, value)

    def run(self, frame: bytes, *, via: Interface = FRONT, gso_size: int = 0) -> Result:
        """Give it a frame."""
        if _is_refused(frame, self.build.hook):
            raise Refused(f"{len(frame)} bytes")
        index = self._ground.index(via)
        if self.build is Build.TC:
            context = _skb_context(index, gso_size)
        else:
            assert not gso_size, "only TC has packets that stand for several"
            context = xdp_context(len(frame), interface=index)
        run = naming.within(self._ground.path, lambda: run_program(self._program, frame, ctx_in=context))
        service, reason = self._book.told()
        verdicts = _TC_VERDICTS if self.build is Build.TC else _XDP_VERDICTS
        verdict = verdicts[run.retval]
        if verdict is Verdict.FORWARD and reason in _ANSWERED:
            verdict = Verdict.REPLY
        if verdict is Verdict.FORWARD and self.build in _SENDS_BACK:
            goes_back = run.data_out[6:12] == via.mac
            assert (run.retval == _XDP_TX) == goes_back, "only what goes back where it came from is XDP_TX"
        return Result(verdict=verdict, reason=reason, service=service, frame=run.data_out)

    def pass_time(self, by_ns: int) -> None:
        """Fail: nobody moves the kernel's clock."""
        raise NotImplementedError(f"the kernel's clock cannot be moved by {by_ns} ns")

    def tick(self) -> int:
        """Return the present tick."""
        return time.clock_gettime_ns(6) >> 30  # CLOCK_MONOTONIC_COARSE, as the engine has it

    def mark(self, fields: FlowFields) -> None:
        """Write fields of all flows in use."""
        for place, known in flows_in_use(self, FLOWS).items():
            raw = layout.FLOW.pack(**{**known, **fields})
            self._tables.flow_memory[place * flow_stride() : place * flow_stride() + len(raw)] = raw

    def find(self, table: str, key: bytes) -> bytes | None:
        """Return an entry."""
        if table == "FLOWS":
            at = int.from_bytes(key, "little") * flow_stride()
            return self._tables.flow_memory[at : at + layout.FLOW.size]
        return self._maps[table].lookup(key)

    def counters(self) -> bytes:
        """Return the table of counters."""
        return next(read_batches(self._tables.counters)).values

    def told(self) -> bytes | None:
        """Return the last sample; the queue is empty afterwards."""
        last = None
        while (sample := self._tables.samples.pop()) is not None:
            last = sample
        return last

    def count(self, table: str) -> int:
        """Return how many entries KEYS or FREE has."""
        if table == "KEYS":
            return len(list(self._tables.keys.keys()))
        # A queue does not tell its length: it is emptied, and filled in the same order.
        places = []
        while (place := self._tables.free.pop()) is not None:
            places.append(place)
        for place in places:
            self._tables.free.push(place)
        return len(places)


_TABLE_NUMBERS = {name: number for name, number in layout.enumeration("mp_table").items() if name != "TABLES"}


def load_build(build: Build, tables: Tables) -> Program:
    """Compile and load one of the kernel's builds on these tables; the caller closes it.

    Raises:
        TierUnavailable: bcc or the kernel's headers are missing.
        ProgramRefused, BpfError: The kernel does not take it.
    """
    name, function, kind = (
        ("tc.c", "mp_tc_ingress", ProgramType.SCHED_CLS)
        if build is Build.TC
        else ("xdp.c", "mp_xdp", ProgramType.XDP)
    )
    code = compile_program(
        (SOURCES / name).read_text(encoding="ascii"),
        functions=[function],
        name=name,
        include_dirs=[SOURCES],
        defines=dict.fromkeys(_MACROS.get(build, ()), 1),
    )
    return Program.load(
        code[function],
        kind,
        maps=tables.maps,
        name="packet_table",
        flags=XDP_HAS_FRAGS if build is Build.XDP_PIECES else 0,
    )


def _is_refused(frame: bytes, hook: Hook) -> bool:
    """Whether BPF_PROG_TEST_RUN answers EINVAL (net/bpf/test_run.c).

    bpf_test_init() wants an Ethernet header of both kinds of programs; bpf_prog_test_run_skb() also wants the whole
    header of what says that it is IPv4 or IPv6 (seen on 6.18; older ones let it through).
    """
    kind = int.from_bytes(frame[12:14])
    return len(frame) < (_LEAST_BYTES.get(kind, _ETHERNET_BYTES) if hook is Hook.TC else _ETHERNET_BYTES)


def _skb_context(index: int, gso_size: int) -> bytes:
    context = bytearray(_SKB_BYTES)
    context[_IFINDEX : _IFINDEX + 4] = word(index)
    context[_GSO_SIZE : _GSO_SIZE + 4] = word(gso_size)
    return bytes(context)
