"""The coding of one answer's body: which head goes with it, and what becomes of each piece."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from marchproxy_application.compression.choosing import accepted, is_compressible
from marchproxy_application.compression.coders import Coder, coder_of
from marchproxy_application.http1.fields import Field, read_field, tokens_of
from marchproxy_application.http1.writing import CHUNKED, lines_of, status_line
from marchproxy_application.serving.preparing import PreparedAnswer

if TYPE_CHECKING:
    from marchproxy_application.serving.preparing import PreparedRequest
    from marchproxy_core.services import Compression

_GONE: Final = frozenset({b"content-length", b"accept-ranges", b"content-md5", b"digest", b"repr-digest"})
"""What is not true of another coding any more."""
_VARY: Final = read_field(b"Vary: Accept-Encoding")


@final
class Coding:
    """One body on its way."""

    __slots__ = ("_coder", "_flushes", "answer")

    def __init__(self, answer: PreparedAnswer, coder: Coder | None, *, flushes: bool) -> None:
        """Begin.

        Args:
            answer: The head that the client gets.
            coder: None: the body stays as it is.
            flushes: Whether each piece is to be readable when it comes, since nobody knows when the next one will.
        """
        self.answer = answer
        self._coder = coder
        self._flushes = flushes

    @property
    def is_plain(self) -> bool:
        """Whether the body stays as it is."""
        return self._coder is None

    def piece(self, data: bytes) -> bytes:
        """Return what goes to the client for a piece; maybe nothing."""
        if self._coder is None or not data:
            return data
        coded = self._coder.code(data)
        return coded + self._coder.flush() if self._flushes else coded

    def last(self, data: bytes) -> bytes:
        """Return what goes to the client for the last piece."""
        if self._coder is None:
            return data
        return self._coder.code(data) + self._coder.end()


def coding_of(
    prepared: PreparedRequest, answer: PreparedAnswer, offered: tuple[Compression, ...]
) -> Coding | None:
    """Return how an answer is coded; None where no request of whatever kind would have it coded.

    Args:
        prepared: The request.
        answer: As it is without a coding.
        offered: By the service, in order of preference.
    """
    if prepared.head.method == b"HEAD" or not is_compressible(answer.head):
        return None
    chosen = accepted(prepared.head.all(b"accept-encoding"), offered) if prepared.head.minor else None
    known = answer.coded.get(chosen)
    if known is None:
        known = answer.coded[chosen] = _coded(answer, chosen)
    return Coding(known, coder_of(chosen) if chosen else None, flushes=answer.head.length is None)


def _coded(answer: PreparedAnswer, chosen: Compression | None) -> PreparedAnswer:
    fields = [_weakened(field) if chosen else field for field in answer.fields]
    if chosen is not None:
        fields = [field for field in fields if field.name not in _GONE]
        fields.append(read_field(b"Content-Encoding: %b" % chosen.value.encode()))
    if not any(b"accept-encoding" in tokens_of(field.value) for field in fields if field.name == b"vary"):
        fields.append(_VARY)
    head = answer.head
    start = status_line(head.status, head.reason) + lines_of(fields) + answer.via
    is_delimited = answer.is_delimited and chosen is None
    return PreparedAnswer(
        head=head,
        fields=fields,
        start=start,
        via=answer.via,
        is_delimited=is_delimited,
        start_chunked=start if is_delimited else start + CHUNKED,
    )


def _weakened(field: Field) -> Field:
    """Return an entity tag as a weak one: the bytes are others, what they mean is not (RFC 9110, section 8.8.1)."""
    if field.name == b"etag" and not field.value.startswith(b"W/"):
        return read_field(b"ETag: W/%b" % field.value)
    return field
