"""Whether the cache of a service is asked, and by which key; what is stored is not known offline. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marchproxy_core.explaining.asked import Step, step
from marchproxy_core.model import Candidate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from marchproxy_core.explaining.asked import Asked
    from marchproxy_core.services import Service

_FOR_BACKENDS = ("if-match", "if-unmodified-since")
"""Conditions that only a backend can answer."""


def judge_cache(asked: Asked, service: Service) -> Step:
    """Say whether the cache is looked at for a request."""
    subject, cache = f"cache of service {service.name}", service.cache
    if cache is None:
        return step(subject, None, [Candidate("cache", taken=False, reason="the service has none")])
    bypasses = [Candidate(name, taken=False, reason=reason) for name, reason in _bypasses(asked, service)]
    if bypasses:
        return step(subject, None, bypasses)
    key = f"{asked.scheme}://{asked.host}{asked.path}"
    candidates = [Candidate("key", taken=True, reason=key)]
    if cache.vary:
        values = (f"{name}: {', '.join(asked.all(name.lower())) or '(none)'}" for name in cache.vary)
        candidates.append(Candidate("cache_vary", taken=True, reason="; ".join(values)))
    reason = "fields that a stored answer's Vary names are looked at as well"
    candidates.append(Candidate("Vary", taken=True, reason=reason))
    candidates += [Candidate(name, taken=True, reason=reason) for name, reason in _wishes(asked)]
    candidates.append(
        Candidate(
            "cache_ttl", taken=True, reason=f"{cache.ttl_s:g} s, where an answer does not say it itself"
        )
    )
    return step(
        subject, "is looked at; a backend is asked only for what is not stored or not fresh", candidates
    )


def _bypasses(asked: Asked, service: Service) -> Iterator[tuple[str, str]]:
    if asked.upgrade == "websocket" and service.websocket:
        yield "Upgrade", "a WebSocket is not cached"
        return
    if asked.method not in ("GET", "HEAD"):
        yield "method", f"{asked.method} is neither GET nor HEAD"
        return
    if "no-store" in _directives(asked):
        yield "Cache-Control", "no-store: nobody else may have the answer"
    for name in _FOR_BACKENDS:
        if asked.all(name):
            yield name, "a condition that only a backend can answer"
    if asked.has_body:
        yield "body", "the answer may depend on it, and it is no part of the key"


def _wishes(asked: Asked) -> Iterator[tuple[str, str]]:
    directives = _directives(asked)
    for name, reason in (
        ("no-cache", "what is stored is validated first"),
        ("max-age", "what is older is validated first"),
        ("min-fresh", "what is fresh for less is validated first"),
        ("max-stale", "what is stale is taken for so long"),
        ("only-if-cached", "504 where nothing is stored"),
    ):
        if name in directives:
            yield f"Cache-Control: {name}", reason


def _directives(asked: Asked) -> set[str]:
    return {each.partition("=")[0].strip() for each in asked.tokens("cache-control")}
