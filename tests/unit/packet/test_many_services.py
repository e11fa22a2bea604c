"""More services than are written at once."""

from __future__ import annotations

from ipaddress import ip_address as ip

import pytest

from marchproxy_core.bpf import items
from marchproxy_core.config import Settings
from marchproxy_core.model import Assignment, BackendView, Role, ServiceTable
from marchproxy_core.packet.control import Control
from marchproxy_core.packet.entries import number_in
from marchproxy_core.packet.network import NetworkFacts, Way
from marchproxy_core.packet.reasons import Hook
from marchproxy_core.packet.tables import Tables, word
from marchproxy_core.services import Backend, Endpoint, Service

pytestmark = pytest.mark.root

COUNT = 150
SETTINGS = Settings(
    ebpf_conn_map_size=64, ebpf_service_map_size=COUNT, ebpf_maps_size=256, nat_port_range=(2000, 2999)
)
FRONT = ip("192.0.2.1")


def look(destinations):
    ways = {each: Way(interface=3, source=ip("10.0.0.1")) for each in destinations}
    return NetworkFacts(addresses={FRONT: 2}, ways=ways, names={2: "front", 3: "back"})


def service(port):
    backend = Backend(endpoint=Endpoint(ip("10.0.0.2"), port))
    return Service(name=f"service-{port}", listen=(Endpoint(FRONT, port),), backends=(backend,))


def table(services):
    return ServiceTable(
        {
            one.name: Assignment(
                service=one, role=Role.CHOSEN, backends=(BackendView(backend=one.backends[0]),)
            )
            for one in services
        },
        SETTINGS,
    )


def test_each_of_many_services_has_a_number_and_slots_of_its_own():
    services = [service(1000 + place) for place in range(COUNT)]
    tables = Tables.open(SETTINGS)
    control = Control(tables, SETTINGS, look=look)
    try:
        control.demand(Hook.TC, table(services))

        numbers = {number_in(entry) for _, entry in items(tables.services)}
        slots = {tables.picks.lookup(word(2 * number)) for number in numbers}
        assert len(numbers) == len(slots) == COUNT
        assert None not in slots
    finally:
        control.close()
        tables.close()
