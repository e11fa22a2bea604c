"""Listeners outlive reloads untouched, open all or nothing, and say what stands in their way."""

from __future__ import annotations

import socket

import pytest

from marchproxy_core.errors import ListenError
from marchproxy_core.listeners import Buffers, ListenerSet
from marchproxy_core.services import Backend, Endpoint, Protocol, Service


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
