import errno
import os
import socket
import stat

import attrs
import pytest
import trio

from marchproxy_core.admin.server import open_admin_socket, serve_admin
from marchproxy_core.config import Settings, UnixAddress
from marchproxy_core.errors import ConfigError, ListenError
from marchproxy_core.listeners import ListenerSet
from marchproxy_core.services import Backend, Endpoint, Service

PORT_0 = attrs.evolve(Endpoint.parse("127.0.0.1:1"), port=0)


async def test_address_is_told_once_it_listens_and_is_free_afterwards(make_engine):
    engine = make_engine()
    async with trio.open_nursery() as nursery:
        address = Endpoint.parse(await nursery.start(serve_admin, engine, engine.config.settings))
        stream = await trio.open_tcp_stream(str(address.ip), address.port)
        await stream.aclose()
        nursery.cancel_scope.cancel()
    with open_admin_socket(address) as (_, text):
        assert text == str(address)


async def test_no_descriptor_is_left(make_engine):
    engine = make_engine()
    counts = []
    for _ in range(3):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_admin, engine, engine.config.settings)
            nursery.cancel_scope.cancel()
        counts.append(len(os.listdir("/proc/self/fd")))
    assert counts[0] == counts[1] == counts[2]


async def test_ipv6_loopback(make_engine, serving):
    listen = attrs.evolve(Endpoint.parse("[::1]:1"), port=0)
    async with serving(make_engine(Settings(admin_listen=listen))) as client:
        assert (await client.get("/healthz")).status_code == 200


def test_port_in_use_says_what_to_do():
    with (
        open_admin_socket(PORT_0) as (_, text),
        pytest.raises(ListenError, match=rf"in use already by .*\(pid {os.getpid()}\) - fix: stop"),
        open_admin_socket(Endpoint.parse(text)),
    ):
        pytest.fail("opened twice")


LOOPBACK_AND_EVERY_ADDRESS = [("127.0.0.1", "0.0.0.0"), ("[::1]", "[::]")]


@pytest.mark.parametrize(("loopback", "every"), LOOPBACK_AND_EVERY_ADDRESS)
def test_a_service_on_every_address_of_the_port_leaves_the_admin_api_its_own(loopback, every):
    with open_admin_socket(attrs.evolve(Endpoint.parse(f"{loopback}:1"), port=0)) as (admin, text):
        address = Endpoint.parse(text)
        everywhere = Endpoint.parse(f"{every}:{address.port}")
        service = Service(name="web", listen=(everywhere,), backends=(Backend(endpoint=everywhere),))
        listeners = ListenerSet(2)
        listeners.open([service])
        try:
            admin.settimeout(5)
            for _ in range(8):
                with socket.create_connection((str(address.ip), address.port)) as client:
                    accepted, peer = admin.accept()
                    accepted.close()
                    assert peer == client.getsockname()
        finally:
            listeners.close()


@pytest.mark.parametrize(("loopback", "every"), LOOPBACK_AND_EVERY_ADDRESS)
def test_the_address_is_in_use_when_a_service_of_another_daemon_has_it(loopback, every):
    for taken in (loopback, every):
        listen = attrs.evolve(Endpoint.parse(f"{taken}:1"), port=0)
        listeners = ListenerSet(1)
        listeners.open([Service(name="web", listen=(listen,), backends=(Backend(endpoint=listen),))])
        try:
            port = next(iter(listeners._open.values())).sockets[0].getsockname()[1]
            with (
                pytest.raises(ListenError, match="in use already by"),
                open_admin_socket(Endpoint.parse(f"{loopback}:{port}")),
            ):
                pytest.fail("shares the address")
        finally:
            listeners.close()


def test_foreign_address_says_what_to_do():
    with (
        pytest.raises(
            ListenError, match=r"192\.0\.2\.1:9: not an address of this host - fix: .*ADMIN_LISTEN"
        ),
        open_admin_socket(Endpoint.parse("192.0.2.1:9")),
    ):
        pytest.fail("opened an address of the documentation")


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "[::ffff:127.0.0.1]:1"])
async def test_open_to_the_network_without_a_token_is_refused(make_engine, listen):
    engine = make_engine(Settings(admin_listen=attrs.evolve(Endpoint.parse(listen), port=0)))
    with pytest.raises(ConfigError, match=r"ADMIN_LISTEN: got .*ADMIN_TOKEN"):
        await serve_admin(engine, engine.config.settings)


async def test_open_to_the_network_with_a_token_any_host_is_served(make_engine, serving):
    listen = attrs.evolve(Endpoint.parse("0.0.0.0:1"), port=0)
    async with serving(make_engine(Settings(admin_listen=listen, admin_token="secret"))) as client:
        assert (await client.get("/healthz", headers={"Host": "proxy.example"})).status_code == 200
        assert (await client.post("/admin/reload", headers={"Host": "proxy.example"})).status_code == 401


async def test_unix_socket_is_private_serves_and_is_removed(make_engine, serving, socket_path):
    engine = make_engine(Settings(admin_listen=UnixAddress(str(socket_path))))
    async with serving(engine) as client:
        assert stat.S_IMODE(socket_path.stat().st_mode) == 0o600
        assert (await client.get("/healthz", headers={"Host": "anything"})).status_code == 200
        assert (await client.post("/admin/reload")).status_code == 200
    assert not socket_path.exists()


def test_stale_unix_socket_is_replaced(socket_path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(socket_path))
    with open_admin_socket(UnixAddress(str(socket_path))), socket.socket(socket.AF_UNIX) as visitor:
        visitor.connect(str(socket_path))


def test_unix_socket_with_a_listener_is_left_alone(socket_path):
    address = UnixAddress(str(socket_path))
    with open_admin_socket(address):
        with pytest.raises(ListenError, match="in use already"), open_admin_socket(address):
            pytest.fail("took a living socket")
        assert socket_path.exists()


def test_listener_with_a_full_backlog_lives(socket_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(socket_path))
        listener.listen(0)
        visitors = []
        while True:
            visitor = socket.socket(socket.AF_UNIX)
            visitors.append(visitor)
            visitor.setblocking(False)
            if visitor.connect_ex(str(socket_path)) == errno.EAGAIN:
                break
        with (
            pytest.raises(ListenError, match="in use already"),
            open_admin_socket(UnixAddress(str(socket_path))),
        ):
            pytest.fail("took a busy socket")
        for visitor in visitors:
            visitor.close()


def test_file_in_place_of_the_socket_is_never_removed(socket_path):
    socket_path.write_text("precious")
    with (
        pytest.raises(ListenError, match="no socket is in its place"),
        open_admin_socket(UnixAddress(str(socket_path))),
    ):
        pytest.fail("removed a file")
    assert socket_path.read_text() == "precious"


def test_missing_directory_says_what_to_do(tmp_path):
    with (
        pytest.raises(ListenError, match=r"No such file or directory - fix"),
        open_admin_socket(UnixAddress(str(tmp_path / "none" / "admin.sock"))),
    ):
        pytest.fail("made a directory")


def test_socket_of_a_successor_is_not_removed(socket_path):
    address = UnixAddress(str(socket_path))
    with open_admin_socket(address):
        socket_path.unlink()
        with socket.socket(socket.AF_UNIX) as successor:
            successor.bind(str(socket_path))
    assert socket_path.exists()
