"""Who asked: what an exchange wants of a client's connection, or of a stream of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from marchproxy_application.backends.connection import BackendConnection
    from marchproxy_application.http1.fields import Field
    from marchproxy_application.serving.exchange import Exchange
    from marchproxy_application.serving.preparing import PreparedAnswer
    from marchproxy_core.relay.accepting import Address


class Client(Protocol):
    """Who asked: a connection of HTTP/1.1, or a stream of HTTP/2."""

    address: bytes
    """The client's, without a port."""
    scheme: bytes
    """``http`` or ``https``."""
    version: str
    """Of HTTP, for the log."""

    @property
    def ends(self) -> tuple[Address, Address]:
        """Who it is and where it connected to, for a PROXY header."""
        ...

    @property
    def is_full(self) -> bool:
        """Whether it has so much to send that whoever has more should stop."""
        ...

    def origin_of(self, host: bytes) -> bytes:
        """Return the lines that tell a backend where its requests for a host come from."""
        ...

    def answer(
        self, exchange: Exchange, answer: PreparedAnswer, more: bytes, body: bytes, *, is_over: bool
    ) -> None:
        """Send the head of the answer and what there is of its body.

        Args:
            exchange: The request that it answers.
            answer: The head.
            more: Field lines of this answer alone.
            body: The first bytes.
            is_over: Whether those are all.
        """
        ...

    def answer_interim(self, answer: PreparedAnswer) -> None:
        """Send a head that another one follows."""
        ...

    def answer_upgrade(
        self, exchange: Exchange, answer: PreparedAnswer, more: bytes, backend: BackendConnection
    ) -> None:
        """Send the head that changes the protocol; bytes go through as they are from here on."""
        ...

    def answer_body(self, data: bytes) -> None:
        """Send more of the body."""
        ...

    def answer_end(self, data: bytes, trailers: list[Field]) -> None:
        """Send the last of the body."""
        ...

    def answer_cut(self) -> None:
        """End so that nobody takes what was sent for the whole answer."""
        ...

    def request_wanted(self) -> None:
        """Go on with the request's body."""
        ...

    def over(self, exchange: Exchange) -> None:
        """Go on with what comes next: the exchange is over, and its answer was sent or cut."""
        ...
