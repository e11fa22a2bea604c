"""What the values of settings may be: words, limits and lists that several declarations share."""

from __future__ import annotations

import enum

from marchproxy_core.config.kinds import Address, ClientPrefix, Duration, Integer, ListOf, Number, Text

DAY_S = 86400.0
PACKET_TIERS = ("dpdk", "xdp", "afxdp", "sriov", "ebpf")
ENGINE_TIERS = ("xdp", "sriov", "ebpf")
WORKER_TIERS = ("application", "sockets")

TIER_NAME = Text("a tier's name: small letters, digits, _ and -", r"[a-z][a-z0-9_-]{0,31}")
INTERFACES = ListOf(
    # What the kernel's dev_valid_name() takes, less what would have to be quoted.
    Text("an interface name", r"(?!\.{1,2}$)[A-Za-z0-9_.@-]{1,15}"),
    "interface names of at most 15 characters",
)
PCI_ADDRESSES = ListOf(
    Text("a PCI address", r"[0-9a-fA-F]{4}:[0-9a-fA-F]{2}:[01][0-9a-fA-F]\.[0-7]"),
    "PCI addresses as 0000:02:00.0",
)
VIRTUAL_DEVICES = ListOf(
    Text("a virtual device", r"[a-z][a-z0-9_]*(,[a-z0-9_]+=[A-Za-z0-9_./:@-]+)*"),
    "virtual devices as net_af_packet0,iface=eth1",
    separator=";",  # a device's own arguments are separated by commas
)
SOURCE_ADDRESSES = ListOf(
    Address(accepts=lambda ip: not ip.is_unspecified and not ip.is_multicast),
    "IPv4 or IPv6 addresses of this host",
)
PREFIXES = ListOf(ClientPrefix(), "IPv4 or IPv6 prefixes as 192.0.2.0/24, or addresses")
TIMEOUT = Duration(0.001, 30 * DAY_S)
MAP_SIZE = Integer(1, 1 << 24, "entries")
BUFFER = Integer(4096, 1 << 30, "bytes")
COUNT = Integer(1, 1 << 31)
RATE = Number(0.001, 1e9, "a second")


class Enable(enum.StrEnum):
    """Whether a tier may be used."""

    TRUE = "true"
    """Must run: when it cannot, the start stops with its reason."""
    FALSE = "false"
    AUTO = "auto"
    """Used when it can run; else the next one is."""


class XdpMode(enum.StrEnum):
    """Where an XDP program runs."""

    NATIVE = "native"
    SKB = "skb"
    HW = "hw"


class AfXdpMode(enum.StrEnum):
    """How frames reach user space."""

    ZERO_COPY = "zero_copy"
    COPY = "copy"


class LogLevel(enum.StrEnum):
    """Lowest level of log events that are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class GcPercent(Integer):
    """Go's ``GOGC``: a percentage, or ``off``, read as -1."""

    @property
    def want(self) -> str:
        """What is accepted."""
        return f"{super().want}, or off"

    def parse(self, text: str) -> int:
        """Read a value."""
        return -1 if text.lower() == "off" else super().parse(text)

    def show(self, value: int) -> str:
        """Text that reads back."""
        return "off" if value < 0 else str(value)


TIER_VARIABLES = {
    "ENABLE_DPDK": "dpdk",
    "ENABLE_XDP": "xdp",
    "ENABLE_AF_XDP": "afxdp",
    "ENABLE_SR_IOV": "sriov",
    "ENABLE_EBPF": "ebpf",
    "ENABLE_APPLICATION": "application",
    "ENABLE_SOCKETS": "sockets",
}
"""The tiers that MarchProxy itself has, known by name also where they are not installed."""

TIER_NAMES = tuple(TIER_VARIABLES.values())


def enable_variable(tier: str) -> str:
    """The variable that enables a tier, also a third party's: its name in capitals, ``-`` as ``_``."""
    own = {name: variable for variable, name in TIER_VARIABLES.items()}
    return own.get(tier) or "ENABLE_" + tier.upper().replace("-", "_")
