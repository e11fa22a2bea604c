"""What the engine's C and Python must have alike."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marchproxy_core.backends.maglev import maglev_slot
from marchproxy_core.packet import layout, reasons
from marchproxy_core.testing.packets.engine import flows_in_use
from marchproxy_core.testing.packets.frames import Flow
from marchproxy_core.testing.packets.places import SOURCE
from marchproxy_core.testing.packets.row import Build
from marchproxy_core.testing.packets.world import TCP, Backend, Service, World

ADDRESSES = {4: st.ip_addresses(v=4), 6: st.ip_addresses(v=6)}
BACKENDS = 60


@pytest.mark.parametrize(
    ("name", "members", "end"),
    [
        ("mp_reason", reasons.Reason, "REASONS"),
        ("mp_verdict", reasons.Verdict, None),
        ("mp_hook", {f"HOOK_{hook.name}": hook for hook in reasons.Hook}, None),
    ],
)
def test_enumerations_are_those_of_the_header(name, members, end):
    in_c = dict(layout.enumeration(name))
    if end:
        assert in_c.pop(end) == len(members)
    assert in_c == {key: int(value) for key, value in dict(getattr(members, "__members__", members)).items()}


def test_no_macro_hides_an_enumerator():
    """A macro with an enumerator's name would stand for another number behind its definition."""
    text = "\n".join(path.read_text(encoding="ascii") for path in sorted(layout.SOURCES.glob("*.[ch]")))
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    macros = set(re.findall(r"#define (\w+)", text))
    enumerators = Counter(
        name
        for body in re.findall(r"enum[^{;()]*\{([^}]*)\}", text)
        for name in re.findall(r"\bMP_\w+", body)
    )
    assert "MP_BLOCK" in enumerators
    assert not macros & enumerators.keys()


@pytest.mark.parametrize("version", [4, 6])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_client_is_given_the_backend_of_his_maglev_slot(engine_of, version, data):
    client = data.draw(ADDRESSES[version])
    slots = data.draw(st.sampled_from((1, 2, 61, 251, 1009)))
    port = data.draw(st.integers(1, 65535))
    (flow,) = _opened(engine_of(Build.PLAIN), version, client, slots, port)
    assert flow["backend_id"] == 1 + maglev_slot(client.packed, slots) % BACKENDS


def test_the_port_counts_where_the_address_alone_does_not_pick(engine_of):
    engine = engine_of(Build.PLAIN)
    client = ipaddress.IPv4Address("192.0.2.7")
    picked = {
        _opened(engine, 4, client, 251, port, by_address=False)[0]["backend_id"] for port in range(1, 60)
    }
    assert len(picked) > 20


def _opened(engine, version, client, slots, port, *, by_address=True):
    """Return the flows after one client's first packet to a service with so many slots."""
    flow = Flow(version=version, protocol=TCP, client_port=port)
    source = SOURCE.of(version)
    service = Service(
        address=flow.listen.of(version),
        port=flow.listen_port,
        protocol=TCP,
        picks=tuple(1 + slot % BACKENDS for slot in range(slots)),
        by_address=by_address,
    )
    backends = tuple(
        Backend(address=flow.backend.of(version), port=1000 + number, sources=(source,))
        for number in range(BACKENDS)
    )
    engine.begin(World(services=(service,), backends=backends))
    leg = attrs.evolve(flow.from_client, source=client)
    engine.run(leg.frame(flow.segment("S")))
    return tuple(flows_in_use(engine, 64).values())


def test_what_is_unpacked_can_be_packed_again():
    raw = bytes(at & 255 for at in range(layout.FLOW.size))
    fields = layout.FLOW.unpack(raw)
    assert all(isinstance(value, int | bytes | tuple) for value in fields.values())
    assert all(
        isinstance(each, int) for value in fields.values() if isinstance(value, tuple) for each in value
    )
    assert layout.FLOW.pack(**fields) == raw
