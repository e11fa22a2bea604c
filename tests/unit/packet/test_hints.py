"""Hints are guesses: they lead to no flow that has ended, and to none that has another key."""

from __future__ import annotations

import pytest

from marchproxy_core.packet import layout
from marchproxy_core.packet.plain import PlainEngine
from marchproxy_core.packet.reasons import Hook, Reason
from marchproxy_core.packet.tables import word
from marchproxy_core.testing.packets.frames import Flow
from marchproxy_core.testing.packets.running import keys_of
from marchproxy_core.testing.packets.world import BACKENDS, SERVICES, TCP, WORLD, entries


@pytest.fixture
def engine(plain_library):
    engine = PlainEngine(plain_library, flows=4, services=SERVICES, backends=BACKENDS, hook=Hook.TC)
    for table, key, value in entries(WORLD, Hook.TC):
        engine.put(table, key, value)
    engine.add_route()
    return engine


def flow_at(engine, place):
    raw = engine.find("FLOWS", word(place), layout.FLOW.size)
    assert raw is not None
    return layout.FLOW.unpack(raw)


def write(engine, place, **fields):
    engine.put("FLOWS", word(place), layout.FLOW.pack(**{**flow_at(engine, place), **fields}))


def remove_keys(engine, place):
    for key in keys_of(flow_at(engine, place)):
        assert engine.remove("KEYS", key)


@pytest.mark.parametrize("version", [4, 6])
def test_who_comes_back_after_his_flow_has_ended_opens_another(engine, version):
    flow = Flow(version=version, protocol=TCP)
    first = flow.from_client.frame(flow.segment("S"))
    for _ in range(3):
        assert engine.run(first).reason is Reason.FORWARDED
    write(engine, 0, ended=1)  # as user space ends it
    remove_keys(engine, 0)
    assert engine.run(first).reason is Reason.FORWARDED
    assert engine.count("KEYS") == 2
    assert flow_at(engine, 1)["client"] == flow_at(engine, 0)["client"]


@pytest.mark.parametrize(
    "change", [{"hooks": 0}, {"protocol": 0}, {"protocol": 17}, {"client_port": 1}, {"listen_port": 1}]
)
def test_a_hint_at_a_flow_that_is_another_by_now_leads_nowhere(engine, change):
    flow = Flow(version=4, protocol=TCP)
    engine.run(flow.from_client.frame(flow.segment("S")))
    established = flow.from_client.frame(flow.segment("A"))
    assert engine.run(established).reason is Reason.FORWARDED
    remove_keys(engine, 0)
    write(engine, 0, **change)
    assert engine.run(established).reason is Reason.NO_FLOW
