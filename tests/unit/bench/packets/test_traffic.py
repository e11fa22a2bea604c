"""Frames that the generator sends, with scapy as the oracle."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether

from bench.packets import traffic
from bench.packets.traffic import POINTS, Ends, Point

ENDS = Ends(
    source=IPv4Address("198.18.0.2"),
    destination=IPv4Address("198.18.0.1"),
    source_mac=bytes.fromhex("020000000002"),
    destination_mac=bytes.fromhex("020000000001"),
    interface=7,
)


@pytest.mark.parametrize(
    ("protocol", "opens", "layer", "flags"),
    [("udp", False, UDP, None), ("tcp", True, TCP, "S"), ("tcp", False, TCP, "A")],
)
def test_a_frame_is_what_scapy_takes_it_for(protocol, opens, layer, flags):
    frame = Ether(traffic.template(protocol, ENDS, opens=opens))

    assert (frame.src, frame.dst) == ("02:00:00:00:00:02", "02:00:00:00:00:01")
    assert (frame[IP].src, frame[IP].dst, frame[IP].ttl) == ("198.18.0.2", "198.18.0.1", 64)
    assert frame[IP].chksum == IP(bytes(_without_checksum(frame[IP]))).chksum
    assert len(bytes(frame)) == 60
    assert flags is None or frame[layer].flags == flags


def _without_checksum(packet):
    copy = packet.copy()
    del copy.chksum
    return copy


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_the_plans_sum_and_the_source_and_the_ports_make_the_transport_checksum(protocol):
    point = Point(protocol, 1, 1)
    plan = traffic.plan(point, ENDS)
    template, total, at = (
        plan[:56],
        int.from_bytes(plan[56:60], "little"),
        int.from_bytes(plan[60:64], "little"),
    )
    frame = bytearray(template.ljust(60, b"\0"))
    frame[34:38] = (2000).to_bytes(2) + (1000).to_bytes(2)
    total += 0xC612 + 0x0002 + 2000 + 1000
    frame[at : at + 2] = (0xFFFF ^ (total % 0xFFFF)).to_bytes(2)

    sent = Ether(bytes(frame))
    right = sent.copy()
    del right[UDP if protocol == "udp" else TCP].chksum

    assert Ether(bytes(right)).getlayer(2).chksum == sent.getlayer(2).chksum


def test_no_point_has_more_services_than_flows_or_flows_than_ports():
    assert all(point.services <= point.flows <= 65536 - traffic.FIRST_SOURCE_PORT for point in POINTS)


def test_a_point_says_what_it_is():
    assert str(Point("udp", 60_000, 1)) == "UDP, 60,000 flows, 1 service"


def test_where_all_is_dropped_a_point_tells_of_its_prefixes_only():
    point = Point("udp", 3, 1, prefixes=3)

    assert str(point) == "UDP from 3 blocked prefixes"
    assert traffic.blocked(point) == ["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24"]
