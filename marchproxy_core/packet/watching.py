"""Netlink's word that addresses, routes or links changed in this network namespace."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from pyroute2.netlink.rtnl import (
    RTMGRP_IPV4_IFADDR,
    RTMGRP_IPV4_ROUTE,
    RTMGRP_IPV6_IFADDR,
    RTMGRP_IPV6_ROUTE,
    RTMGRP_LINK,
)

_GROUPS = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE
_CALM_S = 0.02
"""One change comes as several messages: they are waited for, but not for longer than a fall-back may take."""


@asynccontextmanager
async def network_changes() -> AsyncIterator[trio.MemoryReceiveChannel[None]]:
    """Yield a channel that says once, shortly after each burst of changes, that something is different now.

    Changes are heard from the beginning of the block on. A message that overran the buffer counts as a change.
    """
    send, receive = trio.open_memory_channel[None](1)
    with trio.socket.from_stdlib_socket(
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    ) as netlink:
        await netlink.bind((0, _GROUPS))
        async with trio.open_nursery() as nursery, send, receive:
            nursery.start_soon(_listen, netlink, send)
            yield receive
            nursery.cancel_scope.cancel()


async def _listen(netlink: trio.socket.SocketType, send: trio.MemorySendChannel[None]) -> None:
    while True:
        await _heard(netlink)
        with trio.move_on_after(_CALM_S):
            while True:
                await _heard(netlink)
        try:
            send.send_nowait(None)
        except trio.WouldBlock:
            continue  # told, and not looked at yet


async def _heard(netlink: trio.socket.SocketType) -> None:
    try:
        await netlink.recv(1 << 16)
    except OSError:  # ENOBUFS: some were lost, so something changed
        await trio.lowlevel.checkpoint()
