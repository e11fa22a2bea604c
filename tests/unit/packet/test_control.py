"""Services go into the kernel's tables and out, flows end in steps, a daemon goes on where one was killed."""

from __future__ import annotations

import time
from contextlib import contextmanager
from ipaddress import ip_address as ip
from ipaddress import ip_network

import attrs
import pytest
import structlog

from marchproxy_core.bpf import items
from marchproxy_core.config import Settings
from marchproxy_core.door import Door, Rule
from marchproxy_core.model import Assignment, BackendView, Role, ServiceTable
from marchproxy_core.packet import layout
from marchproxy_core.packet.control import Control
from marchproxy_core.packet.entries import number_in, service_key
from marchproxy_core.packet.flows import FlowBook, tick_of
from marchproxy_core.packet.network import NetworkFacts, Way
from marchproxy_core.packet.numbers import NoPlace
from marchproxy_core.packet.reasons import Hook, Reason
from marchproxy_core.packet.tables import Tables, flow_stride, word
from marchproxy_core.services import Backend, Endpoint, Protocol, Service

pytestmark = pytest.mark.root

SMALL = Settings(
    ebpf_conn_map_size=64, ebpf_service_map_size=3, ebpf_maps_size=64, nat_port_range=(2000, 2999)
)


def look(destinations):
    return NetworkFacts(
        addresses={ip("192.0.2.1"): 2},
        ways={each: Way(interface=3, source=ip("10.0.0.1")) for each in destinations},
        names={2: "front", 3: "back"},
    )


def service(name, port, *backends):
    return Service(
        name=name,
        listen=(Endpoint(ip("192.0.2.1"), port),),
        backends=tuple(Backend(endpoint=Endpoint.parse(one)) for one in backends),
    )


def table(*services, settings=SMALL, role=Role.CHOSEN):
    return ServiceTable(
        {
            one.name: Assignment(
                service=one, role=role, backends=tuple(BackendView(backend=each) for each in one.backends)
            )
            for one in services
        },
        settings,
    )


WEB = service("web", 80, "10.0.0.2:8080", "10.0.0.3:8080")
API = service("api", 81, "10.0.0.2:9090")


class Clock:
    """The time, when the test says that it passed."""

    def __init__(self):
        self.seconds = 0
        self.start_ns = time.monotonic_ns()

    def __call__(self):
        return self.start_ns + self.seconds * 1_000_000_000


@contextmanager
def control_of(tables, now_ns=time.monotonic_ns):
    control = Control(tables, SMALL, look=look, now_ns=now_ns)
    try:
        yield control
    finally:
        control.close()


@pytest.fixture
def tables():
    opened = Tables.open(SMALL)
    yield opened
    opened.close()


def entry(tables, one):
    raw = tables.services.lookup(service_key(one.listen[0].ip, one.listen[0].port, one.protocol))
    return layout.SERVICE.unpack(raw) if raw else None


def open_flow(tables, number, *, client_port=5000, expires=1 << 30, backend=0):
    """Do in the tables what the engine does when a flow begins, and return its place."""
    place = int.from_bytes(tables.free.pop(), "little")
    client, listen = layout.address_bytes(ip("198.51.100.7")), layout.address_bytes(ip("192.0.2.1"))
    source, server = layout.address_bytes(ip("10.0.0.1")), layout.address_bytes(ip("10.0.0.2"))
    ports = {"client_port": client_port, "listen_port": 80, "source_port": client_port, "backend_port": 8080}
    flow = layout.FLOW.pack(
        client=client,
        listen=listen,
        source=source,
        backend=server,
        **{name: layout.port_bytes(port) for name, port in ports.items()},
        service=number,
        backend_id=backend,
        expires=expires,
        protocol=6,
        hooks=Hook.TC.bit,
    )
    tables.flow_memory[place * flow_stride() : place * flow_stride() + len(flow)] = flow
    for side, ends in enumerate(((client, listen, client_port, 80), (server, source, 8080, client_port))):
        key = layout.FLOW_KEY.pack(
            source=ends[0],
            destination=ends[1],
            source_port=layout.port_bytes(ends[2]),
            destination_port=layout.port_bytes(ends[3]),
            protocol=6,
        )
        tables.keys.update(key, layout.FLOW_REF.pack(flow=place, side=side))
    return place


def keys(tables):
    return len(list(tables.keys.keys()))


def free(tables):
    """Count the places that are free."""
    taken = []
    while (place := tables.free.pop()) is not None:
        taken.append(place)
    for place in taken:
        tables.free.push(place)
    return len(taken)


def test_a_service_comes_with_all_that_it_points_to_and_goes_again(tables):
    with control_of(tables) as control:
        control.demand(Hook.TC, table(WEB, API))
        web = entry(tables, WEB)
        assert (web["hooks"], web["slots"]) == (Hook.TC.bit, 1021)
        backends = [value for _, value in items(tables.backends) if any(value)]
        assert {layout.address_of(value[:16]) for value in backends} == {ip("10.0.0.2"), ip("10.0.0.3")}
        control.demand(Hook.TC, table(API))
        assert entry(tables, WEB) is None
        assert entry(tables, API)["number"] != web["number"]
        control.demand(Hook.TC, None)
        assert list(tables.services.keys()) == []


def test_two_hooks_share_an_entry_and_the_one_that_leaves_takes_its_bit_along(tables):
    with control_of(tables) as control:
        control.demand(Hook.TC, table(WEB))
        control.demand(Hook.XDP, table(WEB))
        assert entry(tables, WEB)["hooks"] == Hook.TC.bit | Hook.XDP.bit
        control.demand(Hook.TC, None)
        assert entry(tables, WEB)["hooks"] == Hook.XDP.bit


def test_limits_of_the_service_go_before_those_of_the_settings(tables):
    settings = attrs.evolve(SMALL, service_max_connections=7, service_connection_rate=100.0)
    own = attrs.evolve(API, max_connections=5, connection_rate=10.0)
    with control_of(tables) as control:
        control.demand(Hook.TC, table(WEB, own, settings=settings))
        assert (entry(tables, WEB)["max_active"], entry(tables, WEB)["interval"]) == (7, 10_000_000)
        assert (entry(tables, own)["max_active"], entry(tables, own)["interval"]) == (5, 100_000_000)


def test_too_many_services_are_refused_by_the_setting_that_helps(tables):
    many = [service(f"s{at}", 100 + at, "10.0.0.2:80") for at in range(4)]
    with control_of(tables) as control, pytest.raises(NoPlace, match="EBPF_SERVICE_MAP_SIZE"):
        control.demand(Hook.TC, table(*many))


def test_an_idle_flow_ends_whole_and_its_place_is_free_a_sweep_later(tables):
    clock = Clock()
    with control_of(tables, clock) as control:
        control.demand(Hook.TC, table(WEB))
        number = entry(tables, WEB)["number"]
        open_flow(tables, number, expires=tick_of(time.monotonic_ns()) - 1)
        stays = open_flow(tables, number, client_port=5001)
        before = free(tables)
        fates = []
        for _ in range(2):
            clock.seconds += 1
            control.sweep()
            fates.append((keys(tables), free(tables) - before))
        assert fates == [(2, 0), (2, 1)]
        stats = control.stats(Hook.TC)["web"]
        assert (stats.connections_active, stats.drops) == (1, {"idle_timeout": 1})
        assert FlowBook(tables).live() == [stays]


def test_flows_of_a_service_that_is_gone_end_and_those_of_a_draining_one_stay(tables):
    with control_of(tables) as control:
        control.demand(Hook.TC, table(WEB, API))
        open_flow(tables, entry(tables, WEB)["number"])
        open_flow(tables, entry(tables, API)["number"], client_port=5001)
        draining = Assignment(service=API, role=Role.DRAINING, backends=())
        control.demand(Hook.TC, ServiceTable({"api": draining}, SMALL))
        assert keys(tables) == 2
        assert entry(tables, API) is None
        assert control.stats(Hook.TC)["api"].connections_active == 1


def flushing(one, endpoint):
    """Return the service with one of its backends flushed."""
    backends = [
        attrs.evolve(each, weight=0, flush=True) if str(each.endpoint) == endpoint else each
        for each in one.backends
    ]
    return attrs.evolve(one, backends=tuple(backends))


def backend_place(tables, address, port):
    begins = layout.address_bytes(ip(address)) + layout.port_bytes(port)
    (key,) = [key for key, value in items(tables.backends) if value.startswith(begins)]
    return int.from_bytes(key, "little")


def test_flows_of_a_flushed_backend_end_and_no_others(tables):
    twin = attrs.evolve(WEB, name="twin", listen=API.listen)
    with control_of(tables) as control:
        control.demand(Hook.TC, table(WEB, twin))
        web, other = entry(tables, WEB)["number"], entry(tables, twin)["number"]
        gone, kept = (backend_place(tables, address, 8080) for address in ("10.0.0.2", "10.0.0.3"))
        open_flow(tables, web, backend=gone)
        open_flow(tables, web, backend=kept, client_port=5001)
        open_flow(tables, other, backend=gone, client_port=5002)
        control.demand(Hook.TC, table(attrs.evolve(WEB, backends=WEB.backends[1:]), twin))
        assert keys(tables) == 6, "a backend that is taken out keeps its flows"
        control.demand(Hook.TC, table(flushing(WEB, "10.0.0.2:8080"), twin))
        assert keys(tables) == 4
        stats = control.stats(Hook.TC)
        assert (stats["web"].backend_active, stats["web"].drops) == ({"10.0.0.3:8080": 1}, {"flushed": 1})
        assert (stats["twin"].backend_active, stats["twin"].drops) == ({"10.0.0.2:8080": 1}, {})


def test_a_flow_that_was_about_to_open_when_its_backend_was_flushed_ends_with_the_next_sweep(tables):
    clock = Clock()
    with control_of(tables, clock) as control:
        control.demand(Hook.TC, table(API))
        number, place = entry(tables, API)["number"], backend_place(tables, "10.0.0.2", 9090)
        control.demand(Hook.TC, table(flushing(API, "10.0.0.2:9090")))
        assert entry(tables, API)["slots"] == 0
        open_flow(tables, number, backend=place)
        clock.seconds += 1
        control.sweep()
        assert (keys(tables), control.stats(Hook.TC)["api"].drops) == (0, {"flushed": 1})
        control.demand(Hook.TC, table(API))
        assert entry(tables, API)["slots"] > 0
        open_flow(tables, number, backend=place)
        clock.seconds += 1
        control.sweep()
        assert keys(tables) == 2


def test_the_next_daemon_keeps_numbers_flows_and_backends(tables):
    with control_of(tables) as killed:
        killed.demand(Hook.TC, table(WEB, API))
        before = {one.name: entry(tables, one)["number"] for one in (WEB, API)}
        open_flow(tables, before["api"])
    with control_of(tables) as control:
        control.demand(Hook.TC, table(API, WEB))
        assert {one.name: entry(tables, one)["number"] for one in (WEB, API)} == before
        assert control.stats(Hook.TC)["api"].connections_active == 1
        assert keys(tables) == 2


def test_what_a_killed_daemon_carried_waits_for_the_other_hook_and_goes_in_the_end(tables):
    with control_of(tables) as killed:
        killed.demand(Hook.TC, table(WEB, API))
        open_flow(tables, entry(tables, API)["number"])
    clock = Clock()
    with control_of(tables, clock) as control:
        control.demand(Hook.XDP, table(WEB))
        assert entry(tables, API) is not None
        clock.seconds += 6
        control.sweep()
        assert entry(tables, API) is None
        assert keys(tables) == 0


def test_a_flow_that_a_killed_daemon_had_begun_to_end_is_ended(tables):
    with control_of(tables) as control:
        control.demand(Hook.TC, table(WEB))
        place = open_flow(tables, entry(tables, WEB)["number"])
    ended = place * flow_stride() + layout.FLOW.offset("ended")
    tables.flow_memory[ended : ended + 1] = b"\1"
    book = FlowBook(tables)
    assert keys(tables) == 0
    before = free(tables)
    book.recycle()
    book.recycle()
    assert free(tables) == before + 1
    book.close()


def count(tables, number, hook, reason, packets):
    """Do what the engine does with packets that have this fate, on the first CPU."""
    at = word(2 * number + hook)
    columns = tables.counters.split(tables.counters.lookup(at))
    fields = dict(layout.COUNTERS.unpack(columns[0]))
    reasons = list(fields["reasons"])
    reasons[reason] += packets
    raw = bytearray(columns[0])
    begin = layout.COUNTERS.offset("reasons")
    raw[begin:] = b"".join(one.to_bytes(8, "little") for one in reasons)
    tables.counters.update(at, bytes(raw) + b"".join(bytes(one) for one in columns[1:]))


def test_packets_of_no_service_and_of_services_that_are_gone_are_counted_for_the_hook_that_saw_them(tables):
    with control_of(tables) as control:
        control.demand(Hook.TC, table(WEB))
        number = entry(tables, WEB)["number"]
        count(tables, 0, Hook.TC, Reason.NOT_OURS, 5)
        count(tables, number, Hook.TC, Reason.PACE, 3)
        count(tables, 0, Hook.XDP, Reason.BLOCKED, 9)
        assert control.packets_seen(Hook.TC) == {"not_ours": 5, "pace": 3}
        control.demand(Hook.TC, table(API))
        count(tables, entry(tables, API)["number"], Hook.TC, Reason.PACE, 1)
        assert control.packets_seen(Hook.TC) == {"not_ours": 5, "pace": 4}


def test_a_hook_that_comes_back_counts_from_nothing(tables):
    with control_of(tables) as control:
        control.demand(Hook.XDP, table(WEB))
        control.demand(Hook.TC, table(WEB))
        count(tables, entry(tables, WEB)["number"], Hook.TC, Reason.PACE, 3)
        control.demand(Hook.TC, None)
        control.demand(Hook.TC, table(WEB))
        assert control.packets_seen(Hook.TC) == {}
        assert control.stats(Hook.TC)["web"].drops == {}


BAD = Rule(prefix=ip_network("198.51.100.0/24"), door=Door.BLOCK)
BAD_FOR_WEB = attrs.evolve(BAD, service="web")


def guarded(*services, rules, settings=SMALL):
    return attrs.evolve(table(*services, settings=settings), door=rules)


def is_blocked(tables, number=0):
    key = layout.PREFIX_KEY.pack(bits=160, service=number, address=layout.address_bytes(ip("198.51.100.7")))
    return tables.prefixes.lookup(key) is not None


def test_rules_at_the_front_door_follow_the_table_and_the_service(tables):
    with control_of(tables) as control:
        control.demand(Hook.TC, guarded(WEB, API, rules=(BAD, BAD_FOR_WEB)))
        web, api = (entry(tables, one)["number"] for one in (WEB, API))
        assert [is_blocked(tables, number) for number in (0, web, api)] == [True, True, False]
        control.demand(Hook.TC, guarded(API, rules=(BAD_FOR_WEB,)))
        assert [is_blocked(tables, number) for number in (0, web, api)] == [False, False, False]


def test_a_rule_of_a_service_waits_with_it_for_the_hook_that_asks_for_it(tables):
    with control_of(tables) as killed:
        killed.demand(Hook.TC, guarded(WEB, API, rules=(BAD_FOR_WEB,)))
        web = entry(tables, WEB)["number"]
    clock = Clock()
    with control_of(tables, clock) as control:
        control.demand(Hook.XDP, guarded(API, rules=(BAD_FOR_WEB,)))
        assert is_blocked(tables, web)
        clock.seconds += 6
        control.sweep()
        assert not is_blocked(tables, web)


def test_the_sweep_tells_what_was_dropped_since_and_what_is_malformed_where_that_is(tables):
    sample = layout.SAMPLE.pack(hook=Hook.TC, reason=Reason.MALFORMED, protocol=6)
    settings = attrs.evolve(SMALL, door_drop_malformed=True)
    with control_of(tables) as control, structlog.testing.capture_logs() as lines:
        control.demand(Hook.TC, guarded(WEB, rules=(), settings=settings))
        count(tables, 0, Hook.TC, Reason.MALFORMED, 7)
        count(tables, 0, Hook.TC, Reason.NOT_OURS, 100)
        count(tables, entry(tables, WEB)["number"], Hook.TC, Reason.PACE, 2)
        tables.samples.push(sample)
        control.sweep()
    (line,) = [line for line in lines if line["event"] == "packets.dropped_lately"]
    assert line["dropped"] == {"malformed": 7, "pace": 2}


def test_an_unchanged_network_writes_nothing(tables):
    with control_of(tables) as control:
        control.demand(Hook.TC, table(WEB))
        raw = tables.services.lookup(service_key(ip("192.0.2.1"), 80, Protocol.TCP))
        picks = tables.picks.lookup(word(2 * number_in(raw)))
        control.rearrange()
        assert tables.picks.lookup(word(2 * number_in(raw))) == picks
