"""UDP: flows, sizes, and backends that refuse."""

from __future__ import annotations

import os

import trio

from tests.parity.ends import PATIENCE_S, SILENCE_S
from tests.parity.icmp_errors import next_error, tell_errors
from tests.parity.scenario import scenario

_DATAGRAMS = 20
_CLIENTS = 20
_LARGEST = 65507
"""Bytes, what IPv4 can carry."""


@scenario(
    "a UDP client's datagrams",
    protocol="udp",
    backends=("open", "open"),
    alike=True,
    note="For as long as neither side is silent for `IDLE_TIMEOUT`.",
)
async def one_flow(stage):
    seen = set()

    async def listen(at, sock):
        while True:
            data, peer = await sock.recvfrom(100)
            seen.add((at, peer[:2]))
            await sock.sendto(data, peer)

    client = await stage.client()
    async with trio.open_nursery() as nursery:
        for at, sock in enumerate(stage.backends):
            nursery.start_soon(listen, at, sock)
        for number in range(_DATAGRAMS):
            await client.send(b"%d" % number)
            with trio.fail_after(PATIENCE_S):
                assert await client.recv(100) == b"%d" % number
        nursery.cancel_scope.cancel()
    backends, ports = len({at for at, _ in seen}), len(seen)
    return "go to one backend, from one port" if (backends, ports) == (1, 1) else f"go to {backends} backends"


@scenario("a UDP backend that refuses", protocol="udp", backends=("refuses",))
async def refused(stage):
    client = await stage.client(prepare=tell_errors)
    await client.send(b"anybody?")
    error = await next_error(client, SILENCE_S)
    if error is None:
        return "the client hears nothing"
    return f"the client hears {error.what}, from {stage.whose(error.offender)}"


@scenario(
    "a UDP backend that refuses, beside another",
    protocol="udp",
    backends=("refuses", "open"),
    note="Over sockets, if the one that refuses never answered this client before.",
)
async def one_of_two_refuses(stage):
    met = set()

    async def answer():
        while True:
            data, peer = await stage.backend.recvfrom(100)
            await stage.backend.sendto(data, peer)

    async def ask():
        client = await stage.client(prepare=tell_errors)
        await client.send(b"anybody?")
        with trio.move_on_after(SILENCE_S):
            try:
                await client.recv(100)
                met.add("is answered")
            except ConnectionRefusedError:
                met.add("hears port unreachable")
            return
        met.add("hears nothing")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        async with trio.open_nursery() as clients:
            for _ in range(_CLIENTS):
                clients.start_soon(ask)
        nursery.cancel_scope.cancel()
    if met == {"is answered"}:
        return "each client's datagram goes to the other, and is answered"
    return f"a client {' or '.join(sorted(met, reverse=True))}, as his backend does"


@scenario(
    "a datagram of 65,507 bytes, in fragments",
    protocol="udp",
    carried_below=True,
    alike=False,
    note="The sockets tier puts fragments together and sends new ones; packet tiers leave them to it.",
)
async def largest(stage):
    client = await stage.client()
    question, answer = os.urandom(_LARGEST), os.urandom(_LARGEST)
    await client.send(question)
    with trio.fail_after(PATIENCE_S):
        heard, peer = await stage.backend.recvfrom(1 << 16)
        await stage.backend.sendto(answer, peer)
        answered = await client.recv(1 << 16)
    whole = "arrives whole, and so does the answer" if (heard, answered) == (question, answer) else "is lost"
    return whole + await stage.by_whom()
