"""Our own generators and backends, over real sockets."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import threading
from contextlib import closing

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.http.servers import PROGRAMS, SMALL, make_certificate
from bench.programs.http_sink import Connection
from marchproxy_core.testing import until

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"


def free_port():
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        return taken.getsockname()[1]


def program(name, *argv):
    return [sys.executable, str(PROGRAMS / name), *map(str, argv)]


def run(name, *argv):
    return subprocess.run(program(name, *argv), capture_output=True, text=True, check=False, timeout=30)


async def listens(port):
    with closing(socket.socket()) as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
async def echo_port():
    port = free_port()
    server = await trio.lowlevel.open_process(program("websocket_traffic.py", "serve", port))
    try:
        await until(lambda: listens(port), what="the echo server")
        yield port
    finally:
        server.kill()
        await server.wait()


async def test_websockets_are_echoed_and_timed(echo_port):
    argv = ("websocket_traffic.py", "drive", "127.0.0.1", echo_port, 0.2, 3, 64)
    done = await trio.to_thread.run_sync(run, *argv)

    report = json.loads(done.stdout)
    assert report["echoed"] > 3
    assert 0 < report["p50_us"] <= report["p99_us"]


def test_who_is_no_websocket_server_ends_the_generator_with_its_answer():
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def refuse():
            sock, _ = listener.accept()
            with closing(sock):
                sock.recv(65536)
                sock.sendall(b"HTTP/1.1 404 Not Found\r\n\r\n")

        thread = threading.Thread(target=refuse)
        thread.start()
        done = run("websocket_traffic.py", "drive", "127.0.0.1", listener.getsockname()[1], 0.2, 1, 64)
        thread.join()

    assert done.returncode == 1
    assert "404 Not Found" in done.stderr


def in_chunks(body, size):
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@settings(max_examples=50, deadline=None)
@given(
    bodies=st.lists(st.tuples(st.binary(max_size=300), st.integers(0, 100)), min_size=1, max_size=4),
    cut=st.integers(1, 200),
)
def test_a_sink_answers_each_upload_once_however_it_is_cut(bodies, cut):
    requests = b""
    for body, size in bodies:
        framing = b"Transfer-Encoding: chunked" if size else b"Content-Length: %d" % len(body)
        requests += b"POST / HTTP/1.1\r\n" + framing + b"\r\n\r\n"
        requests += in_chunks(body, size) if size else body
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        sink = Connection(theirs)
        for at in range(0, len(requests), cut):
            ours.sendall(requests[at : at + cut])
            assert sink.take()
            while theirs.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) if has_more(theirs) else b"":
                assert sink.take()
        ours.setblocking(False)
        assert ours.recv(4096) == ANSWER * len(bodies)


def has_more(sock):
    try:
        return bool(sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return False


@pytest.fixture
def tls_port(tmp_path):
    """A server of TLS 1.3 that answers each connection's request and closes; gives tickets unless told otherwise."""
    own = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certificate, own.key)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(sock, server_side=True) as secure:
                    secure.recv(65536)
                    secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n" + SMALL.encode())
                    secure.unwrap()
            except (ssl.SSLError, OSError):
                continue

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


@pytest.mark.parametrize("kind", ["full", "resumed"])
def test_connections_are_resumed_when_asked_and_only_then(tls_port, kind):
    done = run("tls_traffic.py", "127.0.0.1", tls_port, "/small", 0.3, 1, kind)

    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert report["count"] > 1
    assert report["resumed"] == (report["count"] if kind == "resumed" else 0)
    assert 0 < report["p50_us"] <= report["p99_us"]
