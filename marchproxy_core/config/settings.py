"""Every setting of the daemon, declared once each. Values only: reading them is ``loading``'s part."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from marchproxy_core.config.choices import (
    BUFFER,
    COUNT,
    DAY_S,
    ENGINE_TIERS,
    INTERFACES,
    MAP_SIZE,
    PACKET_TIERS,
    PCI_ADDRESSES,
    RATE,
    SOURCE_ADDRESSES,
    TIER_NAME,
    TIMEOUT,
    VIRTUAL_DEVICES,
    WORKER_TIERS,
    AfXdpMode,
    Enable,
    GcPercent,
    LogLevel,
    XdpMode,
)
from marchproxy_core.config.declare import Setting, declared, setting
from marchproxy_core.config.kinds import (
    AdminAddress,
    CpuList,
    Duration,
    Flag,
    HexMask,
    Integer,
    ListOf,
    OneOf,
    PortRange,
    PowerOfTwo,
    Text,
    UnixAddress,
)
from marchproxy_core.services import Endpoint, IPAddress


@attrs.frozen(kw_only=True)
class Settings:
    """All; ``Settings()`` has the defaults. Times in seconds; sizes in bytes unless the name says more."""

    enable: Mapping[str, Enable] = attrs.field(factory=dict)
    """By tier name; a tier that is missing is AUTO."""

    tier_order: tuple[str, ...] = setting(
        ListOf(TIER_NAME, "names of tiers"),
        (),
        "Order in which tiers are tried, highest first; tiers left out come after, in their own order.",
        unset="each tier's own order",
    )

    dpdk_driver: str = setting(
        Text("the name of a kernel driver", r"[A-Za-z0-9_-]{1,31}"),
        "vfio-pci",
        "Kernel driver that hands PCI devices to DPDK.",
        tiers=("dpdk",),
        restart=True,
    )
    dpdk_hugepages: int | None = setting(
        Integer(1, 1 << 20, "pages"),
        None,
        "Hugepages that DPDK uses, of the host's default size.",
        unset="what the host has free",
        tiers=("dpdk",),
        restart=True,
    )
    dpdk_cores: tuple[int, ...] = setting(
        CpuList(),
        (),
        "CPUs of DPDK's poll-mode cores.",
        unset="one, from PROXY_CPU_AFFINITY",
        tiers=("dpdk",),
        restart=True,
    )
    dpdk_memory_channels: int | None = setting(
        Integer(1, 32),
        None,
        "Memory channels of the machine, for DPDK's memory layout.",
        unset="DPDK's own default",
        tiers=("dpdk",),
        restart=True,
    )
    dpdk_pci_devices: tuple[str, ...] = setting(
        PCI_ADDRESSES,
        (),
        "NICs that DPDK takes over.",
        unset="none",
        tiers=("dpdk",),
        restart=True,
    )
    dpdk_port_mask: int | None = setting(
        HexMask(), None, "DPDK ports in use, one bit each.", unset="all ports", tiers=("dpdk",), restart=True
    )
    dpdk_vdevs: tuple[str, ...] = setting(
        VIRTUAL_DEVICES,
        (),
        "DPDK ports that are no PCI device.",
        unset="none",
        tiers=("dpdk",),
        restart=True,
    )

    xdp_mode: XdpMode = setting(
        OneOf(XdpMode),
        XdpMode.NATIVE,
        "Where the XDP program runs: in the driver, in the stack (slower, every NIC), or in the NIC.",
        tiers=("xdp",),
        restart=True,
    )
    xdp_interface: tuple[str, ...] = setting(
        INTERFACES,
        (),
        "Interfaces that the XDP program is attached to.",
        unset="those the services' addresses route over",
        tiers=("xdp",),
        restart=True,
    )
    xdp_queue_size: int = setting(
        Integer(64, 65536, "packets"),
        1024,
        "Length of the queue of packets on their way to another CPU or interface.",
        tiers=("xdp",),
        restart=True,
    )

    af_xdp_mode: AfXdpMode | None = setting(
        OneOf(AfXdpMode),
        None,
        "How frames reach user space.",
        unset="zero_copy where the driver can, else copy",
        tiers=("afxdp",),
        restart=True,
    )
    af_xdp_queue_size: int = setting(
        PowerOfTwo(64, 65536, "frames"), 2048, "Size of each AF_XDP ring.", tiers=("afxdp",), restart=True
    )
    af_xdp_batch_size: int = setting(
        PowerOfTwo(1, 4096, "frames"),
        64,
        "Frames taken from a ring at once; at most AF_XDP_QUEUE_SIZE.",
        tiers=("afxdp",),
        restart=True,
    )
    af_xdp_interface: tuple[str, ...] = setting(
        INTERFACES,
        (),
        "Interfaces with AF_XDP sockets.",
        unset="those the services' addresses route over",
        tiers=("afxdp",),
        restart=True,
    )

    sr_iov_vf_count: int | None = setting(
        Integer(1, 256),
        None,
        "Virtual functions to make.",
        unset="one a service",
        tiers=("sriov",),
        restart=True,
    )
    sr_iov_pf_device: str | None = setting(
        INTERFACES.item,
        None,
        "Interface of the physical function.",
        unset="the one the services' addresses route over",
        tiers=("sriov",),
        restart=True,
    )

    ebpf_log_level: int = setting(
        Integer(0, 7),
        0,
        "Log level of the kernel's verifier, as in bpf(2).",
        tiers=ENGINE_TIERS,
        restart=True,
    )
    ebpf_maps_size: int = setting(
        MAP_SIZE, 65536, "Size of tables that have no setting of their own.", tiers=PACKET_TIERS, restart=True
    )
    ebpf_conn_map_size: int = setting(
        MAP_SIZE, 65536, "Size of the table of flows.", tiers=PACKET_TIERS, restart=True
    )
    ebpf_service_map_size: int = setting(
        MAP_SIZE, 1024, "Size of the table of services.", tiers=PACKET_TIERS, restart=True
    )
    ebpf_stats_map_size: int = setting(
        MAP_SIZE, 1024, "Size of the table of counters.", tiers=PACKET_TIERS, restart=True
    )
    ebpf_interface: tuple[str, ...] = setting(
        INTERFACES,
        (),
        "Interfaces that the TC program is attached to.",
        unset="those the services' addresses route over",
        tiers=("ebpf",),
        restart=True,
    )

    nat_port_range: tuple[int, int] | None = setting(
        PortRange(),
        None,
        "Source ports of packets to backends.",
        unset="the longest range outside the host's ip_local_port_range",
        tiers=PACKET_TIERS,
        restart=True,
    )
    nat_source_addresses: tuple[IPAddress, ...] = setting(
        SOURCE_ADDRESSES,
        (),
        "Source addresses of packets to backends.",
        unset="those of the interface they leave by",
        tiers=PACKET_TIERS,
        restart=True,
    )

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
