"""Where the program can be, where it should not be, and in which build. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import attrs

from marchproxy_core.bpf import XdpMode
from marchproxy_core.config import XdpMode as Wish
from marchproxy_core.model import Requirement
from marchproxy_xdp.interfaces import Feature

if TYPE_CHECKING:
    from marchproxy_xdp.interfaces import Place

FRAGS_KERNEL = (5, 18, 0)
PAGE_MTU = 3498
"""Bytes: a page of 4096 less 256 of headroom, 320 of ``struct skb_shared_info`` and 22 of Ethernet and VLAN headers."""
MOST_IN_PIECES = 10240
"""Bytes of a packet whose checksum is finished anew, in several pieces: MP_MOST_IN_PIECES of c/xdp.c."""
_LEAVE_CHECKSUMS = frozenset({"hv_netvsc", "tun", "veth", "vif", "virtio_net", "vmxnet3"})
"""Drivers of links within one machine, whose senders may leave checksums to be finished by nobody."""
_WISHES = {Wish.NATIVE: XdpMode.DRIVER, Wish.SKB: XdpMode.GENERIC, Wish.HW: XdpMode.HARDWARE}

GENERIC_LOSS = (
    "the kernel copies each packet into one piece before the program, and packets joined by GRO go to TC"
)


@attrs.frozen(kw_only=True)
class Build:
    """How the program is compiled for an interface (c/xdp.c)."""

    partial: bool
    """Whether checksums may be partial."""
    frags: bool
    """Whether frames may have several pieces."""
    generic: bool
    """Whether it runs in the stack, where the kernel finishes partial checksums and packets may be joined."""


def mode_for(wish: Wish | None, places: Iterable[Place]) -> XdpMode:
    """Say which mode the program is to be in, everywhere alike: frames go from one interface to another.

    Args:
        wish: ``XDP_MODE``.
        places: The interfaces in question.
    """
    if wish is not None:
        return _WISHES[wish]
    can = [place.has(Feature.BASIC) for place in places]
    return XdpMode.GENERIC if can and not any(one is not False for one in can) else XdpMode.DRIVER


def build_for(place: Place, mode: XdpMode, kernel: tuple[int, int, int]) -> Build:
    """Say which build an interface needs.

    In generic mode the kernel makes one piece of each frame for a program that takes no more. For others, since Linux
    6.9, it makes a new buffer without ``mac_len`` (skb_pp_cow_data()), and a TC program then sees no Ethernet header.
    """
    takes_pieces = mode is not XdpMode.GENERIC and place.has(Feature.RX_SG) is not False
    return Build(
        partial=not place.driver or place.driver in _LEAVE_CHECKSUMS,
        frags=kernel >= FRAGS_KERNEL and takes_pieces,
        generic=mode is XdpMode.GENERIC,
    )


def needs_of(place: Place, mode: XdpMode) -> tuple[Requirement, ...]:
    """Return what stands against an interface: requirements that are not met; none when it can have the program."""
    found = [_free(place)] if place.held_by else []
    if mode is XdpMode.HARDWARE:
        return (*found, _no_hardware(place))
    if mode is XdpMode.GENERIC:
        return tuple(found)
    if place.has(Feature.BASIC) is False:
        found.append(_no_driver(place))
        return tuple(found)
    if place.driver == "veth" and place.has(Feature.NDO_XMIT) is False:
        found.append(_no_receiver(place))
    if place.lro:
        found.append(_lro(place))
    most = _most_bytes(place)
    if most is not None and place.mtu > most:
        found.append(_too_large(place, most))
    return tuple(found)


def _most_bytes(place: Place) -> int | None:
    """The largest MTU that an interface may have; None when nothing is known to be against any."""
    if place.has(Feature.RX_SG) is False:
        return PAGE_MTU
    return MOST_IN_PIECES - 64 if place.driver in _LEAVE_CHECKSUMS else None


def loss_on(place: Place, mode: XdpMode) -> str:
    """Return what is lost by running on an interface; empty when nothing is."""
    if mode is XdpMode.GENERIC:
        return GENERIC_LOSS
    if place.driver == "veth":
        return "on veth it switches the peer's TSO off: bulk TCP falls to a fifth of what TC carries"
    if place.driver == "virtio_net":
        return "on virtio it switches off large packets from the host (guest TSO), which TC keeps"
    return ""


def xmit_need(places: Iterable[Place]) -> Requirement | None:
    """Return the need that is not met when some of the interfaces do not take frames from the others; else None.

    Args:
        places: Those that the program is on, in driver mode, as they are with the program on them.
    """
    places = tuple(places)
    need = Feature.NDO_XMIT
    if any(place.mtu > PAGE_MTU for place in places):
        need |= Feature.NDO_XMIT_SG
    lacking = sorted(place.name for place in places if place.has(need) is False)
    if not lacking:
        return None
    pieces = " of several pieces" if Feature.NDO_XMIT_SG in need else ""
    return Requirement(
        need=f"interfaces that take redirected frames{pieces}",
        have=f"none in {', '.join(lacking)}",
        fix="on a veth: ethtool -K PEER gro on, in the peer's namespace; elsewhere XDP_INTERFACE without it",
        met=False,
        source="NETDEV_XDP_ACT_NDO_XMIT, include/uapi/linux/netdev.h",
    )


def _free(place: Place) -> Requirement:
    holder = place.held_by[0]
    off = {"driver": "xdpdrv", "generic": "xdpgeneric", "hardware": "xdpoffload"}[holder.mode]
    fix = (
        f"stop who has it, or: bpftool link detach id {holder.link_id}"
        if holder.link_id
        else f"stop who has it, or: ip link set dev {place.name} {off} off"
    )
    return Requirement(
        need=f"{place.name} without somebody else's XDP program", have=str(holder), fix=fix, met=False
    )


def _no_hardware(place: Place) -> Requirement:
    return Requirement(
        need=f"a NIC {place.name} that runs the program itself",
        have="a program with tables (queue, array of tables) that no NIC keeps",
        fix="XDP_MODE=native",
        met=False,
        source="bpf_map_offload_map_alloc(), kernel/bpf/offload.c: hash and array only",
    )


def _no_driver(place: Place) -> Requirement:
    return Requirement(
        need=f"XDP in the driver of {place.name}",
        have=f"none in {place.driver or 'this driver'}",
        fix="XDP_MODE=skb, which is slower than the ebpf tier as a rule",
        met=False,
        source="NETDEV_XDP_ACT_BASIC, include/uapi/linux/netdev.h",
    )


def _no_receiver(place: Place) -> Requirement:
    return Requirement(
        need=f"a veth {place.name} whose peer takes redirected frames",
        have="a peer without NAPI: they would vanish",
        fix="ethtool -K PEER gro on, in the peer's namespace",
        met=False,
        source="veth_xdp_xmit(), drivers/net/veth.c",
    )


def _lro(place: Place) -> Requirement:
    return Requirement(
        need=f"LRO off on {place.name}",
        have="on: packets joined by the NIC cannot be forwarded",
        fix=f"ethtool -K {place.name} lro off",
        met=False,
    )


def _too_large(place: Place, most: int) -> Requirement:
    return Requirement(
        need=f"an MTU of {most} at most on {place.name}, for XDP in its driver",
        have=f"MTU {place.mtu}",
        fix=f"ip link set dev {place.name} mtu 1500",
        met=False,
        source="NETDEV_XDP_ACT_RX_SG, include/uapi/linux/netdev.h",
    )
