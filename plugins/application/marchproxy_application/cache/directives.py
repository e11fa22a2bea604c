"""Directives of Cache-Control, and of the fields that speak to us instead of it.

CDN-Cache-Control (RFC 9213) comes first, then Surrogate-Control (W3C, Edge Architecture), then Cache-Control: the first
that says anything is what a response says, and the others count for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

import attrs

from marchproxy_application.cache.messages import joined, make_field

if TYPE_CHECKING:
    from marchproxy_application.http1.fields import Field

DEVICE = b"marchproxy"
"""Our name where a backend may speak to one cache among several."""
CAPABILITY = make_field(b"Surrogate-Capability", DEVICE + b'="Surrogate/1.0"')
"""Tells a backend that it can use Surrogate-Control, and what for whom."""
LONGEST_S = 2**31
"""What a greater number of seconds counts as (RFC 9111, section 1.2.2)."""

Directives = Mapping[bytes, bytes | None]
"""By their names in small letters; the first of each name counts."""

_NONE: Directives = MappingProxyType({})
_MEMBER = re.compile(rb'(?:[^",]|"(?:[^"\\]|\\.)*"?)+', re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_LONGEST_REMEMBERED = 256


def parse_directives(text: bytes | None) -> Directives:
    """Return the directives of a list; what is none is left out, and None has none."""
    if text is None:
        return _NONE
    return _known(text) if len(text) <= _LONGEST_REMEMBERED else _parsed(text)


def seconds(value: bytes | None) -> int:
    """Return a directive's seconds; of what is no number of seconds, 0: stale (RFC 9111, section 4.2.1)."""
    if value is None or not value.isdigit():
        return 0
    digits = value.lstrip(b"0")
    return LONGEST_S if len(digits) > 10 else min(int(digits or b"0"), LONGEST_S)


@attrs.frozen(kw_only=True)
class Policy:
    """What a response says about its own storing.

    Args:
        lifetime_s: For how long it is fresh; None when no directive says so.
        unkept: Names of fields that must not be stored with it.
        must_validate: It must not be used stale.
        for_everybody: It may be stored though its request was authorized (RFC 9111, section 3.5).
        stale_while_revalidate_s: RFC 5861; 0 when not given.
        stale_if_error_s: RFC 5861; None when not given.
        expires: Whether Expires counts.
    """

    lifetime_s: int | None = None
    no_store: bool = False
    private: bool = False
    no_cache: bool = False
    public: bool = False
    must_understand: bool = False
    must_validate: bool = False
    for_everybody: bool = False
    unkept: frozenset[bytes] = frozenset()
    stale_while_revalidate_s: int = 0
    stale_if_error_s: int | None = None
    expires: bool = True


def policy_of(fields: Sequence[Field]) -> Policy:
    """Return what a response says about its own storing."""
    targeted = parse_directives(joined(fields, b"cdn-cache-control"))
    if targeted:
        return _policy(targeted, expires=False)
    surrogate = joined(fields, b"surrogate-control")
    if surrogate is not None and (ours := _for_us(surrogate)):
        return _policy(ours, expires=False)
    return _policy(parse_directives(joined(fields, b"cache-control")), expires=True)


def _policy(directives: Directives, *, expires: bool) -> Policy:
    lifetime = next((name for name in (b"s-maxage", b"max-age") if name in directives), None)
    strict = b"must-revalidate" in directives or b"proxy-revalidate" in directives
    while_s = seconds(directives.get(b"stale-while-revalidate"))
    error_s = seconds(directives[b"stale-if-error"]) if b"stale-if-error" in directives else None
    return Policy(
        lifetime_s=None if lifetime is None else seconds(directives[lifetime]),
        no_store=b"no-store" in directives,
        private=b"private" in directives and not directives[b"private"],
        no_cache=b"no-cache" in directives and not directives[b"no-cache"],
        public=b"public" in directives,
        must_understand=b"must-understand" in directives,
        # s-maxage forbids stale use as proxy-revalidate does (section 5.2.2.10), but not to who allows it expressly.
        must_validate=strict or (b"s-maxage" in directives and not while_s and not error_s),
        for_everybody=any(name in directives for name in (b"public", b"s-maxage", b"must-revalidate")),
        unkept=_names(directives.get(b"no-cache")) | _names(directives.get(b"private")),
        stale_while_revalidate_s=0 if strict else while_s,
        stale_if_error_s=0 if strict else error_s,
        expires=expires,
    )


def _names(value: bytes | None) -> frozenset[bytes]:
    return frozenset(name for each in (value or b"").split(b",") if (name := each.strip(b" \t").lower()))


def _for_us(text: bytes) -> Directives:
    """Return the directives of Surrogate-Control that are for us; those with our name before those with none."""
    general: dict[bytes, bytes | None] = {}
    named: dict[bytes, bytes | None] = {}
    for name, value in _members(text):
        # The target follows a directive or its value: "no-store;device", "max-age=60+30;device".
        bare, _, target = name.partition(b";")
        said = None
        if value is not None:
            said, _, target = value.partition(b";")
            said = said.partition(b"+")[0]
        if bare in (b"max-age", b"no-store") and target.strip().lower() in (b"", DEVICE):
            (named if target else general).setdefault(bare, said)
    return named or general


def _parsed(text: bytes) -> Directives:
    found: dict[bytes, bytes | None] = {}
    for name, value in _members(text):
        found.setdefault(name, value)
    return MappingProxyType(found)


def _members(text: bytes) -> list[tuple[bytes, bytes | None]]:
    parts = _MEMBER.findall(text) if b'"' in text else text.split(b",")
    split = [part.strip(b" \t").partition(b"=") for part in parts]
    return [(name.lower(), _unquoted(value) if equals else None) for name, equals, value in split if name]


def _unquoted(value: bytes) -> bytes:
    if len(value) < 2 or value[:1] != b'"' or value[-1:] != b'"':
        return value
    return _ESCAPED.sub(rb"\1", value[1:-1])


_known = lru_cache(2048)(_parsed)
