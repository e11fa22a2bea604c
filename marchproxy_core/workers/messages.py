"""What the control process tells its workers. Plain frozen values, pickled: the worker trusts its parent.

The other way, from processes that handle what strangers send, only JSON goes: see ``channel``.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from marchproxy_core.config import Settings
from marchproxy_core.door import Rule
from marchproxy_core.model import BackendView, Role
from marchproxy_core.questions import Question
from marchproxy_core.services import Endpoint, Service
from marchproxy_core.workers.cells import ServiceCells


@attrs.frozen(kw_only=True)
class Lend:
    """A listening socket, whose descriptor comes with the message; the worker owns its copy."""

    number: int
    """Names the socket in :class:`Work`; never used twice."""
    endpoint: Endpoint


@attrs.frozen(kw_only=True)
class ServiceWork:
    """One service as this worker is to carry it."""

    service: Service
    role: Role
    backends: tuple[BackendView, ...]
    listeners: tuple[int, ...]
    """Numbers of sockets lent. Of a draining service: none, the worker keeps what it needs until the end."""
    cells: ServiceCells


@attrs.frozen(kw_only=True)
class Work:
    """All that a worker is to carry; replaces what came before. Sockets it does not name are to be closed."""

    version: int
    settings: Settings
    services: tuple[ServiceWork, ...]


@attrs.frozen(kw_only=True)
class Doors:
    """The rules at the front door from here on, sent before the work that they are first in force for."""

    rules: tuple[Rule, ...]


@attrs.frozen(kw_only=True)
class Flush:
    """Backends, by service, that are flushed: for a worker that is to retire, and gets no more :class:`Work`."""

    services: Mapping[str, frozenset[Endpoint]]


@attrs.frozen(kw_only=True)
class Retire:
    """Take nothing new, and end when the last connection has ended, or after the drain timeout."""


@attrs.frozen(kw_only=True)
class Ask:
    """A question, to be answered at once by a report with the same ticket."""

    ticket: int
    question: Question


Message = Lend | Work | Doors | Flush | Retire | Ask
