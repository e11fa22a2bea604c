"""The values that cross the contract between the core and its tiers.

Frozen, free of I/O, importable without any tier. Who fills in what: a tier's hooks return
:class:`ProbeReport`, :class:`Verdict`, :class:`Attachment` and :class:`TierStats`; the core makes the rest.
"""

from __future__ import annotations

import enum
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Protocol

import attrs

from marchproxy_core.config import Settings
from marchproxy_core.door import Rule
from marchproxy_core.host import HostFacts
from marchproxy_core.questions import Purge, Purged, Recall, Recalled
from marchproxy_core.services import Backend, Endpoint, Service

if TYPE_CHECKING:
    import trio


class Outcome(enum.StrEnum):
    """What a probe found."""

    USABLE = "usable"
    DEGRADED = "degraded"
    """Works, but slower than a lower tier would; skipped unless the settings force it."""
    REFUSED = "refused"
    UNKNOWN = "unknown"
    """The probe could not tell; tried again later, never read as refused for good."""


class Carries(enum.StrEnum):
    """What a tier moves, which decides how it shares an address with the tiers below it."""

    PACKETS = "packets"
    """Takes packets before the host's stack; what it leaves goes on to the stack, where lower tiers listen."""
    CONNECTIONS = "connections"
    """Accepts from the listeners that the core opened; two such tiers never accept for one service."""


@attrs.frozen(kw_only=True)
class Requirement:
    """One thing that a tier needs of the host, and what was found."""

    need: str
    have: str
    fix: str = ""
    """What the operator can do; empty when the need is met."""
    met: bool | None
    """None: could not tell."""
    source: str = ""
    """How we know: a kernel document, an RFC, a manual page."""


@attrs.frozen(kw_only=True)
class ProbeReport:
    """What a tier could do on this host, and why."""

    order: int
    """Place in the chain, lower is higher; DESIGN's tiers are at 100, 200 … 700."""
    carries: Carries
    requirements: tuple[Requirement, ...]
    keeps_door: bool = False
    """Whether it keeps to :attr:`ServiceTable.door`."""
    loses: str = ""
    """What is lost by running here; makes a tier whose needs are met DEGRADED."""

    @property
    def outcome(self) -> Outcome:
        """The requirements and the loss, as one word."""
        met = [requirement.met for requirement in self.requirements]
        if False in met:
            return Outcome.REFUSED
        if None in met:
            return Outcome.UNKNOWN
        return Outcome.DEGRADED if self.loses else Outcome.USABLE

    @property
    def reason(self) -> str:
        """Why the tier is not simply usable; empty when it is."""
        unmet = [r for r in self.requirements if r.met is not True]
        if unmet:
            return "; ".join(f"need {r.need}, have {r.have}" for r in unmet)
        return self.loses


class Path(enum.StrEnum):
    """Which kind of tier a service asks for."""

    FAST = "fast"
    SLOW = "slow"


@attrs.frozen(kw_only=True)
class Verdict:
    """Whether a tier carries a service, and why."""

    accept: bool
    path: Path
    reason: str


class Role(enum.StrEnum):
    """What a tier does for a service at the moment."""

    CHOSEN = "chosen"
    """Carries it: takes new connections."""
    ARMED = "armed"
    """Below a chosen packet tier: takes new connections that fall through to it."""
    STANDBY = "standby"
    """Below a tier that accepts from the same listeners: holds everything ready, accepts nothing."""
    DRAINING = "draining"
    """Going away: established connections go on until they end or are cut off, and nothing new is taken but what
    waits in the accept queues already. The assignment has no listeners any more, since the core has closed them: a
    tier that accepts takes all that its duplicates have queued, without waiting for more, and then closes them."""

    @property
    def takes_new(self) -> bool:
        """Whether new connections and flows are taken."""
        return self in (Role.CHOSEN, Role.ARMED)


@attrs.frozen(eq=False)
class Listener:
    """An open listen address of a service: one bound SO_REUSEPORT socket per worker, non-blocking.

    TCP sockets listen already. The core opens and closes the sockets; a tier never closes these, and accepts from
    duplicates of its own (``dup``, or descriptors passed to a worker), which it makes before its next checkpoint
    after it got the table: later the core may have closed its own. That resets nobody in an accept queue for as
    long as one duplicate is open; closing the last one resets those that still wait.
    """

    endpoint: Endpoint
    sockets: tuple[socket.socket, ...] = attrs.field(repr=False)


class Health(enum.StrEnum):
    """What is known of a backend."""

    UNCHECKED = "unchecked"
    UP = "up"
    DOWN = "down"
    """Failed its active health check."""
    EJECTED = "ejected"
    """Refused or lost connections of clients; back after a pause."""
    DRAINING = "draining"
    """Weight 0; flushed, if it says so."""


@attrs.frozen(kw_only=True)
class BackendView:
    """A backend as a tier should see it now."""

    backend: Backend
    health: Health = Health.UNCHECKED

    @property
    def takes_new(self) -> bool:
        """Whether new connections may go to it."""
        return self.backend.weight > 0 and self.health in (Health.UNCHECKED, Health.UP)


@attrs.frozen(kw_only=True, eq=False)
class Assignment:
    """One service as one tier has it at the moment."""

    service: Service
    role: Role
    backends: tuple[BackendView, ...]
    """All of the service's backends, in its order. When none takes new connections, a tier uses all that
    have a weight: a wrong health check must not take down what still works."""
    listeners: tuple[Listener, ...] = ()

    @property
    def flushed(self) -> frozenset[Endpoint]:
        """Where the backends are whose connections and flows are to end now."""
        return frozenset(view.backend.endpoint for view in self.backends if view.backend.flush)


@attrs.frozen(eq=False)
class ServiceTable:
    """What a tier has to carry, by service name; replaced as a whole at each change."""

    assignments: Mapping[str, Assignment] = attrs.field(factory=dict)
    settings: Settings = attrs.field(factory=Settings)
    """Those in force: a reload may change limits and timeouts under a tier that stays attached."""
    door: tuple[Rule, ...] = ()
    """Which clients may come in: the settings', the services' and what an operator asked for, as they are in force. A
    tier that keeps to them says so in its :class:`ProbeReport`; the same tuple while nothing changed."""


@attrs.frozen(kw_only=True)
class ServiceStats:
    """Counters of one service in one tier since it attached; all grow only, apart from the active ones."""

    connections_opened: int = 0
    connections_active: int = 0
    bytes_in: int = 0
    """From clients to backends, in bytes of payload (connections) or of IP packets (packets)."""
    bytes_out: int = 0
    packets_in: int = 0
    """Packets, or datagrams of a UDP relay; 0 where a tier does not see packets."""
    packets_out: int = 0
    drops: Mapping[str, int] = attrs.field(factory=dict)
    """Refused connections and requests, and dropped packets, by reason (``marchproxy_core/drops.py``)."""
    backend_active: Mapping[str, int] = attrs.field(factory=dict)
    """Open connections by backend, ``str(endpoint)``."""
    answers: Mapping[str, int] = attrs.field(factory=dict)
    """Requests by the class of the status that they were answered with, ``1xx`` to ``5xx``. This and all below are of
    HTTP, and empty or 0 where a tier does not read requests."""
    durations: tuple[int, ...] = ()
    """Requests by how long they took: one count for each of ``DURATION_BOUNDS_S`` (``marchproxy_core.workers.ledger``),
    of those that took no longer and longer than the bound before; last those above all bounds. Empty: none yet."""
    duration_sum_s: float = 0.0
    """What these took together, in seconds."""
    cache: Mapping[str, int] = attrs.field(factory=dict)
    """Requests by what the cache had for them: hit, stale, revalidated, miss or bypass."""
    retries: int = 0
    """Attempts after the first one of a request."""
    reused: int = 0
    """Requests sent on a connection to a backend that had served before."""
    websockets_active: int = 0

    @property
    def saw_requests(self) -> bool:
        """Whether anything of HTTP was counted."""
        counted = (
            self.answers,
            self.durations,
            self.cache,
            self.retries,
            self.reused,
            self.websockets_active,
        )
        return any(counted)


@attrs.frozen(kw_only=True)
class TierStats:
    """Counters of one tier, by service name."""

    services: Mapping[str, ServiceStats] = attrs.field(factory=dict)
    packets_seen: Mapping[str, int] = attrs.field(factory=dict)
    """All packets that a packet tier's program saw, also those of no service, by what became of them; grow only."""


@attrs.frozen(kw_only=True)
class BackendObservation:
    """What a tier saw of a backend while it carried traffic; feeds passive ejection."""

    service: str
    backend: Endpoint
    ok: bool
    error: str = ""


@attrs.define(eq=False, kw_only=True)
class Attachment:
    """What a tier holds while attached. Tiers subclass it with their own resources."""

    tier: str
    interfaces: frozenset[str] = frozenset()
    """Names of the interfaces it stands on: when netlink says that one is gone, the tier is demoted."""
    outlives: bool = False
    """Whether it can go on without the daemon: what it has in the kernel forwards by itself, and its detaching leaves
    it there when ``AttachContext.stays`` says so."""
    recall: Callable[[Recall], Awaitable[Recalled]] | None = None
    """Says what became of a request that is over; None: the tier remembers none. This and the next are called in the
    trio thread, with a deadline of 2 s."""
    purge: Callable[[Purge], Awaitable[Purged]] | None = None
    """Forgets what is cached; None: the tier has no cache."""


@attrs.frozen(kw_only=True)
class AttachContext:
    """What the core hands to ``attach``."""

    settings: Settings
    host: HostFacts
    observe: Callable[[BackendObservation], None]
    """Tell the core what happened with a backend; call it from the trio thread."""
    stays: Callable[[], bool] = lambda: False
    """Asked while detaching: whether what forwards in the kernel is to stay, since the daemon ends and was told to
    ``--keep-attached``. From any thread."""


class Runner(Protocol):
    """What ``forward`` returns: moves traffic until it is cancelled."""

    async def __call__(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Call ``task_status.started()`` last: when packets of the current table can flow."""


@attrs.frozen
class Candidate:
    """One thing that was considered in a decision, and why it was or was not taken."""

    name: str
    taken: bool
    reason: str


@attrs.frozen(kw_only=True)
class Decision:
    """The record of one choice. The log, the metrics, the admin API and ``explain`` all read this value."""

    subject: str
    """What was decided, as ``tier of service web``."""
    chosen: str | None
    candidates: tuple[Candidate, ...]


@attrs.frozen(kw_only=True)
class ServicePlan:
    """The chain of tiers for one service: chosen first, then those it falls back to, in order."""

    service: Service
    path: Path
    chain: tuple[str, ...]
    decision: Decision

    @property
    def chosen(self) -> str | None:
        """The tier that carries the service, None when no tier can."""
        return self.chain[0] if self.chain else None


class TierState(enum.StrEnum):
    """What became of a tier, for the tier table and ``marchproxy_tier_state``."""

    CHOSEN = "chosen"
    """Attached, and carries at least one service."""
    ARMED = "armed"
    """Attached below the chosen ones."""
    IDLE = "idle"
    """Could run; no service needs it."""
    DEGRADED = "degraded"
    REFUSED = "refused"
    DISABLED = "disabled"
    UNKNOWN = "unknown"
    FAULTED = "faulted"
    """Was running and was demoted; will be tried again."""
    BROKEN = "broken"
    """The plugin itself cannot be used."""


@attrs.frozen(kw_only=True)
class TierRow:
    """One row of the tier table."""

    name: str
    order: int | None
    state: TierState
    reason: str
    requirements: tuple[Requirement, ...] = ()
    carries: tuple[str, ...] = ()
    """Names of the services it is chosen for."""
    keeps_door: bool = False
    """Whether it keeps to the rules at the front door."""


@attrs.frozen(kw_only=True)
class Plan:
    """Who carries what: one immutable answer, made by ``marchproxy_core.planner``."""

    tiers: tuple[TierRow, ...]
    services: tuple[ServicePlan, ...]
