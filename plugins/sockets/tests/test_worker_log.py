"""What a worker writes into the log: the end of a connection at debug, nothing of it otherwise."""

from __future__ import annotations

import json

import pytest
import trio

from marchproxy_core.config import LogLevel, Settings
from marchproxy_core.testing.servers import receive_all


async def talk(wire, service) -> None:
    with trio.fail_after(20):
        async with await wire.connect(service.listen[0]) as client:
            await client.send_all(b"hello\x1b[31m")
            await client.send_eof()
            assert await receive_all(client) == b"ahello\x1b[31m"


def events(written: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in written.splitlines() if line.startswith("{")]


async def test_at_debug_the_end_of_a_connection_is_one_event(relaying_to, capfd, monkeypatch):
    monkeypatch.setenv("MARCHPROXY_LOG_FORMAT", "json")
    settings = Settings(worker_threads=1, log_level=LogLevel.DEBUG)
    async with relaying_to(settings=settings) as (running, service, wire, server):
        await talk(wire, service)
    closed = [event for event in events(capfd.readouterr().err) if event["event"] == "connection.closed"]
    assert len(closed) == 1
    (event,) = closed
    assert event["process"] == "sockets.0"
    assert (event["service"], event["backend"]) == (service.name, str(server.endpoint))
    assert (event["bytes_in"], event["bytes_out"]) == (10, 11)
    assert event["reason"] is None
    assert str(event["client"]).startswith("127.0.0.1 ")
    assert running.attachment.tier == "sockets"


@pytest.mark.parametrize("level", [LogLevel.INFO, LogLevel.WARNING])
async def test_above_debug_nothing_is_written_of_connections(relaying_to, capfd, monkeypatch, level):
    monkeypatch.setenv("MARCHPROXY_LOG_FORMAT", "json")
    settings = Settings(worker_threads=1, log_level=level)
    async with relaying_to(settings=settings) as (_, service, wire, _):
        await talk(wire, service)
    assert [event for event in events(capfd.readouterr().err) if event["process"] == "sockets.0"] == []
