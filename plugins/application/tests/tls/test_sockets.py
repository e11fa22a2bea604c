"""What a non-blocking SSLSocket does that a worker's streams rely on, or have to mind (CPython 3.11, OpenSSL 3.0)."""

import select
import socket
import ssl

import pytest

from marchproxy_application.tls.picking import Tenant
from marchproxy_application.tls.store import CertificateStore
from marchproxy_core.services import Tls

RECORD = 16384
WAITS = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


@pytest.fixture
def pair(workshop, now_s):
    """Make two connected ends, client and server, after their handshake."""
    store = CertificateStore([Tenant(service="web", tls=Tls(certificates=(workshop.issue("a.test"),)))])
    store.look(now_s)
    opened = []

    def make(*, ragged_is_end=False):
        with socket.create_server(("127.0.0.1", 0)) as listening:
            near = socket.create_connection(listening.getsockname())
            far, _ = listening.accept()
        for sock in (near, far):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
        options = {"do_handshake_on_connect": False, "suppress_ragged_eofs": ragged_is_end}
        client = workshop.client().wrap_socket(near, server_hostname="a.test", **options)
        server = store.context.wrap_socket(far, server_side=True, **options)
        opened.extend((client, server))
        shake(client, server)
        return client, server

    yield make
    for sock in opened:
        sock.close()


def shake(*ends):
    todo = list(ends)
    while todo:
        for end in list(todo):
            try:
                end.do_handshake()
                todo.remove(end)
            except WAITS:
                pass


def comes(sock, timeout_s=10):
    """Wait for something to read; whether it came."""
    return bool(select.select([sock], [], [], timeout_s)[0])


def read_all(sock, length):
    """Read what somebody has sent, waiting for its end."""
    got = b""
    while len(got) < length:
        assert comes(sock)
        try:
            while True:
                got += sock.recv(1 << 18)
        except ssl.SSLWantReadError:
            pass
    return got


def send_all(sock, data):
    """Repeat a write until it is taken."""
    while True:
        try:
            return sock.send(data)
        except ssl.SSLWantWriteError:
            assert select.select([], [sock], [], 10)[1]


def fill(sock, piece):
    """Send a piece until the socket takes no more; how many it took."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
    taken = 0
    try:
        while True:
            assert sock.send(piece) == len(piece)
            taken += 1
    except ssl.SSLWantWriteError:
        return taken


def test_waits_are_no_blocking_io_errors(pair):
    _, server = pair()
    with pytest.raises(ssl.SSLWantReadError) as raised:
        server.recv(1)
    assert isinstance(raised.value, OSError)
    assert not isinstance(raised.value, BlockingIOError)


def test_a_read_gives_one_record_and_epoll_knows_nothing_of_the_rest(pair):
    client, server = pair()
    assert client.send(bytes(RECORD)) == RECORD
    assert comes(server)
    while True:
        try:
            first = server.recv(1000)
            break
        except ssl.SSLWantReadError:
            assert comes(server)
    assert (len(first), server.pending()) == (1000, RECORD - 1000)
    assert not comes(server, 0), "what is left is in OpenSSL, not in the socket"
    assert len(server.recv(1 << 18)) == RECORD - 1000
    client.send(bytes(RECORD * 2))
    sizes = []
    while sum(sizes) < RECORD * 2:
        try:
            sizes.append(len(server.recv(1 << 18)))
        except ssl.SSLWantReadError:
            assert comes(server)
    assert sizes == [RECORD, RECORD]


def test_a_write_is_taken_whole_or_has_to_be_repeated(pair):
    client, server = pair()
    piece = b"a" * RECORD
    taken = fill(server, piece)
    got = read_all(client, taken * RECORD)
    # The refused piece is encrypted already, and partly on its way; it may be repeated with more behind it, from
    # another place (SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER is set, SSL_MODE_ENABLE_PARTIAL_WRITE is not).
    longer = bytearray(piece + b"b" * 10)
    assert send_all(server, longer) == len(longer)
    got += read_all(client, (taken + 1) * RECORD + 10 - len(got))
    assert got == piece * taken + longer


def test_a_write_that_is_repeated_with_less_ends_the_connection(pair):
    _, server = pair()
    fill(server, b"a" * RECORD)
    with pytest.raises(ssl.SSLError, match="BAD_LENGTH"):
        server.send(b"a" * 100)
    with pytest.raises(ssl.SSLError):
        server.send(b"a" * RECORD)


def test_reading_goes_on_while_a_write_is_stuck(pair):
    client, server = pair()
    fill(server, bytes(RECORD))
    client.send(b"hello")
    assert read_all(server, 5) == b"hello"


def test_a_connection_that_is_cut_looks_like_its_end_unless_told_not_to(pair):
    for ragged_is_end in (True, False):
        client, server = pair(ragged_is_end=ragged_is_end)
        client.close()  # with no close_notify
        assert comes(server)
        if ragged_is_end:
            assert server.recv(1) == b""
        else:
            with pytest.raises(ssl.SSLEOFError):
                server.recv(1)


def test_the_end_is_said_and_the_other_way_stays_open(pair):
    client, server = pair()
    with pytest.raises(ssl.SSLWantReadError):
        server.unwrap()  # close_notify is on its way; the client's is still to come
    assert comes(client)
    while True:
        try:
            assert client.recv(1) == b""
            break
        except ssl.SSLWantReadError:  # that were session tickets
            assert comes(client)
    with pytest.raises(ssl.SSLError, match="PROTOCOL_IS_SHUTDOWN"):
        server.send(b"x")
    client.unwrap()
    assert comes(server)
    assert isinstance(server.unwrap(), socket.socket)
