"""The PROXY header that clients of some services begin with: read before a backend is chosen."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, final

from marchproxy_core.drops import DropReason
from marchproxy_core.relay.proxy_header import BadHeader, decode_v2
from marchproxy_core.relay.tcp.end import CHUNK_BYTES, GONE

if TYPE_CHECKING:
    from marchproxy_core.relay.tcp.connection import Connection


@final
class Greeting:
    """Reads one client's header; the connection sees to it that it does not take for ever."""

    __slots__ = ("connection", "data")

    def __init__(self, connection: Connection) -> None:
        """Wait for the first bytes."""
        self.connection = connection
        self.data = b""

    def on_event(self, events: int) -> None:
        """Read on; with the whole header, the connection takes over."""
        connection = self.connection
        if events & GONE:
            connection.client.gone = True  # nobody would tell again
        header = None
        while header is None:
            try:
                some = os.read(connection.client.fd, CHUNK_BYTES)
                self.data += some
                header = decode_v2(self.data)
            except BlockingIOError:
                return
            except OSError as error:
                connection.broke(connection.client, error)
                return
            except BadHeader as error:
                connection.finish(DropReason.PROXY_HEADER_INVALID, reset=True, error=str(error))
                return
            if header is None and not some:
                connection.finish(
                    DropReason.PROXY_HEADER_INVALID, reset=True, error="ended within its header"
                )
                return
        connection.greeted(header, self.data[header.length :])
