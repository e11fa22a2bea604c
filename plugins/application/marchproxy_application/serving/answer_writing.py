"""How answers of HTTP/1.1 are written: whether the connection is kept, and chunks where nobody knows the length."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marchproxy_application.http1.chunks import as_chunk, last_chunk
from marchproxy_application.http1.writing import CLOSE, KEEP_ALIVE
from marchproxy_application.serving.client_connection import ClientConnection

if TYPE_CHECKING:
    from socket import SocketType

    from marchproxy_application.http1.fields import Field
    from marchproxy_application.serving.exchange import Exchange
    from marchproxy_application.serving.front import Front
    from marchproxy_application.serving.preparing import PreparedAnswer
    from marchproxy_core.relay.accepting import Address


class AnswerWriter(ClientConnection):
    """Base of a connection in HTTP/1.1: what goes to the client; see ``Client``."""

    __slots__ = ("_codes_chunks", "keeps", "version")

    def __init__(self, front: Front, sock: SocketType, peer: Address) -> None:
        """Take over an accepted, non-blocking socket."""
        super().__init__(front, sock, peer)
        self.version = "1.1"
        self.keeps = True
        """Whether another request may follow."""
        self._codes_chunks = False
        """The body of this answer is written in chunks."""

    def answer(
        self, exchange: Exchange, answer: PreparedAnswer, more: bytes, body: bytes, *, is_over: bool
    ) -> None:
        """Send the head of the answer and what there is of its body."""
        head = exchange.prepared.head
        if not head.keeps_alive or self.front.is_draining or not exchange.request_over:
            self.keeps = False
        start = answer.start
        if not answer.is_delimited:
            if head.minor:
                start = answer.start_chunked
                self._codes_chunks = True
                if body:
                    body = as_chunk(body)
                if is_over:
                    body += last_chunk([])
            else:
                self.keeps = False
        if self.keeps and head.minor:
            self.write(b"%b%b\r\n%b" % (start, more, body))
        else:
            self.write(b"%b%b%b\r\n%b" % (start, more, KEEP_ALIVE if self.keeps else CLOSE, body))

    def answer_interim(self, answer: PreparedAnswer) -> None:
        """Send a head that another one follows; who speaks HTTP/1.0 knows none."""
        if self.version == "1.1":
            self.write(answer.start + b"\r\n")

    def answer_body(self, data: bytes) -> None:
        """Send more of the body."""
        self.write(as_chunk(data) if self._codes_chunks and data else data)

    def answer_end(self, data: bytes, trailers: list[Field]) -> None:
        """Send the last of the body."""
        if self._codes_chunks:
            data = (as_chunk(data) if data else b"") + last_chunk(trailers)
        if data:
            self.write(data)
