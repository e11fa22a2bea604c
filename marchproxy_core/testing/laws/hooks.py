"""Laws of the hooks themselves: probe, classify, attach, stats. No traffic."""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import attrs
import trio

from marchproxy_core.model import Outcome, Path, ProbeReport, TierStats, Verdict
from marchproxy_core.services import (
    Auth,
    AuthType,
    Backend,
    Cache,
    Certificate,
    Endpoint,
    Http,
    Protocol,
    Service,
    Tls,
)
from marchproxy_core.testing.census import ResourceCensus, assert_nothing_leaked
from marchproxy_core.testing.lab.naming import in_own_thread

if TYPE_CHECKING:
    from marchproxy_core.testing.subject import Subject
    from marchproxy_core.testing.wire import Wire

T = TypeVar("T")

_MOST_CANCELLATIONS = 12
_CAPABILITY_VERSION_3 = 0x20080522  # include/uapi/linux/capability.h

_HERE = Endpoint.parse("192.0.2.1:80")
_PLAIN = Service(name="plain", listen=(_HERE,), backends=(Backend(endpoint=_HERE),))
_HTTP = attrs.evolve(_PLAIN, name="http", http=Http())
_KINDS = (
    _PLAIN,
    attrs.evolve(_PLAIN, name="udp", protocol=Protocol.UDP),
    attrs.evolve(_PLAIN, name="passthrough", tls=Tls(passthrough=True, hosts=("example.org",))),
    _HTTP,
    attrs.evolve(_HTTP, name="hosts", http=Http(hosts=("example.org",), paths=("/api",))),
    attrs.evolve(_HTTP, name="jwt", auth=Auth(type=AuthType.JWT, issuer="https://example.org")),
    attrs.evolve(
        _HTTP,
        name="tls",
        tls=Tls(certificates=(Certificate(certificate="/nowhere.pem", key="/nowhere.key"),)),
    ),
    attrs.evolve(_HTTP, name="websocket", websocket=True),
    attrs.evolve(_HTTP, name="cache", cache=Cache()),
)


async def probe_reports_what_it_needs_and_leaves_no_trace(subject: Subject, wire: Wire) -> None:
    """Probing returns a complete report, again and again the same one, and leaves nothing behind."""
    del wire
    before = ResourceCensus.take()
    first = await _in_thread(subject.probe)
    second = await _in_thread(subject.probe)
    _assert_complete(first)
    assert first.outcome is second.outcome, f"probed twice: {first.outcome}, then {second.outcome}"
    needs = [[requirement.need for requirement in report.requirements] for report in (first, second)]
    assert needs[0] == needs[1], f"probed twice, it needs different things: {needs[0]}, then {needs[1]}"
    await assert_nothing_leaked(before)


async def probe_needs_no_root(subject: Subject, wire: Wire) -> None:
    """Without any capability the probe still answers; that something is not met is an answer too."""
    del wire
    host = attrs.evolve(subject.host, is_root=False, capabilities=frozenset())
    reports: list[ProbeReport] = []

    def probe() -> None:
        _drop_capabilities_of_this_thread()
        reports.append(subject.probe(host))

    await trio.to_thread.run_sync(in_own_thread, probe)
    _assert_complete(reports[0])


async def classify_is_pure_and_gives_its_reason(subject: Subject, wire: Wire) -> None:
    """Every kind of service gets a verdict with a reason, the same each time; a slow-path one may be declined."""
    del wire
    before = ResourceCensus.take()
    for service in _KINDS:
        verdicts = [await _in_thread(functools.partial(subject.classify, service)) for _ in range(2)]
        assert verdicts[0] == verdicts[1], (
            f"classified {service.name} twice: {verdicts[0]}, then {verdicts[1]}"
        )
        _assert_reasoned(service, verdicts[0])
    await assert_nothing_leaked(before)


async def attach_gives_everything_back_and_can_follow_itself(subject: Subject, wire: Wire) -> None:
    """Attached and detached three times in a row, the tier holds what it held after the first time."""
    del wire
    async with subject.attached():
        pass  # what is made once and kept, as an imported library, counts as before
    before = ResourceCensus.take()
    for _ in range(2):
        async with subject.attached() as attachment:
            assert attachment.tier, "Attachment.tier is empty"
        await assert_nothing_leaked(before)


async def attach_cancelled_at_any_checkpoint_gives_everything_back(subject: Subject, wire: Wire) -> None:
    """Cancelling in the midst of attaching leaves nothing behind, at up to twelve places spread over it."""
    del wire
    steps = _CancelAtStep(None)
    await _attach_watched(subject, steps)
    before = ResourceCensus.take()
    stride = max(1, -(-steps.seen // _MOST_CANCELLATIONS))
    for step in range(1, steps.seen + 1, stride):
        await _attach_watched(subject, _CancelAtStep(step))
        await assert_nothing_leaked(before)


async def stats_answer_as_soon_as_the_tier_runs(subject: Subject, wire: Wire) -> None:
    """Stats are there from the first moment on, from any thread, also with nothing to carry."""
    del wire
    async with subject.running() as running:
        snapshot = await running.stats()
        assert isinstance(snapshot, TierStats)
        assert all(stats.connections_opened == 0 for stats in snapshot.services.values())


LAWS = (
    probe_reports_what_it_needs_and_leaves_no_trace,
    probe_needs_no_root,
    classify_is_pure_and_gives_its_reason,
    attach_gives_everything_back_and_can_follow_itself,
    attach_cancelled_at_any_checkpoint_gives_everything_back,
    stats_answer_as_soon_as_the_tier_runs,
)


def _assert_complete(report: ProbeReport) -> None:
    for requirement in report.requirements:
        assert requirement.need, f"a requirement without need: {requirement}"
        assert requirement.have, f"need {requirement.need}: it does not say what it found (have)"
        if requirement.met is not True:
            assert requirement.fix, f"need {requirement.need}: not met, and no fix is given"
    if report.outcome is not Outcome.USABLE:
        assert report.reason, f"{report.outcome} without a reason"


def _assert_reasoned(service: Service, verdict: Verdict) -> None:
    assert verdict.reason, f"the verdict on {service.name} has no reason"
    path = Path.SLOW if service.slow_path_reasons else Path.FAST
    assert verdict.path is path, f"{service.name} asks for the {path} path, the verdict says {verdict.path}"


async def _in_thread(work: Callable[[], T]) -> T:
    return await trio.to_thread.run_sync(work, abandon_on_cancel=True)


class _CancelAtStep(trio.abc.Instrument):
    """Counts the steps of one task, and cancels its scope after one of them, while the task waits for the next."""

    def __init__(self, step: int | None) -> None:
        self.seen = 0
        self.scope = trio.CancelScope()
        self._step = step
        self._task: trio.lowlevel.Task | None = None

    def watch(self) -> None:
        """Count from here on, in the calling task."""
        self._task = trio.lowlevel.current_task()

    def stop(self) -> None:
        """Count no further."""
        self._task = None

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count, and cancel when it is time."""
        if task is self._task:
            self.seen += 1
            if self.seen == self._step:
                self.scope.cancel()


async def _attach_watched(subject: Subject, steps: _CancelAtStep) -> None:
    trio.lowlevel.add_instrument(steps)
    try:
        with steps.scope:
            steps.watch()
            async with subject.attached():
                steps.stop()
    finally:
        trio.lowlevel.remove_instrument(steps)


def _drop_capabilities_of_this_thread() -> None:
    """Give up every effective capability; capset(2) is about the calling thread, which then ends."""
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    nothing = struct.pack("6I", 0, 0, 0, 0, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(header, nothing) != 0:
        raise OSError(ctypes.get_errno(), "capset")
