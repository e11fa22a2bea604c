"""A worker that is killed takes its own clients along; the others go on, and new clients are served."""

from __future__ import annotations

import os
import signal

import trio

from marchproxy_core.config import Settings
from marchproxy_core.testing import until
from plugins.application.tests.http_rig import Ended


async def test_others_go_on_where_a_worker_is_killed(serving, origin):
    async with origin() as a, serving(a, settings=Settings(worker_threads=2)) as site:
        clients = [await site.client() for _ in range(20)]
        for client in clients:
            assert (await client.ask()).status == 200
        killed, other = site.running.attachment.pool.pids
        os.kill(killed, signal.SIGKILL)

        async def is_replaced():
            pids = site.running.attachment.pool.pids
            return len(pids) == 2 and killed not in pids

        await until(is_replaced)
        assert other in site.running.attachment.pool.pids
        lost = 0
        for client in clients:
            try:
                assert (await client.ask()).status == 200
            except (Ended, trio.BrokenResourceError):  # a FIN or a reset, by where it was
                lost += 1
        assert 0 < lost < len(clients)
        for _ in range(20):
            assert (await (await site.client()).ask()).status == 200
