"""UDP generator and echo server in batches of sendmmsg(2) and recvmmsg(2); a program of its own, without packages.

``udp_traffic.py serve PORT`` sends every datagram back. ``udp_traffic.py drive IP PORT SECONDS FLOWS WINDOW SIZE``
keeps WINDOW datagrams of SIZE bytes under way on each of FLOWS sockets, sends one for each that returns, and prints
``{"sent", "echoed", "seconds"}``. A closed loop: it offers what the proxy can take, so that little is lost and
the figure is what came through, not what was thrown away.
"""

from __future__ import annotations

import ctypes
import json
import select
import socket
import sys
import time

_BATCH = 64
_MSG_DONTWAIT = 0x40
_MSG_WAITFORONE = 0x10000
_LOST_AFTER_S = 0.1
_libc = ctypes.CDLL(None, use_errno=True)


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _MsgHdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iov", ctypes.POINTER(_IoVec)),
        ("iov_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _MMsgHdr(ctypes.Structure):
    _fields_ = (("header", _MsgHdr), ("length", ctypes.c_uint32))


class Batch:
    """Room for some datagrams of one size; what was received into it can be sent back as it is."""

    def __init__(self, size_bytes: int, *, with_addresses: bool) -> None:
        self._payload = ctypes.create_string_buffer(size_bytes * _BATCH)
        self._names = ctypes.create_string_buffer(16 * _BATCH)
        self._iovs = (_IoVec * _BATCH)()
        self._messages = (_MMsgHdr * _BATCH)()
        for index, (iov, message) in enumerate(zip(self._iovs, self._messages, strict=True)):
            iov.base = ctypes.addressof(self._payload) + index * size_bytes
            iov.length = size_bytes
            message.header.iov = ctypes.pointer(iov)
            message.header.iov_length = 1
            if with_addresses:
                message.header.name = ctypes.addressof(self._names) + index * 16
                message.header.name_length = 16

    def receive(self, fd: int, most: int, flags: int) -> int:
        """Receive up to ``most`` datagrams; returns how many, 0 when none is there or the peer refused one."""
        return max(0, int(_libc.recvmmsg(fd, self._messages, min(most, _BATCH), flags, None)))

    def send(self, fd: int, count: int) -> int:
        """Send the first ``count`` datagrams; returns how many went out."""
        return max(0, int(_libc.sendmmsg(fd, self._messages, min(count, _BATCH), 0)))


def serve(port: int, size_bytes: int = 64) -> None:
    """Send every datagram of that size back, for ever."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("0.0.0.0", port))
        batch = Batch(size_bytes, with_addresses=True)
        while True:
            batch.send(sock.fileno(), batch.receive(sock.fileno(), _BATCH, _MSG_WAITFORONE))


def drive(ip: str, port: int, seconds: float, flows: int, window: int, size_bytes: int) -> dict[str, float]:
    """Keep every flow's window full for a while and return what was sent and came back."""
    batch = Batch(size_bytes, with_addresses=False)
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(flows)]
    epoll = select.epoll()
    for sock in sockets:
        sock.connect((ip, port))
        epoll.register(sock.fileno(), select.EPOLLIN)
    started = now = time.monotonic()
    sent = sum(batch.send(sock.fileno(), window) for sock in sockets)
    echoed = 0
    heard = {sock.fileno(): started for sock in sockets}
    looked = started
    while now < started + seconds:
        for fd, _ in epoll.poll(_LOST_AFTER_S):
            count = batch.receive(fd, window, _MSG_DONTWAIT)
            echoed += count
            sent += batch.send(fd, count)
            heard[fd] = now
        now = time.monotonic()
        if now > looked + _LOST_AFTER_S:
            looked = now
            for fd, last in heard.items():
                if now > last + _LOST_AFTER_S:  # its whole window was lost
                    sent += batch.send(fd, window)
                    heard[fd] = now
    for sock in sockets:
        sock.close()
    return {"sent": sent, "echoed": echoed, "seconds": now - started}


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", port]:
            serve(int(port))
        case ["drive", ip, port, seconds, flows, window, size]:
            report = drive(ip, int(port), float(seconds), int(flows), int(window), int(size))
            sys.stdout.write(json.dumps(report) + "\n")
        case _:
            sys.exit(__doc__)
