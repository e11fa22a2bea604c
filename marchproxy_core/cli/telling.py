"""What became of a request, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from marchproxy_core.services import AuthType

if TYPE_CHECKING:
    from marchproxy_core.admin.requests import RequestAnswer

_CACHE = {
    "hit": "had the answer, fresh",
    "stale": "had the answer, stale, and gave it as far as it may",
    "revalidated": "had the answer, stale, and the backend said that it still holds",
    "miss": "did not have the answer",
    "bypass": "was passed by: the request is not for one",
}
_ORIGINS = {
    "backend": "the backend made it",
    "proxy": "the proxy made it",
    "cache": "the cache made it",
    "client": "its client left first",
}


def tell_request(answer: RequestAnswer) -> Iterator[str]:
    """Yield the lines."""
    yield f"request {answer.id}, over at {answer.timestamp:%Y-%m-%d %H:%M:%S.%f}Z, in {answer.process}"
    yield f"client    {answer.client}{_over(answer)}"
    if answer.method is None:
        yield f"route     none: it was no request of any service; its listener counts for {answer.service}"
    else:
        yield f"asked     {answer.method} {answer.path} of host {answer.host or '(none)'}"
        yield f"route     {answer.route or 'unknown'} of service {answer.service}"
        yield f"auth      {_auth(answer)}"
        yield f"cache     {_cache(answer)}"
        yield from _attempts(answer)
    yield f"status    {_status(answer)}"
    if answer.reason is not None:
        yield f"reason    {answer.reason}{f': {answer.detail}' if answer.detail else ''}"
    if answer.duration_ms is not None:
        yield (
            f"took      {answer.duration_ms:g} ms; {answer.bytes_in or 0} bytes of its body came, "
            f"{answer.bytes_out or 0} of the answer's went"
        )


def _over(answer: RequestAnswer) -> str:
    return f", HTTP/{answer.version.removeprefix('HTTP/')}" if answer.version else ""


def _auth(answer: RequestAnswer) -> str:
    if answer.reason is not None and answer.reason.startswith("token_"):
        return "refused"
    if answer.subject is not None:
        return f"let in as {answer.subject}"
    if answer.auth is AuthType.NONE:
        return "none is asked for"
    return "no subject is known"


def _cache(answer: RequestAnswer) -> str:
    return "was not asked" if answer.cache is None else _CACHE.get(answer.cache, answer.cache)


def _attempts(answer: RequestAnswer) -> Iterator[str]:
    for attempt in answer.attempts:
        yield f"try       {attempt.backend}: {attempt.error}, after {attempt.ms:g} ms"
    if answer.backend is not None:
        yield f"backend   {answer.backend}"
    else:
        yield f"backend   {'none was asked' if not answer.attempts else 'none had an answer'}"


def _status(answer: RequestAnswer) -> str:
    who = _ORIGINS.get(answer.origin, answer.origin)
    return f"{answer.status}: {who}" if answer.status else f"none: {who}"
