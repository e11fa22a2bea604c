"""The h2 library as this proxy uses it: what is settled with a client, and how it encodes and decodes heads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes, Settings

from marchproxy_application.http2.answers import ReadyEncoder
from marchproxy_application.http2.remembering import RememberingDecoder

if TYPE_CHECKING:
    from marchproxy_core.services import Http

MOST_STREAMS: Final = 100
CONNECTION_WINDOW: Final = 1 << 20
STREAM_WINDOW: Final = 1 << 18
_FIRST_WINDOW: Final = 65535
"""Of a connection (RFC 9113, section 6.9.2)."""
_OVERHEAD: Final = 32
"""What a field counts beyond its bytes (RFC 9113, section 6.5.2)."""

NO_ERROR: Final = 0x0
PROTOCOL_ERROR: Final = 0x1
INTERNAL_ERROR: Final = 0x2
REFUSED_STREAM: Final = 0x7
CANCEL: Final = 0x8
ENHANCE_YOUR_CALM: Final = 0xB

_CONFIG: Final = H2Configuration(
    client_side=False,
    header_encoding=None,
    # Judged by http2/heads.py: there what is malformed ends its stream, in h2 it would end the connection.
    validate_inbound_headers=False,
    normalize_inbound_headers=False,
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
)


@final
class ServerConnection(H2Connection):
    """One client's connection as h2 sees it."""

    MAX_CLOSED_STREAMS = 1024
    """How many closed streams are remembered; h2 itself remembers 65536, some megabytes for each connection."""

    def __init__(self, http: Http, *, websocket: bool) -> None:
        """Have our settings ready to be sent.

        Args:
            http: Wishes of the service whose clients come in here.
            websocket: Whether WebSockets may be opened (RFC 8441).
        """
        super().__init__(_CONFIG)
        header_bytes = http.max_header_bytes + _OVERHEAD * http.max_headers
        values = {
            SettingCodes.MAX_CONCURRENT_STREAMS: MOST_STREAMS,
            SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            SettingCodes.MAX_HEADER_LIST_SIZE: header_bytes,
        }
        if websocket:
            values[SettingCodes.ENABLE_CONNECT_PROTOCOL] = 1
        self.ready = self.encoder = ReadyEncoder()
        # Twice of what is said: whoever asks for a little too much is told so, not thrown out.
        self.decoder = RememberingDecoder(2 * header_bytes)
        self.local_settings = Settings(client=False, initial_values=values)
        self.initiate_connection()
        self.increment_flow_control_window(CONNECTION_WINDOW - _FIRST_WINDOW)
        # h2 ends the connection of whoever opens one stream too many; we refuse the stream.
        values[SettingCodes.MAX_CONCURRENT_STREAMS] = 2 * MOST_STREAMS
        self.local_settings = Settings(client=False, initial_values=values)
