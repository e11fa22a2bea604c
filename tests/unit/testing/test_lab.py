"""The laboratory carries traffic in both families, fails on command, and never leaves anything behind."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from marchproxy_core.testing.lab import naming, open_lab, sweep
from marchproxy_core.testing.waiting import until

pytestmark = pytest.mark.root


async def exchange(listener, stream):
    async with listener, stream, await listener.accept() as served:
        await stream.send_all(b"ping")
        assert await served.receive_some() == b"ping"
        return served.socket.getpeername()[0]


@pytest.mark.parametrize("version", [4, 6])
async def test_neighbours_talk_and_the_client_does_not_reach_the_server(lab, version):
    front = lab.front_ip.of(version)
    listener = await lab.proxy.listen_tcp(front)
    port = listener.socket.getsockname()[1]
    peer = await exchange(listener, await lab.client.connect_tcp(front, port))
    assert peer == str(lab.client_ip.of(version))

    server = lab.server_ip.of(version)
    listener = await lab.server.listen_tcp(server)
    port = listener.socket.getsockname()[1]
    with trio.move_on_after(0.2) as patience:
        await lab.client.connect_tcp(server, port)
    assert patience.cancelled_caught
    peer = await exchange(listener, await lab.proxy.connect_tcp(server, port))
    assert peer == str(lab.back_ip.of(version))


async def test_a_forwarding_proxy_lets_the_client_through():
    async with open_lab(forwarding=True) as lab:
        for version in (4, 6):
            listener = await lab.server.listen_tcp(lab.server_ip.of(version))
            port = listener.socket.getsockname()[1]
            peer = await exchange(listener, await lab.client.connect_tcp(lab.server_ip.of(version), port))
            assert peer == str(lab.client_ip.of(version))


async def test_programs_run_inside_and_end_with_the_lab():
    async with open_lab() as lab:
        shown = await lab.client.run(["ip", "-o", "link"])
        assert b"to_proxy" in shown.stdout
        assert b"eth0" not in shown.stdout
        port = 18080
        serve = "import socket, sys; s = socket.create_server((sys.argv[1], 18080)); [s.accept() for _ in range(9)]"
        server = await lab.server.start([sys.executable, "-c", serve, str(lab.server_ip.ip4)])
        await lab.proxy.until_listening(lab.server_ip.ip4, port)
        # A grandchild that nobody waits for.
        await lab.proxy.start(["sh", "-c", "setsid sleep 1000 & exec sleep 1001"])
        inside = naming.path_of(lab.proxy.name)

        async def two_sleep():
            return await count_inside(inside) == 2

        await until(two_sleep)
        with inside.open():  # keeps the namespace, to look into it afterwards
            lab_paths = [namespace.path for namespace in lab.namespaces]
            stat = inside.stat()
    assert server.returncode is not None
    assert not any(path.exists() for path in lab_paths)

    async def none_left():
        return await trio.to_thread.run_sync(processes_of, stat) == 0

    await until(none_left)


async def count_inside(path):
    return await trio.to_thread.run_sync(processes_of, path.stat())


def processes_of(stat):
    found = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                mine = (entry / "ns/net").stat()
            except OSError:
                continue
            found += (mine.st_dev, mine.st_ino) == (stat.st_dev, stat.st_ino)
    return found


@pytest.mark.parametrize("version", [4, 6])
async def test_the_silent_backend_and_a_blackholed_way_back_swallow_packets(lab, version):
    with trio.move_on_after(0.2) as patience:
        await lab.proxy.connect_tcp(lab.silent_ip.of(version), 80)
    assert patience.cancelled_caught

    server = lab.server_ip.of(version)
    listener = await lab.server.listen_tcp(server)
    port = listener.socket.getsockname()[1]
    back = f"{lab.back_ip.of(version)}/{32 if version == 4 else 128}"
    await lab.server.blackhole(back)
    with trio.move_on_after(0.2) as patience:
        await lab.proxy.connect_tcp(server, port)
    assert patience.cancelled_caught
    await lab.server.clear_blackhole(back)
    await exchange(listener, await lab.proxy.connect_tcp(server, port))


async def test_interfaces_change_on_command(lab):
    await lab.proxy.set_mtu("to_server", 1280)
    assert b"mtu 1280" in (await lab.proxy.run(["ip", "link", "show", "to_server"])).stdout
    await lab.server.add_address("198.18.1.7/24", "to_proxy")
    await exchange(
        await lab.server.listen_tcp("198.18.1.7", 18081), await lab.proxy.connect_tcp("198.18.1.7", 18081)
    )
    await lab.proxy.set_up("to_server", False)
    with pytest.raises(OSError, match=os.strerror(errno.ENETUNREACH)):
        await lab.proxy.connect_tcp(lab.server_ip.ip4, 18081)
    await lab.proxy.delete_interface("to_client")
    assert b"to_proxy" not in (await lab.client.run(["ip", "-o", "link"])).stdout
    with pytest.raises(OSError, match="no interface"):
        await lab.proxy.delete_interface("to_client")


async def test_a_thread_is_back_home_after_a_call_that_raises(lab):
    home = await trio.to_thread.run_sync(socket.if_nameindex)

    def fail():
        assert "to_proxy" in [name for _, name in socket.if_nameindex()]
        raise ValueError("inside")

    for _ in range(3):
        with pytest.raises(ValueError, match="inside"):
            await lab.client.call(fail)
        assert await trio.to_thread.run_sync(socket.if_nameindex) == home


async def test_a_killed_run_is_swept_away_and_a_living_one_is_not(lab):
    code = (
        "import trio\n"
        "from marchproxy_core.testing.lab import open_lab\n"
        "async def main():\n"
        "    async with open_lab() as lab:\n"
        "        await lab.proxy.start(['sleep', '1000'])\n"
        "        print(lab.proxy.name, flush=True)\n"
        "        await trio.sleep_forever()\n"
        "trio.run(main)\n"
    )
    process = await trio.lowlevel.open_process([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        async with process.stdout:
            name = (await process.stdout.receive_some()).decode().strip()
            stat = naming.path_of(name).stat()
            assert sweep() == ()
            process.send_signal(signal.SIGKILL)
            await process.wait()
    finally:
        process.kill()
        await process.wait()
    swept = sweep()
    assert name in swept
    assert len(swept) == 3
    assert not naming.path_of(name).exists()
    assert lab.proxy.path.exists()

    async def none_left():
        return await trio.to_thread.run_sync(processes_of, stat) == 0

    await until(none_left)


async def test_cancelling_while_it_is_built_leaves_nothing(monkeypatch):
    made = []
    create = naming.create

    def create_and_note(serial, label):
        made.append(create(serial, label))
        if label == "server":
            trio.from_thread.run_sync(scope.cancel)
        return made[-1]

    monkeypatch.setattr(naming, "create", create_and_note)
    with trio.CancelScope() as scope:
        async with open_lab():
            pytest.fail("was to be cancelled")
    assert len(made) == 3
    assert not any(naming.path_of(name).exists() for name in made)
