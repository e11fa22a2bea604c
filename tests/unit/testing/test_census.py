"""A census names what is held, and two of them what was leaked."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import attrs
import pytest
import trio

from marchproxy_core.testing.census import ResourceCensus, assert_nothing_leaked
from marchproxy_core.testing.waiting import until


async def test_each_kind_of_resource_is_seen_and_named(tmp_path):
    before = ResourceCensus.take([tmp_path])
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="left-behind")
    async with trio.open_nursery() as nursery:
        sock = socket.socket()
        process = await trio.lowlevel.open_process(["sleep", "1000"])
        await until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n")
        thread.start()
        nursery.start_soon(trio.sleep_forever, name="forgotten")
        (tmp_path / "trace").touch()
        leaked = ResourceCensus.take([tmp_path]).leaked_since(before)
        with pytest.raises(AssertionError, match="leaked:\n"):
            await assert_nothing_leaked(before, [tmp_path], deadline_s=0.05)
        process.kill()
        await process.wait()
        nursery.cancel_scope.cancel()
    sock.close()
    stop.set()
    (tmp_path / "trace").unlink()
    text = "\n".join(leaked)
    for said in (f"{process.pid} 'sleep'", "left-behind", "forgotten", "socket:[", str(tmp_path / "trace")):
        assert said in text
    await assert_nothing_leaked(before, [tmp_path])


def test_a_child_that_becomes_another_program_is_still_the_same_child():
    before = attrs.evolve(ResourceCensus.take(), children=frozenset({"4711 'python3'"}))
    assert attrs.evolve(before, children=frozenset({"4711 'sleep'"})).leaked_since(before) == ()
    leaked = attrs.evolve(before, children=frozenset({"4711 'sleep'", "471 'sleep'"})).leaked_since(before)
    assert leaked == ("children: 471 'sleep'",)


async def test_what_goes_away_in_time_is_no_leak():
    before = ResourceCensus.take()
    reader, writer = os.pipe()

    async def close_later():
        await trio.sleep(0.02)
        os.close(reader)
        os.close(writer)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(close_later)
        assert ResourceCensus.take().descriptors_by_kind["pipe"] >= 2
        await assert_nothing_leaked(before_with_tasks(before))


def before_with_tasks(before):
    return attrs.evolve(before, tasks=ResourceCensus.take().tasks)
