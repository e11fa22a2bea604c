"""Each kind of value: what it takes, what it refuses, and that what it shows it reads back."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy_core.config import SETTINGS, LogLevel, UnixAddress
from marchproxy_core.config.kinds import CpuList, Duration, Kind
from marchproxy_core.services import Endpoint


def kind(variable: str) -> Kind[object]:
    return SETTINGS[variable].kind


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("DPDK_CORES", "4-7", (4, 5, 6, 7)),
        ("PROXY_CPU_AFFINITY", "4-7, 9,5", (4, 5, 6, 7, 9)),
        ("DPDK_PCI_DEVICES", "0000:02:00.0,0000:02:00.1", ("0000:02:00.0", "0000:02:00.1")),
        ("DPDK_PORT_MASK", "0x3", 3),
        ("DPDK_VDEVS", "net_af_packet0,iface=eth1;net_null1", ("net_af_packet0,iface=eth1", "net_null1")),
        ("AF_XDP_BATCH_SIZE", "64", 64),
        ("XDP_INTERFACE", "eth0,eth1.100", ("eth0", "eth1.100")),
        ("NAT_PORT_RANGE", "1024-4095", (1024, 4095)),
        (
            "NAT_SOURCE_ADDRESSES",
            "10.0.0.1,fd00::1",
            (ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("fd00::1")),
        ),
        (
            "DOOR_BLOCK",
            "198.51.100.0/24, 2001:db8::/32, 203.0.113.7",
            tuple(map(ipaddress.ip_network, ("198.51.100.0/24", "2001:db8::/32", "203.0.113.7/32"))),
        ),
        ("GLOBAL_CONNECTION_RATE", "0.5", 0.5),
        ("DRAIN_TIMEOUT", "0", 0.0),
        ("DRAIN_TIMEOUT", "30s", 30.0),
        ("DRAIN_TIMEOUT", "1.5m", 90.0),
        ("IDLE_TIMEOUT", "250ms", 0.25),
        ("GOGC", "off", -1),
        ("LOG_LEVEL", "WARN", LogLevel.WARNING),
        ("BACKEND_KEEP_ALIVE", "Off", False),
        ("ADMIN_LISTEN", "unix:/run/a.sock", UnixAddress("/run/a.sock")),
        ("ADMIN_LISTEN", "[::1]:8080", Endpoint(ipaddress.IPv6Address("::1"), 8080)),
    ],
)
def test_accepted(variable: str, text: str, value: object) -> None:
    assert kind(variable).parse(text) == value


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("DOOR_BLOCK", "198.51.100.0/33"),
        ("DOOR_BLOCK", "198.51.100.0/255.255.255.0"),
        ("DOOR_BLOCK", "198.51.100.0/24,198.51.100.0/24"),
        ("DOOR_BLOCK", "fe80::1%eth0"),
        ("DPDK_CORES", "7-4"),
        ("DPDK_CORES", "4-"),
        ("DPDK_CORES", "8192"),
        ("DPDK_CORES", "1,,2"),
        ("DPDK_PCI_DEVICES", "02:00.0"),
        ("DPDK_PCI_DEVICES", "0000:02:00.0,0000:02:00.0"),
        ("DPDK_PORT_MASK", "3"),
        ("DPDK_PORT_MASK", "0x0"),
        ("AF_XDP_BATCH_SIZE", "65"),
        ("AF_XDP_BATCH_SIZE", "0"),
        ("XDP_INTERFACE", "an-interface-name-too-long"),
        ("XDP_INTERFACE", ".."),
        ("XDP_INTERFACE", "eth0/../eth1"),
        ("NAT_PORT_RANGE", "1024"),
        ("NAT_PORT_RANGE", "0-9"),
        ("NAT_PORT_RANGE", "1-65536"),
        ("NAT_SOURCE_ADDRESSES", "0.0.0.0"),
        ("NAT_SOURCE_ADDRESSES", "example.org"),
        ("MAX_CONNECTIONS", "0"),
        ("MAX_CONNECTIONS", "1e3"),
        ("MAX_CONNECTIONS", "1_000"),
        ("MAX_CONNECTIONS", "\u0661"),
        ("GLOBAL_CONNECTION_RATE", "nan"),
        ("GLOBAL_CONNECTION_RATE", "inf"),
        ("IDLE_TIMEOUT", "0"),
        ("IDLE_TIMEOUT", "-1"),
        ("IDLE_TIMEOUT", "31d"),
        ("IDLE_TIMEOUT", "5 minutes"),
        ("BACKEND_KEEP_ALIVE", "maybe"),
        ("ADMIN_LISTEN", "8080"),
        ("ADMIN_LISTEN", "127.0.0.1:0"),
        ("ADMIN_LISTEN", "[fe80::1%eth0]:80"),
        ("ADMIN_LISTEN", "unix:relative"),
        ("ADMIN_LISTEN", "unix:/" + "x" * 107),
        ("ADMIN_TOKEN", "two words"),
    ],
)
def test_refused(variable: str, text: str) -> None:
    # The exception carries no message of its own: the error is made from the kind's want.
    with pytest.raises(ValueError):  # noqa: PT011
        kind(variable).parse(text)


@given(st.sets(st.integers(0, 8191), max_size=50))
def test_cpu_lists_read_back(cpus: set[int]) -> None:
    assert CpuList().parse(CpuList().show(tuple(sorted(cpus)))) == tuple(sorted(cpus))


@given(st.integers(0, 86_400_000))
def test_durations_read_back(milliseconds: int) -> None:
    span = Duration(0, 86400)
    assert span.parse(span.show(milliseconds / 1000)) == milliseconds / 1000


@given(st.sampled_from(sorted(SETTINGS)), st.text(max_size=20))
def test_any_text_is_a_value_that_reads_back_or_a_value_error(variable: str, text: str) -> None:
    try:
        value = kind(variable).parse(text)
    except ValueError:
        return
    assert kind(variable).parse(kind(variable).show(value)) == value


@pytest.mark.parametrize("variable", sorted(SETTINGS))
def test_every_default_reads_back(variable: str) -> None:
    one = SETTINGS[variable]
    if one.default is None:
        assert one.default_doc
    else:
        assert one.kind.parse(one.kind.show(one.default)) == one.default
