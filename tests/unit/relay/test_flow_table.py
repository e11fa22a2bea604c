"""The table of flows is bounded: seen with a table of three, in a loop of the test's own."""

from __future__ import annotations

import os
import socket
from types import SimpleNamespace

import pytest

from marchproxy_core.config import Settings
from marchproxy_core.model import BackendView, Role
from marchproxy_core.relay.carried import Carried
from marchproxy_core.relay.loop import Loop
from marchproxy_core.relay.udp import service as udp
from marchproxy_core.services import Backend, Endpoint, Protocol, Service
from marchproxy_core.workers.cells import CellBook
from marchproxy_core.workers.ledger import ACTIVE, DROPS, Ledger
from marchproxy_core.workers.messages import ServiceWork


def a_socket() -> socket.socket:
    sock = socket.socket(type=socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock


def endpoint_of(sock: socket.socket) -> Endpoint:
    host, port = sock.getsockname()
    return Endpoint.parse(f"{host}:{port}")


@pytest.fixture
def ledger():
    memory = Ledger.create(1)
    ledger = Ledger(memory, 1)
    yield ledger
    ledger.close()
    os.close(memory)


def test_a_full_table_refuses_and_counts_and_loses_no_flow(ledger, monkeypatch) -> None:
    monkeypatch.setattr(udp, "MOST_FLOWS", 3)
    server, front = a_socket(), a_socket()
    listen = endpoint_of(front)
    backend = Backend(endpoint=endpoint_of(server))
    service = Service(name="dns", protocol=Protocol.UDP, listen=(listen,), backends=(backend,))
    book = CellBook()
    book.assign([service], 1)
    work = ServiceWork(
        service=service,
        role=Role.CHOSEN,
        backends=(BackendView(backend=backend),),
        listeners=(1,),
        cells=book.given["dns"],
    )
    worker = SimpleNamespace(index=0, ledger=ledger, observe=lambda *_, **__: None)
    loop = Loop()
    relay = udp.UdpService(loop, Carried(worker, work, Settings()), memoryview(bytearray(udp.DATAGRAM_BYTES)))
    relay.listen([(listen, front)])
    clients = [a_socket() for _ in range(5)]
    for _ in range(2):
        for client in clients:
            client.sendto(b"?", front.getsockname())
        loop.turn()
    first = book.given["dns"].first
    assert relay.active == 3
    assert ledger.total(first + ACTIVE) == 3
    assert ledger.total(first + DROPS["flow_table_full"]) == 4
    sources = {server.recvfrom(10)[1] for _ in range(6)}
    assert len(sources) == 3, "the flows that were there first stay"
    relay.close()
    loop.turn()
    assert ledger.total(first + ACTIVE) == 0
    assert front.fileno() == -1, "the service closes the sockets that it was given"
    loop.close()
    for one in (*clients, server):
        one.close()
