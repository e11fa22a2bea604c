"""The client of requests that are made in the background: the cache wants them, and nobody reads the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from marchproxy_application.backends.connection import BackendConnection
    from marchproxy_application.http1.fields import Field
    from marchproxy_application.serving.client import Client
    from marchproxy_application.serving.exchange import Exchange
    from marchproxy_application.serving.preparing import PreparedAnswer


@final
class Nobody:
    """Takes everything, as fast as it comes; see ``Client``."""

    __slots__ = ("_origin_of", "address", "ends", "scheme", "version")

    is_full = False

    def __init__(self, instead_of: Client) -> None:
        """Ask as a client did."""
        self.address = instead_of.address
        self.ends = instead_of.ends
        self.scheme = instead_of.scheme
        self.version = instead_of.version
        self._origin_of = instead_of.origin_of

    def origin_of(self, host: bytes) -> bytes:
        """Return what the backend was told about the client."""
        return self._origin_of(host)

    def answer(
        self, exchange: Exchange, answer: PreparedAnswer, more: bytes, body: bytes, *, is_over: bool
    ) -> None:
        """Send it nowhere."""

    def answer_interim(self, answer: PreparedAnswer) -> None:
        """Send it nowhere."""

    def answer_upgrade(
        self, exchange: Exchange, answer: PreparedAnswer, more: bytes, backend: BackendConnection
    ) -> None:
        """Close the backend's connection: nobody asked for another protocol."""
        backend.abandon(exchange)

    def answer_body(self, data: bytes) -> None:
        """Send it nowhere."""

    def answer_end(self, data: bytes, trailers: list[Field]) -> None:
        """Send it nowhere."""

    def answer_cut(self) -> None:
        """Tell nobody."""

    def request_wanted(self) -> None:
        """Have no body to send."""

    def over(self, exchange: Exchange) -> None:
        """Have nothing else to do."""
