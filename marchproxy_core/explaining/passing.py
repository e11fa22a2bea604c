"""What a backend gets of a request. Pure; a test of the application tier holds it to what that tier sends."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from marchproxy_core.explaining.asked import Step, step
from marchproxy_core.model import Candidate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from marchproxy_core.explaining.asked import Asked
    from marchproxy_core.explaining.finding import Found
    from marchproxy_core.services import Http, Service

_OF_ONE_CONNECTION = frozenset(
    {
        *("connection", "upgrade", "keep-alive", "proxy-connection", "proxy-authenticate"),
        *("proxy-authorization", "te", "trailer", "http2-settings"),
    }
)
_SAID_BY_US = frozenset(
    {
        *("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto"),
        *("x-real-ip", "x-request-id"),
    }
)
_FRAMING = frozenset({"host", "content-length", "transfer-encoding", "expect", "via"})
"""Written anew."""
_NOT_PLAIN = re.compile("[^A-Za-z0-9]")


def judge_head_sent(asked: Asked, found: Found) -> tuple[Step, tuple[str, ...]]:
    """Say what a backend gets, and of each field why; returns the lines of the head as well."""
    service = found.service
    http = service.http
    if http is None:
        return step("what the backend gets", "the bytes as they come", ()), ()
    start = f"{asked.method} {backend_path(asked, found, http)} HTTP/1.1"
    host = http.host_header or asked.host
    lines = [start, f"Host: {host}"]
    candidates = []
    if host != asked.host or http.host_header is not None:
        candidates.append(Candidate(f"Host: {host}", taken=True, reason="host_header"))
    for name, value, obstacle in _passed_on(asked, service, http):
        candidates.append(Candidate(f"{name}: {value}", taken=not obstacle, reason=obstacle or "passed on"))
        if not obstacle:
            lines.append(f"{name}: {value}")
    for line, why in (*_by_rule(http), *_framing(asked, service), *_ours(asked)):
        candidates.append(Candidate(line, taken=True, reason=why))
        lines.append(line)
    for claim, header in service.auth.forward_claims:
        why = f"the token's claim {claim}, if it has one"
        candidates.append(Candidate(f"{header}: <{claim}>", taken=True, reason=why))
    return step("what the backend gets", start, candidates), tuple(lines)


def backend_path(asked: Asked, found: Found, http: Http) -> str:
    """Return the path that the backend is asked for."""
    if not http.strip_path or asked.path == "*":
        return asked.path
    rest = asked.path[len(found.route.path.rstrip(b"/")) :]
    return rest if rest.startswith("/") else "/" + rest


def _passed_on(asked: Asked, service: Service, http: Http) -> Iterator[tuple[str, str, str]]:
    """Yield the client's fields, each with why it is not passed on; empty: it is."""
    named = set(asked.tokens("connection"))
    rules = http.request_headers
    removed = {name.lower() for name in rules.remove}
    replaced = {name.lower() for name, _ in rules.set}
    owned = {_as_cgi(header) for _, header in service.auth.forward_claims}
    for name, value in asked.fields:
        lower = name.lower()
        if lower in _FRAMING:
            continue
        obstacle = ""
        if lower in _OF_ONE_CONNECTION:
            obstacle = "of the client's connection alone"
        elif lower in _SAID_BY_US:
            obstacle = "a client's word about it is believed by nobody"
        elif lower in named:
            obstacle = "Connection names it"
        elif _as_cgi(name) in owned:
            obstacle = "could be taken for what a token says"
        elif lower in removed:
            obstacle = "request_header_remove"
        elif lower in replaced:
            obstacle = "request_header_set"
        yield name, value, obstacle


def _as_cgi(name: str) -> str:
    """What CGI calls a field, to which ``X_User`` and ``X-User`` are the same."""
    return _NOT_PLAIN.sub("_", name).lower()


def _by_rule(http: Http) -> Iterator[tuple[str, str]]:
    for name, value in http.request_headers.set:
        yield f"{name}: {value}", "request_header_set"
    for name, value in http.request_headers.add:
        yield f"{name}: {value}", "request_header_add"


def _framing(asked: Asked, service: Service) -> Iterator[tuple[str, str]]:
    if asked.is_chunked:
        yield "Transfer-Encoding: chunked", "the body is coded anew"
    elif asked.all("content-length"):
        yield f"Content-Length: {asked.length}", "the body's"
    if asked.all("expect") and asked.has_body:
        yield "Expect: 100-continue", "the client waits"
    if asked.upgrade == "websocket" and service.websocket:
        yield "Connection: upgrade", "the service carries WebSockets"
        yield "Upgrade: websocket", "the service carries WebSockets"


def _ours(asked: Asked) -> Iterator[tuple[str, str]]:
    before = [value for value in asked.all("via") if value]
    yield f"Via: {', '.join([*before, '1.1 marchproxy'])}", "added"
    host, client = asked.host, "<the client's address>"
    why = "added; what a client says of it is dropped"
    yield f'Forwarded: for={client};proto={asked.scheme};host="{host}"', why
    yield f"X-Forwarded-For: {client}", why
    yield f"X-Forwarded-Proto: {asked.scheme}", why
    yield f"X-Forwarded-Host: {host}", why
    yield f"X-Forwarded-Port: {asked.port}", why
    yield "X-Request-Id: <a new one>", why
