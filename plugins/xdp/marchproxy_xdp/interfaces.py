"""What the kernel tells of interfaces as places for an XDP program. Looks, changes nothing, needs no rights.

Blocks for some milliseconds; looks in the network namespace of the calling thread.
"""

from __future__ import annotations

import array
import enum
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs
from pyroute2 import IPRoute, NetlinkError
from pyroute2.netlink import NLM_F_DUMP, NLM_F_REQUEST, genlmsg
from pyroute2.netlink.generic import GenericNetlinkSocket

from marchproxy_core.bpf import BpfError, Link, XdpHolder, who_holds_xdp
from marchproxy_core.bpf.bpffs import BPFFS

_ARPHRD_ETHER = 1
_DEV_GET = 1  # NETDEV_CMD_DEV_GET, include/uapi/linux/netdev.h, since Linux 6.3
_SIOCETHTOOL = 0x8946
_GET_DRIVER, _GET_FLAGS = 0x03, 0x25  # ETHTOOL_GDRVINFO, ETHTOOL_GFLAGS: include/uapi/linux/ethtool.h
_LRO = 1 << 15  # ETH_FLAG_LRO
_IFREQ = struct.Struct("=16sQ16x")
_DRIVER_INFO_BYTES = 196


class Feature(enum.IntFlag):
    """``enum netdev_xdp_act``: what a driver can do with XDP."""

    BASIC = 1
    REDIRECT = 2
    NDO_XMIT = 4
    """Takes frames that were redirected to it; many drivers do so only while a program is on them."""
    XSK_ZEROCOPY = 8
    HW_OFFLOAD = 16
    RX_SG = 32
    """Frames of several buffers."""
    NDO_XMIT_SG = 64
    """Takes such frames when they were redirected to it."""


@attrs.frozen(kw_only=True)
class Place:
    """An Ethernet interface as a place for the program."""

    index: int
    name: str
    mtu: int
    """In bytes, without the Ethernet header."""
    driver: str
    """As ``ethtool -i`` has it; empty when it does not say."""
    features: Feature | None
    """None: a kernel before 6.3, which does not tell."""
    lro: bool = False
    """Whether the NIC joins packets into larger ones."""
    held_by: tuple[XdpHolder, ...] = ()
    """Programs there that are not ours."""

    def has(self, feature: Feature) -> bool | None:
        """Whether the driver has a feature; None when the kernel does not tell."""
        return None if self.features is None else feature in self.features


class _Device(genlmsg):  # type: ignore[misc]
    prefix = "NETDEV_A_DEV_"
    nla_map = (
        ("NETDEV_A_DEV_UNSPEC", "none"),
        ("NETDEV_A_DEV_IFINDEX", "uint32"),
        ("NETDEV_A_DEV_PAD", "none"),
        ("NETDEV_A_DEV_XDP_FEATURES", "uint64"),
    )


def look_at(names: Iterable[str] = ()) -> tuple[Place, ...]:
    """Look at these interfaces, or all that are Ethernet; those that are not there are left out.

    Raises:
        OSError: The kernel does not answer.
    """
    wanted = set(names)
    features = read_features()
    try:
        with IPRoute() as netlink:
            links = [
                link
                for link in netlink.get_links()
                if link["ifi_type"] == _ARPHRD_ETHER
                and (not wanted or link.get_attr("IFLA_IFNAME") in wanted)
            ]
    except NetlinkError as error:
        raise OSError(error.code, f"links: {error.args[1]}") from error
    ours = our_links()
    return tuple(
        Place(
            index=link["index"],
            name=link.get_attr("IFLA_IFNAME"),
            mtu=link.get_attr("IFLA_MTU"),
            driver=_driver(link.get_attr("IFLA_IFNAME")),
            features=None if features is None else features.get(link["index"], Feature(0)),
            lro=_has_lro(link.get_attr("IFLA_IFNAME")),
            held_by=_others(link["index"], ours) if _is_held(link.get_attr("IFLA_XDP")) else (),
        )
        for link in links
    )


def read_features() -> Mapping[int, Feature] | None:
    """Return what each interface's driver can do, by index; None before Linux 6.3, which does not tell."""
    request = _Device()
    request["cmd"], request["version"] = _DEV_GET, 1
    try:
        with GenericNetlinkSocket() as netlink:
            netlink.bind("netdev", _Device)
            answers = tuple(
                netlink.nlm_request(request, msg_type=netlink.prid, msg_flags=NLM_F_REQUEST | NLM_F_DUMP)
            )
    except NetlinkError as error:
        if error.code == errno.ENOENT:
            return None
        raise OSError(error.code, f"features of interfaces: {error.args[1]}") from error
    return {
        one.get_attr("NETDEV_A_DEV_IFINDEX"): Feature(
            one.get_attr("NETDEV_A_DEV_XDP_FEATURES") & sum(Feature)
        )
        for one in answers
    }


def our_links() -> frozenset[int]:
    """Return the ids of the links that a MarchProxy daemon pinned, also one before this one."""
    found = set()
    for path in (path for folder in _listed(BPFFS / "marchproxy") for path in _listed(folder)):
        if not path.name.startswith("xdp-"):
            continue
        try:
            with Link.open_pinned(path) as link:
                found.add(link.info().id)
        except BpfError as error:
            if error.errno not in (errno.ENOENT, errno.EPERM, errno.EACCES):
                raise
    return frozenset(found)


def _listed(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in os.listdir(folder)]
    except OSError:  # nothing there, no right to look, or gone since
        return []


def _is_held(xdp: object) -> bool:
    # IFLA_XDP_ATTACHED is 0 (XDP_ATTACHED_NONE) on an interface without a program.
    return xdp is not None and bool(xdp.get_attr("IFLA_XDP_ATTACHED"))  # type: ignore[attr-defined]


def _others(index: int, ours: frozenset[int]) -> tuple[XdpHolder, ...]:
    try:
        return tuple(one for one in who_holds_xdp(index) if one.link_id not in ours)
    except OSError as error:
        if error.errno == errno.ENODEV:  # gone since
            return ()
        raise


def _driver(name: str) -> str:
    answer = _ask_ethtool(name, _GET_DRIVER, _DRIVER_INFO_BYTES)
    return answer[4:36].partition(b"\0")[0].decode(errors="replace") if answer else ""


def _has_lro(name: str) -> bool:
    answer = _ask_ethtool(name, _GET_FLAGS, 8)
    return bool(answer and struct.unpack_from("=I", answer, 4)[0] & _LRO)


def _ask_ethtool(name: str, command: int, size: int) -> bytes | None:
    """Return the answer's bytes, None when the interface has none to this question."""
    answer = array.array("B", struct.pack("=I", command).ljust(size, b"\0"))
    request = _IFREQ.pack(name.encode(), answer.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            fcntl.ioctl(sock, _SIOCETHTOOL, request)
        except OSError:
            return None
    return answer.tobytes()
