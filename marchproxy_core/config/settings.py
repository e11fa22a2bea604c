"""Every setting of the daemon, declared once each. Values only: reading them is ``loading``'s part."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from marchproxy_core.config.choices import (
    BUFFER,
    COUNT,
    DAY_S,
    RATE,
    TIMEOUT,
    WORKER_TIERS,
    GcPercent,
    LogLevel,
)
from marchproxy_core.config.declare import Setting, declared, setting
from marchproxy_core.config.kinds import (
    AdminAddress,
    CpuList,
    Duration,
    Flag,
    Integer,
    OneOf,
    Text,
    UnixAddress,
)
from marchproxy_core.config.tier_settings import TierSettings
from marchproxy_core.services import Endpoint


@attrs.frozen(kw_only=True)
class Settings(TierSettings):
    """All; ``Settings()`` has the defaults. Times in seconds; sizes in bytes unless the name says more."""

    proxy_cpu_affinity: tuple[int, ...] = setting(
        CpuList(),
        (),
        "CPUs of the workers and of poll-mode cores, taken in turn.",
        unset="all that the process may use",
        restart=True,
    )
    admin_cpu_affinity: tuple[int, ...] = setting(
        CpuList(), (), "CPUs of the control process.", unset="all that the process may use", restart=True
    )

    max_memory_mb: int | None = setting(
        Integer(16, 1 << 24, "MiB"),
        None,
        "Memory of the whole daemon above which new connections are refused.",
        unset="no limit",
        restart=True,
    )
    recv_buffer_size: int | None = setting(
        BUFFER,
        None,
        "Receive buffer of each socket.",
        unset="the kernel's own tuning",
        tiers=WORKER_TIERS,
        restart=True,
    )
    send_buffer_size: int | None = setting(
        BUFFER,
        None,
        "Send buffer of each socket.",
        unset="the kernel's own tuning",
        tiers=WORKER_TIERS,
        restart=True,
    )

    worker_threads: int = setting(
        Integer(0, 1024),
        0,
        "Worker processes of each tier that moves bytes in Python; 0: one a usable CPU.",
        tiers=WORKER_TIERS,
        restart=True,
    )
    io_threads: int = setting(
        Integer(1, 1024), 40, "Threads for calls that block, in the control process.", restart=True
    )
    max_requests_per_worker: int = setting(
        Integer(0, 1 << 31),
        0,
        "Requests or connections after which a worker is replaced; 0: never.",
        tiers=WORKER_TIERS,
        restart=True,
    )
    gomaxprocs: int | None = setting(
        Integer(1, 1024),
        None,
        "Read for those who come from the Go program: taken as WORKER_THREADS where that is not set.",
        unset="not read",
        restart=True,
    )
    gogc: int | None = setting(
        GcPercent(0, 100_000, "percent"),
        None,
        "Read for those who come from the Go program: scales the first threshold of Python's collector.",
        unset="Python's own thresholds",
        restart=True,
    )

    max_connections: int | None = setting(
        COUNT,
        None,
        "The same as GLOBAL_MAX_CONNECTIONS; where both are set, the smaller counts.",
        unset="no limit",
    )
    global_max_connections: int | None = setting(
        COUNT, None, "Open connections and flows of all services at once.", unset="no limit"
    )
    service_max_connections: int | None = setting(
        COUNT,
        None,
        "Open connections and flows of each service that has no max_connections of its own.",
        unset="no limit",
    )
    global_connection_rate: float | None = setting(
        RATE, None, "New connections and flows of all services.", unset="no limit"
    )
    service_connection_rate: float | None = setting(
        RATE,
        None,
        "New connections and flows of each service that has no connection_rate of its own.",
        unset="no limit",
    )

    keep_alive_timeout: float = setting(
        Duration(0, 30 * DAY_S),
        75.0,
        "How long a client's connection may wait for its next request.",
        tiers=("application",),
    )
    connect_timeout: float = setting(
        TIMEOUT,
        4.0,
        "Longest wait for a backend to take a connection; then the next backend is tried.",
        tiers=WORKER_TIERS,
    )
    read_timeout: float = setting(
        TIMEOUT,
        30.0,
        "Longest wait for bytes that must come: a PROXY header, the rest of a request or of an answer.",
        tiers=WORKER_TIERS,
    )
    write_timeout: float = setting(
        TIMEOUT,
        30.0,
        "Longest time for which a peer may take nothing of what waits for it.",
        tiers=WORKER_TIERS,
    )
    idle_timeout: float = setting(
        TIMEOUT, 180.0, "Silence in both directions that ends a connection or a flow."
    )
    request_timeout: float = setting(
        TIMEOUT, 30.0, "Longest time from a request to the end of its answer.", tiers=("application",)
    )
    drain_timeout: float = setting(
        Duration(0, 30 * DAY_S),
        30.0,
        "How long connections may go on after a drain, or once their service is gone; then they are cut.",
    )

    backend_pool_size: int = setting(
        Integer(0, 65536), 100, "Idle connections kept for each backend.", tiers=("application",)
    )
    backend_pool_timeout: float = setting(
        TIMEOUT, 30.0, "How long an idle connection to a backend is kept.", tiers=("application",)
    )
    backend_keep_alive: bool = setting(
        Flag(), True, "Whether connections to backends are used again.", tiers=("application",)
    )

    log_level: LogLevel = setting(
        OneOf(LogLevel, also={"warn": "warning", "fatal": "critical"}),
        LogLevel.INFO,
        "Lowest level of events in the log.",
    )
    proxy_debug: bool = setting(
        Flag(), False, "Log level debug, whatever LOG_LEVEL says, and tracebacks in the log."
    )

    admin_listen: Endpoint | UnixAddress = setting(
        AdminAddress(),
        Endpoint.parse("127.0.0.1:8080"),
        "Where the admin API listens; an address that is not loopback needs ADMIN_TOKEN.",
        restart=True,
    )
    admin_token: str | None = setting(
        Text("1 to 512 printable ASCII characters without spaces", r"[!-~]{1,512}"),
        None,
        "Token that each POST to the admin API must bring; off loopback all but /healthz and /readyz.",
        unset="no token asked for",
        restart=True,
        secret=True,
    )

    @property
    def gc_threshold(self) -> int | None:
        """First threshold for ``gc.set_threshold``, from ``GOGC``: 0 turns collection off; None: leave it."""
        if self.gogc is None:
            return None
        return 0 if self.gogc < 0 else max(1, 7 * self.gogc)


SETTINGS: Mapping[str, Setting] = {one.variable: one for one in declared(Settings)}
"""Every declared setting by its variable; ``ENABLE_*`` are not among them: see ``enabling``."""
