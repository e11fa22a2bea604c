"""A table's readers see the current value and the newest after each change."""

from __future__ import annotations

import trio
import trio.testing

from marchproxy_core.table import Table


async def test_a_reader_sees_the_current_value_then_the_newest_of_each_burst():
    table: Table[int] = Table(1)
    seen = []
    caught_up = trio.Event()

    async def read():
        async for value in table.changes():
            seen.append(value)
            if value == 4:
                caught_up.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        table.publish(2)
        table.publish(3)
        await trio.testing.wait_all_tasks_blocked()
        table.publish(4)
        await caught_up.wait()
        nursery.cancel_scope.cancel()
    assert seen == [1, 3, 4]
    assert table.current == 4


async def test_a_value_is_taken_when_its_reader_asks_for_the_next():
    table: Table[int] = Table(1)
    told = trio.Event()

    async def wait():
        await table.taken()
        told.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        reader = table.changes()
        assert await anext(reader) == 1
        table.publish(2)
        assert await anext(reader) == 2
        await trio.testing.wait_all_tasks_blocked()
        assert not told.is_set()
        nursery.start_soon(anext, reader)
        await told.wait()
        nursery.cancel_scope.cancel()
    await table.taken()
