"""Whether an answer is given a coding, and which one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from marchproxy_application.http1.fields import tokens_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from marchproxy_application.http1.response import ResponseHead
    from marchproxy_core.services import Compression

LEAST_BYTES: Final = 256
"""Shorter bodies are not worth it."""
_WEIGHT = re.compile(rb"[ \t]*;[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")
_TYPES: Final = frozenset(
    {
        b"application/javascript",
        b"application/json",
        b"application/manifest+json",
        b"application/wasm",
        b"application/x-javascript",
        b"application/xhtml+xml",
        b"application/xml",
        b"image/svg+xml",
    }
)
_SUFFIXES: Final = (b"+json", b"+xml")
_STATUSES: Final = frozenset({200, 201, 202, 203, 400, 401, 403, 404, 405, 410, 422, 500, 502, 503})


def accepted(wishes: Iterable[bytes], offered: tuple[Compression, ...]) -> Compression | None:
    """Return the coding that a client gets: of those with the highest weight the one that is offered first.

    Args:
        wishes: The values of Accept-Encoding.
        offered: In order of preference.
    """
    weights: dict[bytes, float] = {}
    for member in b",".join(wishes).split(b","):
        name, mark, _ = member.partition(b";")
        match = _WEIGHT.fullmatch(member[len(name) :]) if mark else None
        if mark and match is None:
            continue
        weights[name.strip(b" \t").lower()] = float(match[1]) if match else 1.0
    best, best_weight = None, 0.0
    for coding in offered:
        weight = weights.get(coding.value.encode(), weights.get(b"*", 0.0))
        if weight > best_weight:
            best, best_weight = coding, weight
    return best


def is_compressible(head: ResponseHead) -> bool:
    """Whether an answer would gain by a coding, and may be given one."""
    if head.status not in _STATUSES or (head.length is not None and head.length < LEAST_BYTES):
        return False
    if head.first(b"content-encoding") is not None or head.first(b"content-range") is not None:
        return False
    if any(b"no-transform" in tokens_of(value) for value in head.all(b"cache-control")):
        return False
    media = (head.first(b"content-type") or b"").partition(b";")[0].strip(b" \t").lower()
    return media.startswith(b"text/") or media in _TYPES or media.endswith(_SUFFIXES)
