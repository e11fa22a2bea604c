"""Netlink as the rest of this package wants it: opened for a few requests, with errors of the operating system."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyroute2 import IPRoute


@contextmanager
def open_netlink(what: str) -> Iterator[IPRoute]:
    """Open a netlink socket in the network namespace of the calling thread, for as long as the block runs.

    Args:
        what: What the block is about, for the error, as ``XDP on interface 3``.

    Raises:
        OSError: The kernel refused what the block asked for.
    """
    # Imported here: it takes 10 MiB and a while, and most who import this package talk to no interface.
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as netlink:
            yield netlink
    except NetlinkError as error:
        raise OSError(error.code, f"{what}: {error.args[1]}") from error
