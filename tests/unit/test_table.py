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
