"""Which backends a request may get, and after what it is tried again. Pure; their health is not known offline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marchproxy_core.drops import DropReason
from marchproxy_core.explaining.asked import Refusal, Step, step
from marchproxy_core.model import Candidate
from marchproxy_core.services import Balance, HttpVersion, RetryOn

if TYPE_CHECKING:
    from marchproxy_core.explaining.asked import Asked
    from marchproxy_core.services import Service

_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Idempotent ones (RFC 9110, section 9.2.2)."""
_HOW = {
    Balance.ROUND_ROBIN: "in turn, by weight",
    Balance.LEAST_CONNECTIONS: "the one with the fewest requests for its weight",
    Balance.RANDOM: "the less busy one of two drawn by weight",
    Balance.MAGLEV: "by the client's address",
}
_NEEDS_ALL_OF_THE_BODY = "where all of the body was kept (64 KiB)"


def judge_backends(service: Service) -> Step:
    """Say which backends may be picked."""
    subject = f"backend of service {service.name}"
    total = sum(backend.weight for backend in service.backends)
    health = "while it is up" if service.health_check is not None else "unless it is ejected for failures"
    candidates = []
    for backend in service.backends:
        if backend.flush:
            reason = "is flushed: nothing new, and what it has ends"
        elif not backend.weight:
            reason = "weight 0 drains it: nothing new"
        else:
            share = 100 * backend.weight / total
            reason = f"weight {backend.weight} of {total}, {share:.3g} % of requests, {health}"
        candidates.append(Candidate(str(backend.endpoint), taken=backend.weight > 0, reason=reason))
    usable = [candidate.name for candidate in candidates if candidate.taken]
    if not usable:
        refusal = Refusal(503, DropReason.NO_BACKEND, "no backend has a weight")
        if service.http is None:
            refusal = Refusal(None, DropReason.NO_BACKEND, "no backend has a weight")
        return step(subject, None, candidates, refusal)
    chosen = usable[0] if len(usable) == 1 else f"one of {len(usable)}: {_HOW[service.balance]}"
    return step(subject, chosen + _spoken(service), candidates)


def _spoken(service: Service) -> str:
    http = service.http
    if http is None:
        return ""
    version = "HTTP/2" if http.backend_protocol is HttpVersion.HTTP2 else "HTTP/1.1"
    return f", in {version}{' over TLS' if http.backend_tls is not None else ''}"


def judge_retries(asked: Asked, service: Service) -> Step:
    """Say how often, and after what, a request would be tried again."""
    assert service.http is not None
    retry = service.http.retry
    repeatable = asked.method in _REPEATABLE
    only = f"{asked.method} is not repeatable"
    reasons = {
        RetryOn.CONNECT: "the backend has seen nothing of it",
        RetryOn.RESET: f"{asked.method} may be sent twice"
        if repeatable
        else f"{only}: where nothing was sent",
        RetryOn.TIMEOUT: _when_sent(retry.try_timeout_s, only, is_repeatable=repeatable),
        RetryOn.STATUS_502: _after_answer(only, is_repeatable=repeatable),
        RetryOn.STATUS_503: _after_answer(only, is_repeatable=repeatable),
        RetryOn.STATUS_504: _after_answer(only, is_repeatable=repeatable),
    }
    sent_only = (RetryOn.CONNECT, RetryOn.RESET)
    candidates = []
    for on, reason in reasons.items():
        if on not in retry.on:
            candidates.append(Candidate(on.value, taken=False, reason="not in retry_on"))
            continue
        taken = bool(retry.most) and (repeatable or on in sent_only)
        candidates.append(Candidate(on.value, taken=taken, reason=reason))
    if asked.has_body:
        candidates.append(Candidate("body", taken=True, reason=_NEEDS_ALL_OF_THE_BODY))
    if not retry.most:
        return step("retries", None, [Candidate("retries", taken=False, reason="0: it is asked once")])
    budget = f"within {100 * retry.budget:g} % of requests"
    return step("retries", f"up to {retry.most}, {budget}, at other backends first", candidates)


def _when_sent(try_timeout_s: float | None, only: str, *, is_repeatable: bool) -> str:
    if not is_repeatable:
        return only
    return f"after {try_timeout_s:g} s" if try_timeout_s is not None else "after READ_TIMEOUT"


def _after_answer(only: str, *, is_repeatable: bool) -> str:
    return "where there is another backend" if is_repeatable else only
