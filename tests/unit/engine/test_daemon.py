"""The daemon as a whole: admin API, reload and signals, with a tier that really serves."""

from __future__ import annotations

import io
import json
import os
import signal
import socket

import attrs
import pytest
import structlog
import trio

from marchproxy_core import logs
from marchproxy_core.config import Config, Settings
from marchproxy_core.config.choices import LogLevel
from marchproxy_core.engine.daemon import serve
from marchproxy_core.errors import ConfigError, ConfigProblem
from marchproxy_core.host import gather_host_facts
from marchproxy_core.plugins import Tiers
from marchproxy_core.services import Backend, Endpoint, Service

HOST = gather_host_facts()


def here():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return Endpoint.parse(f"127.0.0.1:{sock.getsockname()[1]}")


def service(name):
    endpoint = here()
    return Service(name=name, listen=(endpoint,), backends=(Backend(endpoint=endpoint),))


async def ask(address, path, method="GET"):
    """One HTTP exchange: status and JSON body."""
    stream = await trio.open_tcp_stream(str(address.ip), address.port)
    async with stream:
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )
        await stream.send_all(head.encode())
        answer = b"".join([part async for part in stream])
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


@pytest.fixture
def config():
    settings = attrs.evolve(Settings(), admin_listen=here(), worker_threads=1, drain_timeout=5.0)
    return Config(settings=settings, services=(service("echo"),))


async def test_an_operator_sees_reloads_and_ends_it(echo_tier, config):
    newer = [attrs.evolve(config, services=(*config.services, service("second")))]
    admin = config.settings.admin_listen

    def load():
        if not newer:
            raise ConfigError((ConfigProblem("rules.yaml:1", "services", "", "a list"),))
        return newer.pop()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            daemon = await nursery.start(
                serve, config, Tiers.of({"only": echo_tier("only", 700)}), load, HOST
            )
            assert (await ask(admin, "/readyz"))[0] == 200
            status, body = await ask(admin, "/admin/acceleration")
            assert status == 200
            assert "only" in json.dumps(json.loads(body))
            assert (await ask(admin, "/admin/reload", "POST"))[0] == 200
            assert [one.name for one in daemon.config.services] == ["echo", "second"]
            status, body = await ask(admin, "/admin/reload", "POST")
            assert status == 422
            assert b"rules.yaml:1" in body
            assert len(daemon.config.services) == 2
            assert b"marchproxy_tier_state" in (await ask(admin, "/metrics"))[1]
            os.kill(os.getpid(), signal.SIGTERM)
        # The nursery ends when the daemon has drained.
    assert not daemon.ready


def changed(config, **settings):
    return attrs.evolve(config, settings=attrs.evolve(config.settings, **settings))


@pytest.mark.parametrize("new", [{"log_level": LogLevel.DEBUG}, {"proxy_debug": True}])
async def test_a_reload_changes_the_level_of_the_log_and_nothing_else_of_it(echo_tier, config, new):
    stream = io.StringIO()
    logs.configure("control", level="warning", stream=stream)
    config = changed(config, log_level=LogLevel.WARNING)
    admin = config.settings.admin_listen
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            tiers = Tiers.of({"only": echo_tier("only", 700)})
            daemon = await nursery.start(serve, config, tiers, lambda: changed(config, **new), HOST)
            await daemon.reload()
            before = stream.getvalue()
            assert (await ask(admin, "/readyz"))[0] == 200
            daemon.drain()
    line = json.loads(stream.getvalue().removeprefix(before).splitlines()[0])
    assert (line["event"], line["level"], line["process"]) == ("admin.request_answered", "debug", "control")


async def test_io_threads_bounds_the_calls_that_block_and_notes_are_told(echo_tier, config):
    noted = attrs.evolve(changed(config, io_threads=3), notes=("GOGC scales something",))
    with structlog.testing.capture_logs() as events, trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            tiers = Tiers.of({"only": echo_tier("only", 700)})
            daemon = await nursery.start(serve, noted, tiers, lambda: config, HOST)
            assert trio.to_thread.current_default_thread_limiter().total_tokens == 3
            daemon.drain()
    assert [event["note"] for event in events if event["event"] == "config.noted"] == list(noted.notes)
