"""Listeners outlive reloads untouched, open all or nothing, and say what stands in their way."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
from pathlib import Path

import pytest
import structlog

from marchproxy_core.errors import ListenError
from marchproxy_core.listeners import Buffers, ListenerSet
from marchproxy_core.services import Backend, Endpoint, Protocol, Service
from marchproxy_core.testing.lab.naming import in_own_thread

KINDS = {Protocol.TCP: socket.SOCK_STREAM, Protocol.UDP: socket.SOCK_DGRAM}
SOCKET_CALL = {"x86_64": 41, "aarch64": 198}
"""Number of socket(2), from the kernel's unistd.h."""


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def service(name, *listen, protocol=Protocol.TCP):
    endpoints = tuple(Endpoint.parse(text) for text in listen)
    return Service(name=name, protocol=protocol, listen=endpoints, backends=(Backend(endpoint=endpoints[0]),))


@pytest.fixture
def listeners():
    opened = ListenerSet(2)
    yield opened
    opened.close()


def test_every_worker_has_a_socket_that_a_client_can_reach(listeners):
    web = service("web", f"127.0.0.1:{free_port()}", f"[::1]:{free_port()}")
    listeners.open([web])
    assert [len(listener.sockets) for listener in listeners.of(web)] == [2, 2]
    for listener in listeners.of(web):
        with socket.create_connection((str(listener.endpoint.ip), listener.endpoint.port), timeout=5):
            pass


def test_a_reload_leaves_what_stays_and_closes_what_goes(listeners):
    stays, goes, comes = (service(name, f"127.0.0.1:{free_port()}") for name in ("stays", "goes", "comes"))
    listeners.open([stays, goes])
    before = listeners.of(stays)
    gone = listeners.of(goes)[0]
    listeners.open([stays, comes])
    assert listeners.of(stays)[0] is before[0]
    assert listeners.of(goes) == ()
    assert all(sock.fileno() == -1 for sock in gone.sockets)
    assert len(listeners.of(comes)) == 1


def test_a_failed_reload_changes_nothing_and_names_service_address_and_fix(listeners):
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        old = service("old", f"127.0.0.1:{free_port()}")
        fine = service("fine", f"127.0.0.1:{free_port()}")
        taken = service("taken", f"127.0.0.1:{stranger.getsockname()[1]}")
        listeners.open([old])
        before = listeners.of(old)
        with pytest.raises(ListenError) as caught:
            listeners.open([fine, taken])
    assert "service 'taken' cannot listen on tcp 127.0.0.1:" in str(caught.value)
    assert (
        f"Address already in use by {Path('/proc/self/comm').read_text().strip()} (pid {os.getpid()})"
        in str(caught.value)
    )
    assert "fix: stop what listens there" in str(caught.value)
    assert listeners.of(old) == before
    assert before[0].sockets[0].fileno() >= 0
    assert listeners.of(fine) == ()


def test_an_address_of_another_host_is_refused_with_the_fix(listeners):
    with pytest.raises(ListenError, match="not one of this host's"):
        listeners.open([service("far", "192.0.2.1:8080")])


def test_udp_listeners_bind_with_the_buffers_asked_for():
    port = free_port(socket.SOCK_DGRAM)
    dns = service("dns", f"0.0.0.0:{port}", f"[::]:{port}", protocol=Protocol.UDP)
    listeners = ListenerSet(1, Buffers(receive=65536))
    try:
        listeners.open([dns])
        for listener in listeners.of(dns):
            # The kernel doubles what is asked for, for its own bookkeeping (socket(7)).
            assert listener.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * 65536
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"ask", ("127.0.0.1", port))
            served = listeners.of(dns)[0].sockets[0]
            served.settimeout(5)
            assert served.recv(10) == b"ask"
    finally:
        listeners.close()
    assert listeners.of(dns) == ()


def test_an_address_that_services_share_is_open_until_the_last_of_them_goes(listeners):
    address = f"127.0.0.1:{free_port()}"
    one, two, own = service("one", address), service("two", address), f"127.0.0.1:{free_port()}"
    wide = service("wide", own, address)
    listeners.open([one, two, wide])
    (shared,) = listeners.of(one)
    assert len(shared.sockets) == 2
    assert listeners.of(two) == (shared,)
    assert listeners.of(wide)[1] is shared
    listeners.open([two])
    assert listeners.of(two) == (shared,)
    with socket.create_connection((str(shared.endpoint.ip), shared.endpoint.port), timeout=5):
        pass
    listeners.open([one])
    assert listeners.of(one) == (shared,), "who comes as another goes takes over the sockets"
    listeners.open([])
    assert all(sock.fileno() == -1 for sock in shared.sockets)


def test_a_shared_address_that_cannot_be_opened_is_told_with_all_who_want_it(listeners):
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        address = f"127.0.0.1:{stranger.getsockname()[1]}"
        with pytest.raises(ListenError, match="service 'one, two' cannot listen on"):
            listeners.open([service("one", address), service("two", address)])


def lose_ipv6():
    """Have the kernel answer this thread as one without IPv6 does: seccomp(2), for socket(AF_INET6, …) alone."""
    load, jump_if_equal, answer = 0x20, 0x15, 0x06
    number, first_argument = 0, 16  # offsets in struct seccomp_data; the argument's low half on both machines
    program = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (load, 0, 0, number),
            (jump_if_equal, 0, 3, SOCKET_CALL[platform.machine()]),
            (load, 0, 0, first_argument),
            (jump_if_equal, 0, 1, socket.AF_INET6),
            (answer, 0, 0, 0x00050000 | errno.EAFNOSUPPORT),
            (answer, 0, 0, 0x7FFF0000),
        )
    )
    held = ctypes.create_string_buffer(program, len(program))
    whole = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(held)))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    set_no_new_privs, set_seccomp, filter_mode = 38, 22, 2
    assert prctl(set_no_new_privs, 1, 0, 0, 0) == 0
    assert prctl(set_seccomp, filter_mode, whole, 0, 0) == 0


@pytest.mark.parametrize("protocol", Protocol)
def test_a_port_alone_is_the_ipv4_addresses_where_the_host_has_no_ipv6(protocol):
    port = free_port()
    web = service("web", f"0.0.0.0:{port}", f"[::]:{port}", protocol=protocol)
    opened = ListenerSet(2)

    def without_ipv6():
        lose_ipv6()
        with structlog.testing.capture_logs() as events:
            opened.open([web])
        (event,) = events
        assert (event["event"], event["service"]) == ("listener.left_out", "web")
        assert event["address"] == f"[::]:{port}"

    try:
        in_own_thread(without_ipv6)
        assert [str(listener.endpoint) for listener in opened.of(web)] == [f"0.0.0.0:{port}"]
    finally:
        opened.close()


@pytest.mark.parametrize("listen", [("[::]:{port}",), ("0.0.0.0:{other}", "[::]:{port}"), ("[::1]:{port}",)])
def test_an_ipv6_address_that_was_asked_for_is_an_error_where_the_host_has_no_ipv6(listen):
    ports = {"port": free_port(), "other": free_port()}
    web = service("web", *(text.format(**ports) for text in listen))

    def without_ipv6():
        lose_ipv6()
        with pytest.raises(ListenError, match="this host has IPv6 switched off"):
            ListenerSet(1).open([web])

    in_own_thread(without_ipv6)


def test_one_of_those_who_share_a_port_may_insist_on_its_ipv6_address():
    port = free_port()
    both, insists = service("both", f"0.0.0.0:{port}", f"[::]:{port}"), service("insists", f"[::]:{port}")

    def without_ipv6():
        lose_ipv6()
        with pytest.raises(ListenError, match="this host has IPv6 switched off"):
            ListenerSet(1).open([both, insists])

    in_own_thread(without_ipv6)


@pytest.mark.parametrize("protocol", Protocol)
def test_sharing_an_address_with_another_daemon_is_told_once_for_each_address(listeners, protocol):
    shared = service("shared", f"127.0.0.1:{free_port(KINDS[protocol])}", protocol=protocol)
    with structlog.testing.capture_logs() as log:
        listeners.open([shared])
    assert log == []
    other_daemon = ListenerSet(2)
    with structlog.testing.capture_logs() as log:
        other_daemon.open([shared])
    other_daemon.close()
    (line,) = log
    assert (line["event"], line["service"], line["address"]) == (
        "listener.shared",
        "shared",
        str(shared.listen[0]),
    )
    assert f"(pid {os.getpid()})" in line["holder"]
