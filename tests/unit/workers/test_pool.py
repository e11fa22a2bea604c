"""Worker processes are started, fed, heard, replaced and ended. Real processes, real sockets."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from marchproxy_core.config import Settings
from marchproxy_core.errors import TierFault
from marchproxy_core.host import gather_host_facts
from marchproxy_core.listeners import ListenerSet
from marchproxy_core.model import Assignment, AttachContext, BackendView, Role, ServiceTable
from marchproxy_core.questions import Purge, Purged, Recall, Recalled
from marchproxy_core.services import Backend, Endpoint, Service
from marchproxy_core.table import Table
from marchproxy_core.testing import ResourceCensus, assert_nothing_leaked, until
from marchproxy_core.workers import asking, open_worker_pool, watching
from marchproxy_core.workers import pool as pool_module

ENTRY = "sample_worker"


@pytest.fixture(autouse=True)
def _find_the_sample(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def a_service() -> Service:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    backend = Backend(endpoint=Endpoint.parse("192.0.2.9:1"))
    return Service(name="web", listen=(Endpoint.parse(f"127.0.0.1:{port}"),), backends=(backend,))


@attrs.define(eq=False)
class Rig:
    pool: pool_module.WorkerPool
    service: Service
    table: Table[ServiceTable]
    observed: list
    group: BaseException | None = None

    async def ask(self, command: bytes = b"") -> int:
        """Connect, send a command, and return the pid of the worker that answered."""
        endpoint = self.service.listen[0]
        with trio.fail_after(20):
            async with await trio.open_tcp_stream(str(endpoint.ip), endpoint.port) as stream:
                pid = int((await stream.receive_some(100)).strip())
                if command:
                    await stream.send_all(command)
                return pid


@asynccontextmanager
async def running(entry: str = f"{ENTRY}:main", workers: int = 1, **settings):
    host = await trio.to_thread.run_sync(gather_host_facts)
    observed: list = []
    context = AttachContext(
        settings=Settings(worker_threads=workers, **settings), host=host, observe=observed.append
    )
    service = a_service()
    listeners = ListenerSet(workers)
    listeners.open([service])
    try:
        async with open_worker_pool(tier="sample", entry=entry, context=context) as pool:
            views = tuple(BackendView(backend=backend) for backend in service.backends)
            assignment = Assignment(
                service=service, role=Role.CHOSEN, backends=views, listeners=listeners.of(service)
            )
            table = Table(ServiceTable({service.name: assignment}))
            async with trio.open_nursery() as nursery:
                await nursery.start(pool.run, table)
                yield Rig(pool, service, table, observed)
                nursery.cancel_scope.cancel()
    finally:
        listeners.close()


async def test_workers_serve_and_leave_nothing_behind():
    async with running():
        pass  # what is made once and kept
    before = ResourceCensus.take()
    async with running(workers=2) as rig:
        assert len(set(rig.pool.pids)) == 2
        assert await rig.ask() in rig.pool.pids
        await until(lambda: rig.pool.stats().services["web"].connections_active == 0)
        assert rig.pool.stats().services["web"].connections_opened == 1
    await assert_nothing_leaked(before)


async def test_a_killed_worker_is_replaced_and_its_clients_wait_in_the_queue():
    async with running() as rig:
        first = await rig.ask()
        os.kill(first, signal.SIGKILL)
        second = await rig.ask()  # nobody is refused meanwhile
        assert second != first
        assert rig.pool.stats().services["web"].connections_opened == 2, "the dead worker's counts are kept"


async def test_what_a_dead_worker_had_open_is_open_no_more():
    async with (
        running() as rig,
        await trio.open_tcp_stream("127.0.0.1", rig.service.listen[0].port) as stream,
    ):
        pid = int((await stream.receive_some(100)).strip())
        assert rig.pool.stats().services["web"].connections_active == 1
        os.kill(pid, signal.SIGKILL)
        await until(lambda: rig.pool.stats().services["web"].connections_active == 0)


async def test_a_worker_that_hangs_is_killed_and_replaced(monkeypatch):
    monkeypatch.setattr(watching, "HUNG_S", 0.7)
    async with running() as rig:
        first = await rig.ask(b"hang")
        assert await rig.ask() != first


async def test_a_worker_that_talks_nonsense_is_replaced():
    async with running() as rig:
        first = await rig.ask(b"nonsense")
        await until(lambda: first not in rig.pool.pids)
        assert await rig.ask() != first


async def test_a_successor_takes_over_before_the_old_worker_retires():
    async with running() as rig:
        first = await rig.ask(b"successor")
        await until(lambda: len(rig.pool.pids) == 1 and first not in rig.pool.pids)
        assert await rig.ask() in rig.pool.pids


async def test_what_a_worker_sees_of_a_backend_reaches_the_core():
    async with running() as rig:
        await rig.ask(b"observe")
        await until(lambda: bool(rig.observed))
        (seen,) = rig.observed
        assert (seen.service, str(seen.backend), seen.ok, seen.error) == (
            "web",
            "192.0.2.9:1",
            False,
            "refused",
        )


async def test_a_service_that_goes_away_and_comes_back_counts_anew():
    async with running() as rig:
        await rig.ask()
        table = rig.table.current
        rig.table.publish(ServiceTable())
        await until(lambda: "web" not in rig.pool.stats().services)
        rig.table.publish(table)
        await rig.ask()
        assert rig.pool.stats().services["web"].connections_opened == 1


async def test_a_worker_that_dies_at_once_fails_the_attach_with_how_it_ended():
    with pytest.RaisesGroup(
        pytest.RaisesExc(TierFault, match="exited with status 1"), flatten_subgroups=True
    ):
        async with running(f"{ENTRY}:no_such_function"):
            raise AssertionError("it cannot be attached")


async def test_a_worker_that_dies_again_and_again_is_the_tiers_fault(monkeypatch):
    monkeypatch.setattr(pool_module, "_MOST_FAILURES", 2)
    with pytest.RaisesGroup(
        pytest.RaisesExc(TierFault, match="died 2 times in a row"), flatten_subgroups=True
    ):
        async with running() as rig:
            await rig.ask(b"die")
            await rig.ask(b"die")
            await trio.sleep_forever()


async def test_workers_run_on_the_cpus_they_are_given():
    cpus = sorted(os.sched_getaffinity(0))
    async with running(workers=2, proxy_cpu_affinity=(cpus[-1],)) as rig:
        assert [os.sched_getaffinity(pid) for pid in rig.pool.pids] == [{cpus[-1]}] * 2


async def test_above_the_memory_limit_workers_are_told(monkeypatch):
    monkeypatch.setattr(watching, "MEMORY_LOOK_S", 0.01)
    used = 1 << 30
    monkeypatch.setattr(watching, "daemon_memory_bytes", lambda: used)
    async with running(max_memory_mb=100) as rig:
        full = rig.pool._ledger.regions[0]
        await until(lambda: full[3] == 1)
        used = 1 << 20
        await until(lambda: full[3] == 0)


async def test_all_workers_are_asked_and_the_one_that_knows_answers():
    async with running(workers=2) as rig:
        for index in (0, 1):
            recalled = await rig.pool.recall(Recall(request_id=str(index)))
            assert recalled == Recalled(found={"pid": rig.pool.pids[index]})
        assert await rig.pool.recall(Recall(request_id="nobody's")) == Recalled(found=None)
        assert await rig.pool.purge(Purge(service="web")) == Purged(forgotten=5)


async def test_a_worker_that_answers_twice_or_with_no_number_is_taken_for_one():
    async with running() as rig:
        assert await rig.pool.recall(Recall(request_id="twice")) == Recalled(found={"pid": rig.pool.pids[0]})
        assert await rig.pool.purge(Purge(service="other")) == Purged(forgotten=0)


async def test_who_does_not_answer_in_time_is_told_to_be_silent(monkeypatch):
    monkeypatch.setattr(asking, "ANSWER_DEADLINE_S", 0.1)
    async with running(workers=2) as rig:
        assert await rig.pool.recall(Recall(request_id="mute")) == Recalled(found=None, silent=2)


async def test_nobody_waits_for_a_worker_that_dies_of_the_question(monkeypatch):
    monkeypatch.setattr(asking, "ANSWER_DEADLINE_S", 60.0)
    async with running() as rig:
        with trio.fail_after(20):
            assert await rig.pool.recall(Recall(request_id="die")) == Recalled(found=None)
