"""Who holds a port is this process, found by address, family and protocol as the kernel lets them overlap."""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager

import pytest

from marchproxy_core.port_holder import port_holder
from marchproxy_core.services import Endpoint, Protocol

FAMILIES = {False: socket.AF_INET, True: socket.AF_INET6}


@contextmanager
def held(address, protocol=Protocol.TCP, *, both_families=False):
    kind = socket.SOCK_STREAM if protocol is Protocol.TCP else socket.SOCK_DGRAM
    with socket.socket(FAMILIES[":" in address], kind) as sock:
        if ":" in address:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both_families)
        sock.bind((address, 0))
        if protocol is Protocol.TCP:
            sock.listen()
        yield sock.getsockname()[1]


def endpoint(address, port):
    return Endpoint.parse(f"[{address}]:{port}" if ":" in address else f"{address}:{port}")


@pytest.mark.parametrize("protocol", Protocol)
@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "0.0.0.0"),
        ("0.0.0.0", "127.0.0.1"),
        ("::1", "::1"),
        ("::1", "::"),
        ("::", "::1"),
    ],
)
def test_an_address_that_overlaps_is_found(address, wanted, protocol):
    with held(address, protocol) as port:
        assert port_holder(protocol, endpoint(wanted, port)).endswith(f" (pid {os.getpid()})")


def test_one_socket_for_both_families_holds_the_ipv4_port():
    with held("::", both_families=True) as port:
        assert f"(pid {os.getpid()})" in port_holder(Protocol.TCP, endpoint("127.0.0.1", port))


@pytest.mark.parametrize(
    ("address", "wanted", "protocol"),
    [
        ("127.0.0.1", "127.0.0.2", Protocol.TCP),
        ("0.0.0.0", "::1", Protocol.TCP),
        ("127.0.0.1", "127.0.0.1", Protocol.UDP),
    ],
)
def test_what_does_not_overlap_is_not_named(address, wanted, protocol):
    with held(address) as port:
        assert port_holder(protocol, endpoint(wanted, port)) == ""


def test_a_connection_from_the_port_is_no_holder():
    with held("127.0.0.1") as port, socket.create_connection(("127.0.0.1", port)) as client:
        assert port_holder(Protocol.TCP, endpoint("127.0.0.1", client.getsockname()[1])) == ""
