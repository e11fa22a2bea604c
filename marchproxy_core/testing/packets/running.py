"""Runs rows of the packet table on one build, and checks what must hold whatever came in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from marchproxy_core.packet import layout
from marchproxy_core.packet.reasons import Verdict
from marchproxy_core.packet.tables import word
from marchproxy_core.testing.packets.engine import Engine, FlowFields, Result, Totals, flows_in_use, totals
from marchproxy_core.testing.packets.places import BACK
from marchproxy_core.testing.packets.row import PLAIN, Change, Later, Marked, Rearranged, Row, Seen, Step

if TYPE_CHECKING:
    from marchproxy_core.packet.layout import Value

ETHERNET_BYTES = 14


class Mismatch(AssertionError):
    """A build did something else than the table says."""


def run_row(engine: Engine, row: Row) -> None:
    """Run all steps of a row.

    Raises:
        Mismatch: Something else came out than the row says, or the tables do not add up; the message names the row and
            the step.
    """
    engine.begin(row.world)
    began = engine.tick()
    for number, step in enumerate(row.steps, start=1):
        where = f"{engine.build.value} build: {row.says}: step {number} of {len(row.steps)}"
        for change in step.changes:
            apply(engine, change)
        # The kernel's clock runs on from step to step, and not every packet lengthens a flow's life.
        first = engine.tick() if engine.build in PLAIN else began
        before = totals(engine)
        result = engine.run(step.frame, via=step.via, gso_size=step.gso_size)
        _compare(where, step, result)
        _check_told(where, engine, step)
        _check_counters(where, step, before, totals(engine))
        if row.sound:
            check_sound(engine, row.world.flows, where)
        if step.seen is not None:
            _check_seen(engine, row.world.flows, step.seen, (first, engine.tick()), where)
        _check_loads(engine, step, where)


def apply(engine: Engine, change: Change) -> None:
    """Let happen what is not a packet."""
    match change:
        case Later(by_ns):
            engine.pass_time(by_ns)
        case Rearranged(world):
            engine.rearrange(world)
        case Marked(fields):
            engine.mark(fields)


def check_sound(engine: Engine, places: int, where: str) -> None:
    """Check that no flow is half: each place is free or in use, and each flow in use has its two keys and no more.

    Raises:
        Mismatch: One is.
    """
    flows = flows_in_use(engine, places)
    free, keys = engine.count("FREE"), engine.count("KEYS")
    if free + len(flows) != places or keys != 2 * len(flows):
        raise Mismatch(
            f"{where}: {len(flows)} flows, {keys} keys and {free} of {places} places free do not add up"
        )
    for place, flow in flows.items():
        for side, key in enumerate(keys_of(flow)):
            if engine.find("KEYS", key) != layout.FLOW_REF.pack(flow=place, side=side):
                raise Mismatch(f"{where}: the key of side {side} does not lead to flow {place}")


def keys_of(flow: FlowFields) -> tuple[bytes, bytes]:
    """Return the keys of a flow's packets: the client's, the backend's."""

    def key(source: str, destination: str) -> bytes:
        ports: dict[str, Value] = {
            "source_port": flow[f"{source}_port"],
            "destination_port": flow[f"{destination}_port"],
        }
        return layout.FLOW_KEY.pack(
            source=flow[source], destination=flow[destination], protocol=flow["protocol"], **ports
        )

    return key("client", "listen"), key("backend", "source")


def _compare(where: str, step: Step, result: Result) -> None:
    if (result.verdict, result.reason) != (step.verdict, step.reason):
        raise Mismatch(
            f"{where}: want {step.verdict.name} {step.reason.name}, "
            f"have {result.verdict.name} {result.reason.name}"
        )
    if step.service is not None and result.service != step.service:
        raise Mismatch(f"{where}: want it counted for service {step.service}, have {result.service}")
    wanted = step.outs or (step.frame,)
    if result.frame not in wanted:
        raise Mismatch(f"{where}: the frame that comes out\n{differences(wanted, result.frame)}")


def differences(wanted: Iterable[bytes], have: bytes) -> str:
    """Say where a frame differs from each that would do."""
    lines = [f"have {len(have):4} bytes {have.hex()}"]
    for want in wanted:
        pairs = zip(want, have, strict=False)
        at = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(want), len(have)))
        lines.append(f"want {len(want):4} bytes {want.hex()}, first other one at {at}")
    return "\n".join(lines)


def _check_seen(engine: Engine, places: int, seen: Seen, ticks: tuple[int, int], where: str) -> None:
    flows = flows_in_use(engine, places)
    if len(flows) != 1:
        raise Mismatch(f"{where}: want one flow, have {len(flows)}")
    (flow,) = flows.values()
    if flow["seen"] != (seen.client, seen.backend):
        raise Mismatch(f"{where}: want seen {(seen.client, seen.backend)}, have {flow['seen']!r}")
    expires = flow["expires"]
    assert isinstance(expires, int)
    if not ticks[0] <= expires - seen.ticks <= ticks[1]:
        raise Mismatch(f"{where}: want {seen.ticks} ticks until it expires, have {expires - ticks[0]}")


def _check_told(where: str, engine: Engine, step: Step) -> None:
    """Check that a drop is told of, and nothing else; rows leave the time between samples at none."""
    raw = engine.told()
    if (raw is not None) != (step.verdict is Verdict.DROP):
        raise Mismatch(f"{where}: {step.verdict.name}, and {'a' if raw else 'no'} sample of a drop")
    if raw is None:
        return
    sample = layout.SAMPLE.unpack(raw)
    if (sample["reason"], sample["hook"]) != (step.reason, engine.build.hook):
        raise Mismatch(f"{where}: the sample says {sample}")


def _check_counters(where: str, step: Step, before: Totals, now: Totals) -> None:
    """Check what was counted of a frame that was forwarded, or of one that was not."""
    forwarded = step.verdict is Verdict.FORWARD
    packets = tuple(after - then for after, then in zip(now.packets, before.packets, strict=True))
    size = tuple(after - then for after, then in zip(now.bytes, before.bytes, strict=True))
    wanted = [(1, 0), (0, 1)] if forwarded else [(0, 0)]
    if step.via is BACK:
        wanted = wanted[-1:]
    if packets not in wanted or sum(size) != _ip_bytes(step.frame) * forwarded:
        raise Mismatch(f"{where}: counted {packets} packets and {size} bytes, by side")
    if any(count and not one for count, one in zip(size, packets, strict=True)):
        raise Mismatch(f"{where}: the bytes of a packet were counted for the other side")
    if now.opened - before.opened != now.charged - before.charged:
        raise Mismatch(f"{where}: an opened flow is in the counters or in the limits, and should be in both")


def _ip_bytes(frame: bytes) -> int:
    """Return the length that an IP packet says it has; one that says 0 has the frame's."""
    if frame[12:14] == b"\x08\x00":
        return int.from_bytes(frame[16:18]) or len(frame) - ETHERNET_BYTES
    payload = int.from_bytes(frame[18:20])
    return 40 + payload if payload else len(frame) - ETHERNET_BYTES


def _check_loads(engine: Engine, step: Step, where: str) -> None:
    for number, wanted in step.loads.items():
        raw = engine.find("LOADS", word(number))
        assert raw is not None  # an array has every place
        load = layout.LOAD.unpack(raw)
        have = {field: load[field] for field in wanted}
        if have != dict(wanted):
            raise Mismatch(f"{where}: of service {number} want {dict(wanted)}, have {have}")
