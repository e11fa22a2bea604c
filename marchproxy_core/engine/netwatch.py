"""Netlink's word that an interface is gone, within milliseconds."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import structlog
import trio
from pyroute2.netlink.rtnl import RTM_DELLINK, RTMGRP_LINK
from pyroute2.netlink.rtnl.marshal import MarshalRtnl

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger()


async def watch_interfaces(gone: Callable[[str], None], *, task_status: trio.TaskStatus[None]) -> None:
    """Call ``gone(name)`` for each interface that is removed from this namespace; never ends.

    A full receive buffer (ENOBUFS) loses events, not the watch: it is logged, and the stats pulse of the tiers
    still finds what was missed.
    """
    marshal = MarshalRtnl()
    with trio.socket.from_stdlib_socket(
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    ) as netlink:
        await netlink.bind((0, RTMGRP_LINK))
        task_status.started()
        while True:
            try:
                data = await netlink.recv(1 << 16)
            except OSError as error:
                log.warning("netlink.overran", error=str(error))
                continue
            for message in marshal.parse(data):
                # A bridge that loses a port also says DELLINK, in family AF_BRIDGE; the interface stays.
                if message["header"]["type"] == RTM_DELLINK and message["family"] == socket.AF_UNSPEC:
                    gone(str(message.get_attr("IFLA_IFNAME")))
