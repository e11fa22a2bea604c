"""What an earlier daemon left in the kernel for this network namespace: pins, and one sysctl. Blocks.

All of it looks in the network namespace of the calling thread. Imports little, since every daemon looks once.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from pathlib import Path

import structlog

from marchproxy_core.bpf import PinDirectory, PinError, pin_folder

log = structlog.get_logger()

_SO_NETNS_COOKIE = 71  # include/uapi/asm-generic/socket.h, since Linux 5.14
_VERSIONS = ("ipv4", "ipv6")


def network_namespace() -> str:
    """Return a name for the network namespace, as ``net-4``, that no other one ever gets."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            (cookie,) = struct.unpack("Q", sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8))
        except OSError:  # an inode is used again after its namespace is gone, a cookie never
            cookie = Path("/proc/thread-self/ns/net").stat().st_ino
    return f"net-{cookie}"


def directories_with_pins() -> list[Path]:
    """Return the directories of this network namespace in which something is pinned, of whatever schema.

    Raises:
        PermissionError: Only root can see them.
    """
    return [path for path in pin_folder().glob(f"*-{network_namespace()}") if any(path.iterdir())]


def discard_left_behind() -> None:
    """Remove all of it; for a daemon that uses none of it. What another daemon has, or only root can see, stays."""
    with contextlib.suppress(PermissionError):
        for path in directories_with_pins():
            with contextlib.suppress(PinError), PinDirectory.open(path.name) as pins:
                pins.unpin_all()
                for version, value in forwarding_of("all").items():
                    set_loopback_forwarding(version, value)
                log.warning("tables.discarded", path=str(path), reason="no tier of this daemon uses them")


def forwarding_of(interface: str) -> dict[str, str]:
    """Return the sysctl ``forwarding`` of an interface, or of ``all``, for each version of IP that the host has.

    What loopback had before a daemon that was killed is not known: then it is to get what all interfaces have.
    """
    paths = {version: _forwarding(version, interface) for version in _VERSIONS}
    return {version: path.read_text(encoding="ascii") for version, path in paths.items() if path.exists()}


def set_loopback_forwarding(version: str, value: str) -> None:
    """Write it for one version of IP."""
    _forwarding(version, "lo").write_text(value, encoding="ascii")


def _forwarding(version: str, interface: str) -> Path:
    return Path("/proc/sys/net", version, "conf", interface, "forwarding")
