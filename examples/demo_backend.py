"""Backends to try a proxy with: HTTP, TCP echo and UDP echo, one for each backend of the services that it knows.

`python examples/demo_backend.py [FILE]` runs those of FILE (examples/first.yaml) until Ctrl-C; so does `make run`.
What a service gets goes by its name: ``web`` HTTP, ``echo`` a TCP echo, ``echo-udp`` a UDP echo, others nothing.
Not for use in earnest: it reads whatever it is sent, and has no time limits.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import NoReturn

import click
import trio

from marchproxy_core.config import load
from marchproxy_core.errors import ListenError, MarchProxyError
from marchproxy_core.plugins import discover
from marchproxy_core.port_holder import port_holder
from marchproxy_core.services import Endpoint, Protocol, Service

FIRST = Path(__file__).with_name("first.yaml")

_CHUNK_BYTES = 1 << 16
_MOST_HEAD_BYTES = 1 << 16

Serve = Callable[[trio.SocketStream], Awaitable[None]]


async def serve_backends(
    services: Iterable[Service], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve every backend of the services that this program knows, until cancelled.

    Raises:
        ListenError: A backend's address cannot be opened; says by whom it is held.
    """
    async with trio.open_nursery() as nursery:
        for service in services:
            for name, backend in zip("abcdefgh", service.backends, strict=False):
                endpoint = backend.endpoint
                if service.name == "web":
                    await nursery.start(_serve_tcp, endpoint, functools.partial(_answer_http, name))
                elif service.name == "echo":
                    await nursery.start(_serve_tcp, endpoint, _echo)
                elif service.name == "echo-udp":
                    await nursery.start(_serve_udp, endpoint)
        task_status.started()


async def _serve_tcp(endpoint: Endpoint, serve: Serve, *, task_status: trio.TaskStatus[None]) -> None:
    async def guarded(stream: trio.SocketStream) -> None:
        async with stream:
            with contextlib.suppress(trio.BrokenResourceError):  # a client may go as it likes
                await serve(stream)

    sock = await _bound(Protocol.TCP, endpoint)
    sock.listen(1024)
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, guarded, [trio.SocketListener(sock)])
        task_status.started()


async def _serve_udp(endpoint: Endpoint, *, task_status: trio.TaskStatus[None]) -> None:
    with await _bound(Protocol.UDP, endpoint) as sock:
        task_status.started()
        while True:
            with contextlib.suppress(
                ConnectionRefusedError
            ):  # about an earlier answer, whose client has gone
                data, client = await sock.recvfrom(_CHUNK_BYTES)
                await sock.sendto(data, client)


async def _bound(protocol: Protocol, endpoint: Endpoint) -> trio.socket.SocketType:
    family = socket.AF_INET6 if endpoint.ip.version == 6 else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol is Protocol.TCP else socket.SOCK_DGRAM
    sock = trio.socket.socket(family, kind)
    try:
        if protocol is Protocol.TCP:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        await sock.bind((str(endpoint.ip), endpoint.port))
    except OSError as error:
        sock.close()
        fix = "stop that, or give the backend another port in the file"
        raise cannot_listen("the demo backend", protocol, endpoint, error, fix=fix) from error
    return sock


def cannot_listen(
    who: str, protocol: Protocol, endpoint: Endpoint, error: OSError, *, fix: str
) -> ListenError:
    """Make the error that says who holds an address; looks through /proc, see ``port_holder``."""
    holder = port_holder(protocol, endpoint) if error.errno == errno.EADDRINUSE else ""
    what = os.strerror(error.errno or 0) + (f" by {holder}" if holder else "")
    return ListenError(f"{who} cannot listen on {protocol} {endpoint}: {what} - fix: {fix}")


async def _echo(stream: trio.SocketStream) -> None:
    while data := await stream.receive_some(_CHUNK_BYTES):
        await stream.send_all(data)
    await stream.send_eof()


async def _answer_http(name: str, stream: trio.SocketStream) -> None:
    """Answer HTTP/1.1 requests for as long as the client goes on; their bodies are read and forgotten."""
    client = "{} port {}".format(*stream.socket.getpeername()[:2])
    unread = bytearray()
    while head := await _read_head(stream, unread):
        request, *lines = head.decode("latin-1").split("\r\n")
        fields = (line.partition(":") for line in lines)
        headers = {key.strip().lower(): value.strip() for key, _, value in fields}
        method, _, rest = request.partition(" ")
        path, _, version = rest.rpartition(" ")
        length = headers.get("content-length", "0")
        if not length.isdigit() or "transfer-encoding" in headers or not version.startswith("HTTP/1."):
            await stream.send_all(
                b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            )
            return
        if not await _skip(stream, unread, int(length)):
            return
        body = b"ok\n" if path == "/health" else f"backend {name}; you came from {client}\n".encode()
        options = headers.get("connection", "keep-alive" if version == "HTTP/1.1" else "close").lower()
        stays = "close" not in options
        answer = (
            f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
            f"Connection: {'keep-alive' if stays else 'close'}\r\n\r\n"
        ).encode()
        await stream.send_all(answer if method == "HEAD" else answer + body)
        if not stays:
            return


async def _read_head(stream: trio.SocketStream, unread: bytearray) -> bytes:
    """Return a request's line and headers, without the empty line after them; empty at the end of the stream."""
    while (end := unread.find(b"\r\n\r\n")) < 0:
        data = await stream.receive_some(_CHUNK_BYTES)
        if not data or len(unread) > _MOST_HEAD_BYTES:
            return b""
        unread += data
    head = bytes(unread[:end])
    del unread[: end + 4]
    return head


async def _skip(stream: trio.SocketStream, unread: bytearray, length: int) -> bool:
    """Read a body of so many bytes and forget it; false when the stream ends within it."""
    while len(unread) < length:
        length -= len(unread)
        unread[:] = await stream.receive_some(_CHUNK_BYTES)
        if not unread:
            return False
    del unread[:length]
    return True


def run_program(program: Callable[..., Awaitable[int | None]], *arguments: object) -> NoReturn:
    """Run an async function as a whole program; errors of ours become lines on standard error and an exit status."""
    status, errors = 0, list[MarchProxyError]()
    try:
        status = trio.run(program, *arguments) or 0
    except* KeyboardInterrupt:
        status = 130
    except* MarchProxyError as group:
        errors += _leaves(group)
    for line in (line for error in errors for line in str(error).splitlines()):
        click.echo(f"error: {line}", err=True)
    sys.exit(errors[0].exit_status if errors else status)


def _leaves(group: BaseExceptionGroup[MarchProxyError]) -> Iterator[MarchProxyError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


async def _run(file: Path) -> None:
    await serve_backends(load(file, os.environ, discover().names).services)


@click.command()
@click.argument("file", default=FIRST, type=click.Path(path_type=Path, dir_okay=False))
def main(file: Path) -> None:
    """Run the backends of FILE until Ctrl-C."""
    run_program(_run, file)


if __name__ == "__main__":
    main()
