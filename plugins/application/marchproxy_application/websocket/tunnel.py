"""A WebSocket's two directions, and its end with status 1001 when we go away."""

from __future__ import annotations

from typing import final

from marchproxy_application.websocket.frames import GOING_AWAY, FrameWalk, close_frame


@final
class Tunnel:
    """Passes bytes on as they are, and knows where a Close may stand. Pure."""

    __slots__ = ("_backend_told", "_client_told", "from_backend", "from_client", "is_closing")

    def __init__(self) -> None:
        """Be between frames in both directions."""
        self.from_client = FrameWalk()
        self.from_backend = FrameWalk()
        self.is_closing = False
        self._client_told = self._backend_told = False

    def to_backend(self, data: bytes) -> bytes:
        """Return what goes to the backend for what the client sent."""
        if self._backend_told:
            return b""
        end = self.from_client.walk(data)
        if not self.is_closing or end < 0:
            return data
        self._backend_told = True
        return data[:end] + close_frame(GOING_AWAY, masked=True)

    def to_client(self, data: bytes) -> bytes:
        """Return what goes to the client for what the backend sent."""
        if self._client_told:
            return b""
        end = self.from_backend.walk(data)
        if not self.is_closing or end < 0:
            return data
        self._client_told = True
        return data[:end] + close_frame(GOING_AWAY, masked=False)

    def go_away(self) -> tuple[bytes, bytes]:
        """Begin to close; return what goes to the client and to the backend at once, empty while one is in a frame."""
        self.is_closing = True
        to_client = to_backend = b""
        if self.from_backend.is_between and not self._client_told:
            self._client_told = True
            to_client = close_frame(GOING_AWAY, masked=False)
        if self.from_client.is_between and not self._backend_told:
            self._backend_told = True
            to_backend = close_frame(GOING_AWAY, masked=True)
        return to_client, to_backend
