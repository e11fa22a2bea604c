"""Who has an interface's XDP hook: it has room for one program per mode, and nobody likes to be replaced.

Blocks; looks in the network namespace of the calling thread. Names and links need root.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Protocol

import attrs

from marchproxy_core.bpf.links import Link, LinkInfo, LinkType
from marchproxy_core.bpf.netlink import open_netlink
from marchproxy_core.bpf.objects import next_id
from marchproxy_core.bpf.programs import Program
from marchproxy_core.bpf.syscall import BpfError, Command

_DISPATCHER = "xdp_dispatcher"
_MODES = {
    "IFLA_XDP_DRV_PROG_ID": "driver",
    "IFLA_XDP_SKB_PROG_ID": "generic",
    "IFLA_XDP_HW_PROG_ID": "hardware",
}


class _Attributes(Protocol):
    def get_attr(self, name: str) -> int | None: ...


@attrs.frozen(kw_only=True)
class XdpHolder:
    """A program on an interface's XDP hook."""

    mode: str
    """``driver``, ``generic`` or ``hardware``."""
    program_id: int
    name: str
    """The program's name; empty when we may not ask, or it has just gone."""
    link_id: int | None
    """The link that holds it; None: put there through netlink, or we may not ask."""

    @property
    def is_dispatcher(self) -> bool:
        """Whether it is libxdp's, which runs the programs of several owners in turn."""
        return self.name == _DISPATCHER

    def __str__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        dispatcher = " (libxdp's dispatcher)" if self.is_dispatcher else ""
        held = f"held by BPF link {self.link_id}" if self.link_id else "put there through netlink"
        return f"XDP program {self.program_id}{name}{dispatcher} in {self.mode} mode, {held}"


def who_holds_xdp(interface: int) -> tuple[XdpHolder, ...]:
    """List the XDP programs on an interface; empty when its hook is free.

    Args:
        interface: Its index.

    Raises:
        OSError: ENODEV: there is no such interface.
    """
    found = _attached(interface)
    if not found:
        return ()
    links = {(info.interface, info.program_id): info.id for info in xdp_links()}
    return tuple(
        XdpHolder(
            mode=mode,
            program_id=number,
            name=_name(number),
            link_id=links.get((interface, number)),
        )
        for mode, number in found.items()
    )


def xdp_links() -> Iterator[LinkInfo]:
    """Yield all XDP links of the host, of all network namespaces; none without the right to ask (CAP_SYS_ADMIN)."""
    number: int | None = 0
    while number is not None:
        try:
            number = next_id(Command.LINK_GET_NEXT_ID, number)
            if number is None:
                return
            with Link.open_id(number) as link:
                info = link.info()
        except BpfError as error:
            if error.errno == errno.EPERM:
                return
            if error.errno != errno.ENOENT:  # gone since
                raise
            continue
        if info.type == LinkType.XDP:
            yield info


def _attached(interface: int) -> dict[str, int]:
    with open_netlink(f"interface {interface}") as netlink:
        (link,) = netlink.get_links(interface)
    xdp: _Attributes | None = link.get_attr("IFLA_XDP")
    if xdp is None:
        return {}
    # A driver's or generic mode alone has its id here too; several at once have no IFLA_XDP_PROG_ID (rtnetlink.c).
    return {mode: number for name, mode in _MODES.items() if (number := xdp.get_attr(name))}


def _name(number: int) -> str:
    try:
        with Program.open_id(number) as program:
            return program.info().name
    except BpfError as error:
        if error.errno in (errno.ENOENT, errno.EPERM):
            return ""
        raise
