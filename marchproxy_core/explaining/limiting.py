"""The head's own faults, and the limits that a request meets. Pure; how full they are is not known offline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from marchproxy_core.drops import DropReason
from marchproxy_core.explaining.asked import Refusal, Step, step
from marchproxy_core.model import Candidate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from marchproxy_core.config import Settings
    from marchproxy_core.explaining.asked import Asked
    from marchproxy_core.services import Http, Service


def judge_head(asked: Asked, members: Sequence[Service]) -> Step:
    """Look for what has the head refused before any route is looked for.

    Args:
        asked: The request.
        members: The services that share its listener.
    """
    owner = owner_of(members)
    checks = (
        *_faults(asked),
        *(_size(asked, owner) if owner is not None else ()),
    )
    candidates = [Candidate(name, taken=not refusal, reason=reason) for name, reason, refusal in checks]
    refusal = next((refusal for _, _, refusal in checks if refusal is not None), None)
    return step("head", None if refusal else "is read", candidates, refusal)


def owner_of(members: Sequence[Service]) -> Http | None:
    """Return the HTTP of the service whose limits a head has to keep to before its route is known."""
    read = [service.http for service in members if service.http is not None]
    whole = (http for http in read if not http.hosts and http.paths == ("/",))
    return next(whole, read[0] if read else None)


_Check = tuple[str, str, Refusal | None]


def _faults(asked: Asked) -> Iterator[_Check]:
    lengths, codings = asked.all("content-length"), asked.tokens("transfer-encoding")
    expectations = asked.all("expect")
    if asked.method == "CONNECT":
        yield _fault("method", 501, DropReason.METHOD_NOT_IMPLEMENTED, "CONNECT is not implemented")
    if len(asked.all("host")) > 1:
        yield _fault("Host", 400, DropReason.NO_HOST, "more than one Host field")
    if lengths and codings:
        yield _fault("framing", 400, DropReason.LENGTH_AND_CODING, "Content-Length and Transfer-Encoding")
    elif codings and codings != ["chunked"]:
        yield _fault("framing", 501, DropReason.UNKNOWN_CODING, "a transfer coding other than chunked alone")
    elif len(lengths) > 1 or not all(each.isascii() and each.isdigit() for each in lengths):
        yield _fault(
            "framing", 400, DropReason.BAD_LENGTH, "Content-Length is no number, or there are several"
        )
    if any(each.lower() != "100-continue" for each in expectations):
        why = "an expectation other than 100-continue"
        yield _fault("Expect", 417, DropReason.UNKNOWN_EXPECTATION, why)


def _fault(name: str, status: int, reason: DropReason, why: str) -> _Check:
    return name, why, Refusal(status, reason, why)


def _size(asked: Asked, http: Http) -> Iterator[_Check]:
    size = len(f"{asked.method} {asked.path} HTTP/1.1\r\n\r\n")
    size += sum(len(f"{name}: {value}\r\n") for name, value in asked.fields)
    for name, have, most in (
        ("max_headers", len(asked.fields), http.max_headers),
        ("max_header_bytes", size, http.max_header_bytes),
    ):
        why = f"{have} of {most}"
        is_over = have > most
        yield name, why, Refusal(431, DropReason.HEAD_TOO_LARGE, f"{name}: {why}") if is_over else None


def judge_limits(asked: Asked, service: Service, settings: Settings) -> Step:
    """Say which limits of its service a request meets."""
    candidates = [Candidate(name, taken=True, reason=reason) for name, reason in _met(service, settings)]
    refusal = None
    most = service.http.max_body_bytes if service.http is not None else None
    if most is not None:
        is_over = asked.length > most
        reason = (
            f"{asked.length} bytes of {most}" if not asked.is_chunked else f"counted as they come, to {most}"
        )
        candidates.append(Candidate("max_body_bytes", taken=not is_over, reason=reason))
        if is_over:
            refusal = Refusal(413, DropReason.BODY_TOO_LARGE, f"max_body_bytes: {reason}")
    chosen = None if refusal else "are kept to, as far as one request shows"
    return step(f"limits of service {service.name}", chosen, candidates, refusal)


def _met(service: Service, settings: Settings) -> Iterator[tuple[str, str]]:
    rules = len(settings.door_block) + len(settings.door_allow) + len(service.block) + len(service.allow)
    if rules:
        yield "front door", f"{rules} rules about clients' addresses; who is blocked gets no answer"
    connections = service.max_connections or settings.service_max_connections
    if connections is not None:
        yield "max_connections", f"{connections} open ones; above that a client is reset"
    rate = service.connection_rate or settings.service_connection_rate
    if rate is not None:
        yield "connection_rate", f"{rate:g} new ones a second; above that a client is reset"
    http = service.http
    if http is None:
        return
    if http.max_requests is not None:
        yield "max_requests", f"{http.max_requests} at once; 503 above that"
    if http.request_rate is not None:
        yield "request_rate", f"{http.request_rate:g} a second; 429 above that"
    if http.client_request_rate is not None:
        yield (
            "client_request_rate",
            f"{http.client_request_rate:g} a second by {http.client_key}; 429 above that",
        )
    timeout_s = http.request_timeout_s or settings.request_timeout
    yield "request_timeout", f"{timeout_s:g} s; 504 after that"
    if http.min_client_rate:
        yield "min_client_rate", f"{http.min_client_rate} bytes a second; 408 below that"
