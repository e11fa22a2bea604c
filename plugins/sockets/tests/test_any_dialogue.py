"""Whatever two sides say, in whatever pieces and order, arrives whole at the other, and both ends get through.

One relay in a loop of the test's own, turned step by step: edge-triggered events that come together, early or not
at all are what the examples look for.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marchproxy_core.config import Settings
from marchproxy_core.model import BackendView, Role
from marchproxy_core.relay.carried import Carried
from marchproxy_core.relay.loop import Loop
from marchproxy_core.relay.proxy_header import encode_v2
from marchproxy_core.relay.tcp.pipes import Pipes
from marchproxy_core.relay.tcp.service import TcpService
from marchproxy_core.services import Backend, Endpoint, ProxyHeader, ProxyProtocol, Service
from marchproxy_core.workers.cells import CellBook
from marchproxy_core.workers.ledger import ACTIVE, BYTES_IN, BYTES_OUT, Ledger
from marchproxy_core.workers.messages import ServiceWork

PATIENCE_S = 10
NOISE = os.urandom(1 << 20)
HEADER = encode_v2(("198.51.100.7", 4711), ("203.0.113.1", 443))

sizes = st.sampled_from([1, 100, 65535, 65536, 65537, 400_000])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.sampled_from(["client", "server"]), sizes),
        st.tuples(st.just("end"), st.sampled_from(["client", "server"]), st.just(0)),
        st.tuples(st.just("read"), st.sampled_from(["client", "server"]), sizes),
        st.tuples(st.just("turn"), st.just(""), st.integers(1, 3)),
    ),
    max_size=14,
)


@attrs.define(eq=False)
class Side:
    """One of the two that talk; writes when it can, reads when it is told."""

    sock: socket.socket
    to_send: bytearray = attrs.field(factory=bytearray)
    said: bytearray = attrs.field(factory=bytearray)
    heard: bytearray = attrs.field(factory=bytearray)
    wants_to_end: bool = False
    has_ended: bool = False
    heard_end: bool = False

    def say(self, size: int) -> None:
        if not self.wants_to_end:
            start = len(self.said) % 997
            self.to_send += NOISE[start : start + size]
            self.said += NOISE[start : start + size]

    def push(self) -> None:
        try:
            while self.to_send:
                del self.to_send[: self.sock.send(self.to_send[:100_000])]
        except BlockingIOError:
            return
        if self.wants_to_end and not self.has_ended:
            self.sock.shutdown(socket.SHUT_WR)
            self.has_ended = True

    def read(self, size: int) -> None:
        try:
            while size > 0 and not self.heard_end:
                data = self.sock.recv(size)
                self.heard_end = not data
                self.heard += data
                size -= len(data)
        except BlockingIOError:
            return


@attrs.define(eq=False)
class Relay:
    """A TCP service in a loop, with a listening socket in front and one behind."""

    loop: Loop
    service: TcpService
    ledger: Ledger
    first_cell: int
    front: socket.socket
    behind: socket.socket

    def turn(self) -> None:
        self.loop.again(lambda: None)  # nothing to wait for
        self.loop.turn()


def listening() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    sock.setblocking(False)
    return sock


def endpoint_of(sock: socket.socket) -> Endpoint:
    host, port = sock.getsockname()
    return Endpoint.parse(f"{host}:{port}")


@contextmanager
def relay(proxy_protocol: ProxyProtocol) -> Iterator[Relay]:
    memory = Ledger.create(1)
    ledger = Ledger(memory, 1)
    front, behind = listening(), listening()
    backend = Backend(endpoint=endpoint_of(behind))
    service = Service(
        name="any", listen=(endpoint_of(front),), backends=(backend,), proxy_protocol=proxy_protocol
    )
    book = CellBook()
    book.assign([service], 1)
    cells = book.given["any"]
    views = (BackendView(backend=backend),)
    work = ServiceWork(service=service, role=Role.CHOSEN, backends=views, listeners=(1,), cells=cells)
    worker = SimpleNamespace(index=0, ledger=ledger, observe=lambda *_, **__: None)
    loop, pipes = Loop(), Pipes()
    tcp = TcpService(loop, Carried(worker, work, Settings()), pipes)
    tcp.listen([(service.listen[0], front)])
    try:
        yield Relay(loop, tcp, ledger, cells.first, front, behind)
    finally:
        tcp.close()
        loop.again(lambda: None)
        loop.turn()
        loop.close()
        pipes.close()
        behind.close()
        ledger.close()
        os.close(memory)


@contextmanager
def both_sides(one: Relay, *, buffers: int, early: int, ends_early: bool) -> Iterator[tuple[Side, Side]]:
    """Connect a client that says ``early`` bytes, and may end, before the relay gets to do anything."""
    client = Side(socket.socket())
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        client.sock.setsockopt(socket.SOL_SOCKET, option, buffers)
    client.sock.connect(one.front.getsockname())
    client.sock.setblocking(False)
    client.say(early)
    if one.service.carried.work.service.proxy_protocol.accept:
        client.to_send[:0] = HEADER
    client.wants_to_end = ends_early
    client.push()
    deadline = time.monotonic() + PATIENCE_S
    while not select.select([one.behind], [], [], 0)[0]:
        assert time.monotonic() < deadline, "nobody comes to the backend"
        one.turn()
    server, _ = one.behind.accept()
    server.setblocking(False)
    with client.sock, server:
        yield client, Side(server)


@pytest.mark.parametrize("accept", [False, True])
@pytest.mark.parametrize("buffers", [4096, 1 << 20])
@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    database=None,
)
@given(
    steps=steps,
    send=st.sampled_from([ProxyHeader.OFF, ProxyHeader.V2]),
    client_ends_first=st.booleans(),
    early=st.sampled_from([0, 1, 65536, 100_000]),
    ends_early=st.booleans(),
)
def test_all_that_is_said_is_heard_and_both_ends_get_through(
    accept, buffers, steps, send, client_ends_first, early, ends_early
) -> None:
    with relay(ProxyProtocol(accept=accept, send=send)) as one:
        with both_sides(one, buffers=buffers, early=early, ends_early=ends_early) as (client, server):
            sides = {"client": client, "server": server}
            for what, who, size in steps:
                match what:
                    case "send":
                        sides[who].say(size)
                        sides[who].push()
                    case "end":
                        sides[who].wants_to_end = True
                        sides[who].push()
                    case "read":
                        sides[who].read(size)
                    case "turn":
                        for _ in range(size):
                            one.turn()
            ending = (client, server) if client_ends_first else (server, client)
            for one_side, other_side in (ending, ending[::-1]):
                # The other side has not ended, unless it has by itself: nothing else may bring this end through.
                one_side.wants_to_end = True
                deadline = time.monotonic() + PATIENCE_S
                while not other_side.heard_end:
                    assert time.monotonic() < deadline, (
                        f"said {len(one_side.said)}, heard {len(other_side.heard)}"
                    )
                    for side in (client, server):
                        side.push()
                        side.read(1 << 20)
                    one.turn()
            header = b""
            if send is ProxyHeader.V2:
                header = HEADER if accept else bytes(server.heard[:28])
                assert server.heard.startswith(header)
            assert server.heard[len(header) :] == client.said
            assert client.heard == server.said
        while one.service.active:
            one.turn()
        one.turn()
        assert one.ledger.total(one.first_cell + ACTIVE) == 0
        assert one.ledger.total(one.first_cell + BYTES_IN) == len(client.said) + len(header)
        assert one.ledger.total(one.first_cell + BYTES_OUT) == len(server.said)
