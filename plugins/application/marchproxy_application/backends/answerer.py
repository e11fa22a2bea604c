"""What an exchange wants of whoever answers it: a connection of HTTP/1.1 to a backend, or a stream of HTTP/2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from marchproxy_application.http1.fields import Field
    from marchproxy_application.serving.exchange import Exchange
    from marchproxy_application.streams import Stream


class Answerer(Protocol):
    """A backend, as one request has it; counterpart of ``Client``.

    Takes bodies as they are: how they are written is its own to know.
    """

    requests: int
    """How many its connection was asked, this one among them."""

    @property
    def is_full(self) -> bool:
        """Whether so much waits to be sent that whoever has more should stop."""
        ...

    @property
    def sink(self) -> Stream | None:
        """Where the request's body may be spliced to for now; None if nowhere."""
        ...

    def send_request(self, exchange: Exchange, body: bytes | bytearray) -> None:
        """Send a request's head, and its end if it is over.

        Args:
            exchange: Whose it is.
            body: What has come of its body, maybe nothing.
        """
        ...

    def send_body(self, data: bytes) -> None:
        """Send more of the request's body, or through the tunnel that it has become."""
        ...

    def end_request(self, trailers: list[Field]) -> None:
        """Send the end of the request's body."""
        ...

    def resume(self) -> None:
        """Go on with the answer, since the client takes more."""
        ...

    def abandon(self, exchange: Exchange) -> None:
        """Let go of a request whose answer nobody wants any more; nothing happens if it is answered already."""
        ...

    def become_tunnel(self) -> bytes:
        """Read on without a meaning, after 101; return what has come behind the head."""
        ...

    def shut_down(self) -> None:
        """Tell the backend of a tunnel that nothing more comes."""
        ...
