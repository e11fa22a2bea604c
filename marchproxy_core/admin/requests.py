"""What the admin API says of one request and of a purge: the answers, and how each is read from the engine's."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import attrs
from cattrs import Converter

from marchproxy_core.questions import Purge, read_prefix, read_url
from marchproxy_core.services import AuthType

if TYPE_CHECKING:
    from marchproxy_core.config import Config
    from marchproxy_core.questions import Purged


@attrs.frozen(kw_only=True)
class AttemptAnswer:
    """One try that came to nothing."""

    backend: str
    ms: float
    error: str


@attrs.frozen(kw_only=True)
class RequestAnswer:
    """``GET /admin/requests/{id}``: what became of a request, as the event of the log has it."""

    id: str
    timestamp: datetime
    """When it was over."""
    process: str
    """The worker that served it."""
    service: str
    """Of a request that nobody takes: the one that its listen address counts for."""
    client: str
    status: int
    """0: its client left, or was cut off, before there was one."""
    origin: str
    """Who made the status: backend, proxy, cache or client."""
    reason: str | None = None
    detail: str | None = None
    """The cause behind the reason."""
    method: str | None = None
    """None, with all below, of what came and was no request of any service."""
    host: str | None = None
    path: str | None = None
    route: str | None = None
    """Host and path that the service takes it for."""
    version: str | None = None
    backend: str | None = None
    attempts: tuple[AttemptAnswer, ...] = ()
    """Tries that came to nothing, before the last."""
    cache: str | None = None
    """What the cache did; None where none was asked."""
    subject: str | None = None
    """Who its token says the client is."""
    bytes_in: int | None = None
    bytes_out: int | None = None
    duration_ms: float | None = None
    auth: AuthType | None = None
    """What the service asks of its clients in the present configuration; None: there is no such service any more."""


@attrs.frozen(kw_only=True)
class PurgeRequest:
    """The body of ``POST /admin/cache/purge``; with neither ``url`` nor ``prefix``, all is forgotten."""

    service: str
    url: str | None = None
    """One URL with all its variants, as https://example.com/path?query."""
    prefix: str | None = None
    """All URLs whose paths begin so: /static/, or example.com/static/ of one host."""


@attrs.frozen(kw_only=True)
class PurgeAnswer:
    """``POST /admin/cache/purge``: how many responses were forgotten."""

    service: str
    forgotten: int
    """Over all workers, each of which has a cache of its own."""
    silent_workers: int
    """Workers that did not answer within a second: what they have may still be there."""


_CONVERTER = Converter()
_CONVERTER.register_structure_hook(datetime, lambda text, _: datetime.fromisoformat(text))


def request_answer(found: Mapping[str, object], config: Config) -> RequestAnswer:
    """Read what a worker says of a request.

    Raises:
        ExceptionGroup: It makes no sense.
    """
    services = {service.name: service for service in config.services}
    answer = _CONVERTER.structure(found, RequestAnswer)
    service = services.get(answer.service)
    return attrs.evolve(answer, auth=service.auth.type if service else None)


def purge_of(asked: PurgeRequest, config: Config) -> Purge:
    """Read what is to be forgotten.

    Raises:
        ValueError: It cannot be; the text says why.
    """
    caches = [service.name for service in config.services if service.cache is not None]
    if asked.service not in caches:
        near = difflib.get_close_matches(asked.service, caches, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(caches) or 'none'}"
        raise ValueError(f"no service {asked.service!r} that has a cache; {hint}")
    if asked.url is not None and asked.prefix is not None:
        raise ValueError("both url and prefix: want one of them, or neither to forget all")
    try:
        if asked.url is not None:
            return Purge(service=asked.service, url=read_url(asked.url))
        host, prefix = (None, b"") if asked.prefix is None else read_prefix(asked.prefix)
    except ValueError as error:
        name, text = ("prefix", asked.prefix) if asked.url is None else ("url", asked.url)
        raise ValueError(f"{name}: got {text!r}, want {error}") from None
    return Purge(service=asked.service, host=host, prefix=prefix)


def purge_answer(service: str, purged: Purged) -> PurgeAnswer:
    """Say what a purge did."""
    return PurgeAnswer(service=service, forgotten=purged.forgotten, silent_workers=purged.silent)
