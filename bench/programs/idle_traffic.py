"""Many connections that idle; a program of its own, without packages.

``idle_traffic.py serve PORT`` accepts and echoes. ``idle_traffic.py hold IP PORT COUNT`` opens COUNT connections, sends
one byte through each and waits for its echo, prints ``ready`` and holds them until its standard input ends.
"""

from __future__ import annotations

import select
import socket
import sys


def serve(port: int) -> None:
    """Accept, and echo what comes, for ever."""
    with socket.create_server(("0.0.0.0", port), backlog=4096) as listener, select.epoll() as epoll:
        epoll.register(listener.fileno(), select.EPOLLIN)
        connections: dict[int, socket.socket] = {}
        while True:
            for fd, _ in epoll.poll():
                if fd == listener.fileno():
                    connection, _ = listener.accept()
                    connections[connection.fileno()] = connection
                    epoll.register(connection.fileno(), select.EPOLLIN)
                elif not _echo(connections[fd]):
                    connections.pop(fd).close()


def hold(ip: str, port: int, count: int) -> None:
    """Open and use connections, say so, and hold them until standard input ends."""
    connections = []
    for number in range(count):
        connection = socket.create_connection((ip, port), timeout=10)
        connections.append(connection)
        connection.sendall(b"x")
        if connection.recv(1) != b"x":
            sys.exit(f"connection {number + 1} was closed")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()


def _echo(connection: socket.socket) -> bool:
    try:
        data = connection.recv(4096)
        connection.sendall(data)
    except ConnectionError:
        return False
    return bool(data)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", port]:
            serve(int(port))
        case ["hold", ip, port, count]:
            hold(ip, int(port), int(count))
        case _:
            sys.exit(__doc__)
