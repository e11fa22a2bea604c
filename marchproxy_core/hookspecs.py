"""The contract: five hooks that a tier implements. Plain functions that decide; what they return does the work.

A plugin is a module registered under the entry-point group ``marchproxy.tiers``; the entry point's name is
the tier's name. The module holds these hooks and imports nothing that can fail: heavy imports go inside.
Each hook is called for one tier at a time, always by keyword; an implementation may leave out arguments that
it does not use. ``async def`` hooks, hook wrappers and ``specname`` are refused when the plugin is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from marchproxy_core.config import Settings
    from marchproxy_core.host import HostFacts
    from marchproxy_core.model import (
        AttachContext,
        Attachment,
        ProbeReport,
        Runner,
        ServiceTable,
        TierStats,
        Verdict,
    )
    from marchproxy_core.services import Service
    from marchproxy_core.table import Table

PROJECT = "marchproxy"
ENTRY_POINT_GROUP = "marchproxy.tiers"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec(firstresult=True)
def probe(host: HostFacts, settings: Settings) -> ProbeReport | None:
    """Say what this tier could do on this host.

    Called in a thread, at start, on reload, before a demoted tier is tried again, and offline by
    ``marchproxy explain``. Must work without root, finish within 50 ms and leave no trace.

    Args:
        host: Facts of the host, gathered once by the core: kernel, interfaces, capabilities, cores.
        settings: The whole configuration; a tier reads its own settings from it.

    Returns:
        The report, with one requirement for each thing needed, met or not. A need that could not be judged has
        ``met=None``: the tier is then *unknown* and probed again, never taken for refused.

    Raises:
        Anything raised becomes a broken row of the tier table, with the exception's text. A probe that takes
        longer than a second counts as hung.
    """


@hookspec(firstresult=True)
def classify(service: Service, report: ProbeReport) -> Verdict | None:
    """Say whether this tier can carry a service. Pure: same arguments, same verdict; no I/O.

    Args:
        service: A service as configured.
        report: What this tier's ``probe`` returned.

    Returns:
        Accept or decline, each with the reason that an operator will read.
    """


@hookspec(firstresult=True)
def attach(context: AttachContext) -> AbstractAsyncContextManager[Attachment] | None:
    """Take the resources: programs, sockets, processes, VFs, lcores.

    The hook itself only builds the context manager; the work is in ``__aenter__``, which the core enters with a
    deadline of 10 s. ``__aexit__`` gives back all that was taken, within a shielded 5 s; so does ``__aenter__``
    when it fails half-way. Several attachments of one tier may follow each other; two never overlap.

    Args:
        context: Settings, host facts, and the call that tells the core what happened with a backend.

    Returns:
        An async context manager whose value is the tier's :class:`~marchproxy_core.model.Attachment`.

    Raises:
        TierUnavailable: From ``__aenter__``: the host lacks something after all; the tier counts as refused.
        Anything else is a fault: the services move to the next tier, and this one is tried again later.
    """


@hookspec(firstresult=True)
def forward(attachment: Attachment, services: Table[ServiceTable]) -> Runner | None:
    """Return the async callable that moves traffic until it is cancelled.

    Args:
        attachment: What this tier's ``attach`` yielded; attached for as long as the runner runs.
        services: What to carry: ``services.current`` first, then each later value from ``services.changes()``. Of
            an assignment the role may change (see :class:`~marchproxy_core.model.Role`), the backends' health, and
            the service itself by reload; a connection already established is to survive all of these. To ask for the
            next value says that the one before is in effect: a start and a reload wait for that, for 10 s at most.

    Returns:
        ``run(*, task_status)``. It calls ``started()`` last, when traffic of the current table can flow, within 10 s.
        It ends only by cancellation; returning or raising is a fault, and demotes the tier.
    """


@hookspec(firstresult=True)
def stats(attachment: Attachment) -> TierStats | None:
    """Return a frozen snapshot of the tier's counters.

    Called in a thread, at least once a second while the tier runs, so it must not block nor touch trio. It
    doubles as the tier's pulse: a call that raises or takes longer than 5 s demotes the tier, so a tier that knows
    that it no longer moves traffic raises here and says why.

    Args:
        attachment: What this tier's ``attach`` yielded; still attached.

    Returns:
        Counters since attach, by service name: monotonic, in packets and bytes, but for the active connections.
    """
