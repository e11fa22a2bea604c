"""Which process holds a port: what an operator asks first when an address is in use.

Reads /proc, and blocks for as long as the host has open files; for errors only. Sees the processes of others
as root alone.
"""

from __future__ import annotations

import ipaddress
import os
import struct
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from marchproxy_core.services import Endpoint, IPAddress, Protocol

_BOUND_STATE = {Protocol.TCP: "0A", Protocol.UDP: "07"}
"""TCP_LISTEN, and TCP_CLOSE for a UDP socket without a peer (include/net/tcp_states.h)."""


def port_holder(protocol: Protocol, endpoint: Endpoint) -> str:
    """Say who holds an address, or one that overlaps it, as ``nginx (pid 812)``; empty when it cannot be seen.

    In the network namespace of the calling thread.
    """
    inodes: set[str] = set()
    for version in ("", "6"):
        table = Path(f"/proc/thread-self/net/{protocol.value}{version}")
        try:
            with table.open(encoding="ascii") as lines:
                next(lines)  # the head
                inodes |= set(_inodes(lines, _BOUND_STATE[protocol], endpoint))
        except FileNotFoundError:
            continue  # no IPv6 on this host
    return _process_with(inodes) if inodes else ""


def _inodes(lines: Iterable[str], state: str, endpoint: Endpoint) -> Iterator[str]:
    for fields in map(str.split, lines):
        address, _, port = fields[1].partition(":")
        if fields[3] == state and int(port, 16) == endpoint.port and _overlap(_address(address), endpoint.ip):
            yield fields[9]


def _address(text: str) -> IPAddress:
    """Read an address as the kernel prints it: words of 32 bits in hexadecimal, in the host's byte order."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    return ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))


def _overlap(held: IPAddress, wanted: IPAddress) -> bool:
    if held.is_unspecified:
        # One on every IPv6 address may have the IPv4 ones as well (IPV6_V6ONLY is not to be seen from here).
        return held.version == 6 or wanted.version == 4
    return held == wanted or (wanted.is_unspecified and held.version == wanted.version)


def _process_with(inodes: Collection[str]) -> str:
    """Find the first process that has one of these sockets; a parent comes before its workers."""
    sockets = {f"socket:[{inode}]" for inode in inodes}
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        process = Path(f"/proc/{pid}")
        try:
            if any(_target(fd) in sockets for fd in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text(errors='replace').strip()} (pid {pid})"
        except OSError:
            continue  # gone by now, or not ours to look at
    return ""


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""
