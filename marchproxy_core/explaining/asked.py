"""A request that somebody asks about, and what a step of its way comes to. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

import attrs

from marchproxy_core.drops import DropReason
from marchproxy_core.model import Candidate, Decision
from marchproxy_core.routing.paths import normal

TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_URL = re.compile(
    r"(?i:(https?))://(\[[0-9a-f:.]{2,45}\]|[a-z0-9._~-]+)(?::([0-9]{1,5}))?(/[!-\"$-~]*|\?[!-\"$-~]*)?",
    re.IGNORECASE,
)
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_PORTS = {"http": 80, "https": 443}


@attrs.frozen(kw_only=True)
class Asked:
    """One request."""

    method: str
    scheme: str
    name: str
    """Of the server, in small letters and without a port: what a client looks up, and asks for in TLS."""
    port: int
    path: str
    """In normal form, with its query."""
    fields: tuple[tuple[str, str], ...]
    """Names and values as the client sends them, its ``Host`` first."""

    def all(self, name: str) -> list[str]:
        """Return the values of the fields of a name, given in small letters."""
        return [value for each, value in self.fields if each.lower() == name]

    def tokens(self, name: str) -> list[str]:
        """Return the members of a list of tokens, in small letters."""
        return [
            token for value in self.all(name) for each in value.split(",") if (token := each.strip().lower())
        ]

    @property
    def host(self) -> str:
        """What its Host field says, in small letters."""
        return self.all("host")[0].lower()

    @property
    def bare_path(self) -> str:
        """The path without its query."""
        return self.path.partition("?")[0]

    @property
    def upgrade(self) -> str:
        """The protocol that it asks to change to, in small letters; empty: none, or none that makes sense."""
        if self.method != "GET" or self.has_body:
            return ""  # RFC 6455, section 4.1
        return next(iter(self.tokens("upgrade")), "") if "upgrade" in self.tokens("connection") else ""

    @property
    def length(self) -> int:
        """Bytes of its body, as Content-Length has it."""
        lengths = self.all("content-length")
        return int(lengths[0]) if lengths and lengths[0].isascii() and lengths[0].isdigit() else 0

    @property
    def has_body(self) -> bool:
        """Whether anything comes behind its head."""
        return self.is_chunked or self.length > 0

    @property
    def is_chunked(self) -> bool:
        """Whether its body comes in chunks."""
        return "chunked" in self.tokens("transfer-encoding")


def asked_of(method: str, url: str, headers: Iterable[str]) -> Asked:
    """Read a request as it is written on a command line.

    Args:
        method: As ``GET``.
        url: With scheme and host.
        headers: Each ``Name: value``; a ``Host`` takes the place of the URL's.

    Raises:
        ValueError: It is none; the text says what is wanted.
    """
    if not TOKEN.fullmatch(method):
        raise ValueError(f"got method {method!r}, want a token as GET")
    match = _URL.fullmatch(url.partition("#")[0])
    port = int(match[3]) if match and match[3] else 0
    if match is None or port > 65535:
        raise ValueError(f"got URL {url!r}, want one as http://example.com/path, in ASCII, without a user")
    scheme, name = match[1].lower(), match[2].lower()
    target = match[4] or "/"
    path = normal((target if target.startswith("/") else "/" + target).encode()).decode()
    fields = tuple(_field(header) for header in headers)
    if not any(name_of.lower() == "host" for name_of, _ in fields):
        fields = (("Host", f"{name}:{port}" if port else name), *fields)
    return Asked(
        method=method, scheme=scheme, name=name, port=port or _PORTS[scheme], path=path, fields=fields
    )


def _field(header: str) -> tuple[str, str]:
    name, colon, value = header.partition(":")
    if not colon or not TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
        raise ValueError(f"got header {header!r}, want it as 'Name: value'")
    return name, value.strip(" \t")


@attrs.frozen
class Refusal:
    """A request that no backend is asked for."""

    status: int | None
    """What the client is told; None: it gets no answer."""
    reason: DropReason | None
    """What is counted."""
    why: str


@attrs.frozen(kw_only=True)
class Step:
    """What one step on a request's way decides."""

    decision: Decision
    refusal: Refusal | None = None


def step(
    subject: str, chosen: str | None, candidates: Iterable[Candidate], refusal: Refusal | None = None
) -> Step:
    """Put a step together."""
    decision = Decision(subject=subject, chosen=chosen, candidates=tuple(candidates))
    return Step(decision=decision, refusal=refusal)
