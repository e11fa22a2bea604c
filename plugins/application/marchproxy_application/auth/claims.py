"""What a token's claims must say (RFC 7519, section 4.1): prepared once from settings, applied to each new token."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from marchproxy_application.auth.causes import Cause, NotAccepted

if TYPE_CHECKING:
    from marchproxy_core.services import Auth


@attrs.frozen(kw_only=True)
class Span:
    """When a token is good: from the one time until before the other, in seconds since 1970, leeway included."""

    from_s: float
    until_s: float


@attrs.frozen(kw_only=True)
class Demands:
    """What is asked of claims; what is None or empty is not asked."""

    issuer: str | None
    audience: frozenset[str]
    required: tuple[str, ...]
    leeway_s: float

    @classmethod
    def of(cls, auth: Auth) -> Demands:
        """Take them from a service's settings."""
        return cls(
            issuer=auth.issuer,
            audience=frozenset(auth.audience),
            required=auth.required_claims,
            leeway_s=auth.leeway_s,
        )

    def check(self, claims: Mapping[str, object], now_s: float) -> Span:
        """Return when a token with these claims is good, which is now.

        Args:
            claims: Those of a token whose signature has been verified.
            now_s: Seconds since 1970.

        Raises:
            NotAccepted: They are not what is asked for, or not now.
        """
        for name in self.required:
            if claims.get(name) is None:
                raise NotAccepted(Cause.MISSING_CLAIM)
        if not isinstance(claims.get("sub", ""), str):
            raise NotAccepted(Cause.BAD_CLAIM)
        self._check_parties(claims)
        return self._check_times(claims, now_s)

    def _check_parties(self, claims: Mapping[str, object]) -> None:
        if self.issuer is not None and claims.get("iss") != self.issuer:
            raise NotAccepted(Cause.WRONG_ISSUER)
        if self.audience:
            named = claims.get("aud")
            audience = named if isinstance(named, list) else [named]
            if not any(isinstance(each, str) and each in self.audience for each in audience):
                raise NotAccepted(Cause.WRONG_AUDIENCE)

    def _check_times(self, claims: Mapping[str, object], now_s: float) -> Span:
        expires_s = _time(claims, "exp", math.inf) + self.leeway_s
        not_before_s = _time(claims, "nbf", -math.inf) - self.leeway_s
        issued_s = _time(claims, "iat", -math.inf) - self.leeway_s
        if now_s >= expires_s:
            raise NotAccepted(Cause.EXPIRED)
        if now_s < not_before_s:
            raise NotAccepted(Cause.NOT_YET_VALID)
        if now_s < issued_s:
            raise NotAccepted(Cause.ISSUED_IN_FUTURE)
        return Span(from_s=max(not_before_s, issued_s), until_s=expires_s)


def _time(claims: Mapping[str, object], name: str, missing: float) -> float:
    """Return a NumericDate (RFC 7519, section 2)."""
    if name not in claims:
        return missing
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NotAccepted(Cause.BAD_CLAIM)
    try:
        seconds = float(value)
    except OverflowError:  # an integer of more than 308 digits
        raise NotAccepted(Cause.BAD_CLAIM) from None
    if not math.isfinite(seconds):  # JSON's 1e999
        raise NotAccepted(Cause.BAD_CLAIM)
    return seconds
