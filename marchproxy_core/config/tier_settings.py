"""The settings of tiers: which are tried, what those need that move packets, and who may come in at their door."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from marchproxy_core.config.choices import (
    COUNT,
    ENGINE_TIERS,
    INTERFACES,
    MAP_SIZE,
    PACKET_TIERS,
    PCI_ADDRESSES,
    PREFIXES,
    RATE,
    SOURCE_ADDRESSES,
    TIER_NAME,
    VIRTUAL_DEVICES,
    AfXdpMode,
    Enable,
    XdpMode,
)
from marchproxy_core.config.declare import setting
from marchproxy_core.config.kinds import (
    CpuList,
    Flag,
    HexMask,
    Integer,
    ListOf,
    OneOf,
    PortRange,
    PowerOfTwo,
    Text,
)
from marchproxy_core.door import Prefix
from marchproxy_core.services import IPAddress


@attrs.frozen(kw_only=True)
class TierSettings:
    """The first part of all settings."""

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

    xdp_mode: XdpMode | None = setting(
        OneOf(XdpMode),
        None,
        "Where the XDP program runs: in the driver, in the stack (slower, every NIC), or in the NIC. Set, it is used "
        "also where a lower tier does better.",
        unset="the driver, where nothing is lost by it",
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
        "Read for those who come from the Go program: frames go straight to where they leave, without a queue.",
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

    door_block: tuple[Prefix, ...] = setting(
        PREFIXES,
        (),
        "Clients that may not come in. A packet tier drops all that comes from there, to whatever port.",
        unset="none",
    )
    door_allow: tuple[Prefix, ...] = setting(
        PREFIXES,
        (),
        "Clients that may, although a shorter prefix in DOOR_BLOCK has them; not held to DOOR_SOURCE_RATE.",
        unset="none",
    )
    door_source_rate: float | None = setting(
        RATE,
        None,
        "Packets that one client (of IPv6: one /64) may send to services; more are dropped.",
        unset="no limit",
        tiers=PACKET_TIERS,
    )
    door_source_burst: int | None = setting(
        Integer(1, 1 << 20, "packets"),
        None,
        "Packets by which a client may be ahead of DOOR_SOURCE_RATE.",
        unset="those of a second",
        tiers=PACKET_TIERS,
    )
    door_max_opening: int | None = setting(
        COUNT,
        None,
        "TCP flows of each service whose handshake is not done; more are refused: a flood of SYNs.",
        unset="no limit",
        tiers=PACKET_TIERS,
    )
    door_drop_malformed: bool = setting(
        Flag(),
        False,
        "Drop what cannot be read, and TCP with flags that make no sense, instead of leaving it to the host.",
        tiers=PACKET_TIERS,
    )
