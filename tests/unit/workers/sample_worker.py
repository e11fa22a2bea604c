"""A worker for the tests of the pool: answers each TCP client with its pid, and does odd things on command."""

from __future__ import annotations

import os
import select
import socket
import time

from marchproxy_core.questions import Purge, Recall
from marchproxy_core.services import Endpoint
from marchproxy_core.workers.ledger import ACTIVE, ALL_ACTIVE, OPENED
from marchproxy_core.workers.messages import Ask, Lend, Retire, Work


def main(worker):
    lent = {}
    cells = {}
    while True:
        worker.beat()
        ready, _, _ = select.select([worker.channel, *(lent.values() if cells else ())], [], [], 0.2)
        for sock in ready:
            if sock is worker.channel:
                try:
                    messages = worker.channel.receive()
                except EOFError:
                    return
                for message, descriptor in messages:
                    if isinstance(message, Lend):
                        lent[message.number] = socket.socket(fileno=descriptor)
                    elif isinstance(message, Work):
                        named = {number for one in message.services for number in one.listeners}
                        for number in [number for number in lent if number not in named]:
                            lent.pop(number).close()
                        cells = {one.service.name: one.cells for one in message.services}
                        worker.applied(message.version)
                    elif isinstance(message, Ask):
                        answer(worker, message)
                    elif isinstance(message, Retire):
                        return
            else:
                obey(worker, sock, cells)


def answer(worker, asked):
    match asked.question:
        case Recall(request_id="mute"):
            return
        case Recall(request_id="die"):
            os.abort()
        case Recall(request_id="twice"):
            worker.answer(asked.ticket, {"pid": os.getpid()})
            worker.answer(asked.ticket, {"pid": 0})
        case Recall(request_id=text) if text == str(worker.index):
            worker.answer(asked.ticket, {"pid": os.getpid()})
        case Purge(service="web"):
            worker.answer(asked.ticket, 2 + worker.index)
        case Purge():
            worker.answer(asked.ticket, "many")
        case _:
            worker.answer(asked.ticket, None)


def obey(worker, listening, cells):
    client, _ = listening.accept()
    first = next(iter(cells.values())).first
    worker.ledger.mine[first + OPENED] += 1
    worker.ledger.mine[first + ACTIVE] += 1
    worker.ledger.mine[ALL_ACTIVE] += 1
    with client:
        client.sendall(b"%d\n" % os.getpid())
        command = client.recv(100)
        if command == b"die":
            os.abort()
        elif command == b"hang":
            time.sleep(3600)  # noqa: TID251 - the fault under test
        elif command == b"successor":
            worker.wants_successor()
        elif command == b"nonsense":
            worker.channel._sock.send(b"\xff" * 100)
        elif command == b"observe":
            worker.observe("web", Endpoint.parse("192.0.2.9:1"), error="refused")
    worker.ledger.mine[first + ACTIVE] -= 1
    worker.ledger.mine[ALL_ACTIVE] -= 1
