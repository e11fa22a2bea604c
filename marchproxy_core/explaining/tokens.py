"""What a service asks of its clients' tokens, and what can be told of one without the key. Pure.

Nothing is verified here: a signature needs keys, which may have to be fetched, and the code of the tier that does it.
A claim that would have the token refused even if it is signed well is told.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING

from marchproxy_core.drops import DropReason
from marchproxy_core.explaining.asked import Refusal, Step, step
from marchproxy_core.model import Candidate
from marchproxy_core.services import AuthType

if TYPE_CHECKING:
    from collections.abc import Iterator

    from marchproxy_core.explaining.asked import Asked
    from marchproxy_core.services import Auth, Service

_UNAUTHORIZED = 401


def judge_token(asked: Asked, service: Service, now_s: float) -> Step:
    """Say whether a request would be let in, as far as that can be told offline.

    Args:
        asked: It.
        service: That it is for.
        now_s: Seconds since 1970.
    """
    subject, auth = f"auth of service {service.name}", service.auth
    if auth.type is AuthType.NONE:
        return step(subject, "everybody is let in", ())
    fields = asked.all("authorization")
    scheme, _, token = (fields[0] if fields else "").partition(" ")
    if len(fields) > 1:
        return _refused(subject, DropReason.TOKEN_MALFORMED, "several Authorization fields")
    if scheme.lower() != "bearer":
        return _refused(subject, DropReason.TOKEN_MISSING, "no Bearer token came")
    try:
        header, claims = _read(token.strip(" "))
    except ValueError as error:
        return _refused(subject, DropReason.TOKEN_MALFORMED, str(error))
    candidates = [Candidate("token", taken=True, reason=_token_words(header)), _signature(auth)]
    refusal = None
    for name, obstacle, reason in (
        *_algorithm(auth, header),
        *_parties(auth, claims),
        *_times(auth, claims, now_s),
    ):
        candidates.append(Candidate(name, taken=not obstacle, reason=obstacle or "as asked"))
        if obstacle and refusal is None:
            refusal = Refusal(_UNAUTHORIZED, reason, f"{name}: {obstacle}")
    chosen = None if refusal else "let in, if the signature is good"
    return step(subject, chosen, candidates, refusal)


def _refused(subject: str, reason: DropReason, why: str) -> Step:
    return step(
        subject, None, [Candidate("token", taken=False, reason=why)], Refusal(_UNAUTHORIZED, reason, why)
    )


def _read(token: str) -> tuple[dict[str, object], dict[str, object]]:
    parts = token.split(".")
    if len(parts) != 3:
        raise ValueError("the token is not of three parts, as a signed JWT is")
    try:
        header, claims = (json.loads(_decoded(part)) for part in parts[:2])
    except (ValueError, RecursionError):
        raise ValueError("the token's header or claims are no JSON in base64url") from None
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise ValueError("the token's header or claims are no JSON object")  # noqa: TRY004 - bad input, not a bad call
    return header, claims


def _decoded(part: str) -> bytes:
    try:
        return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error


def _token_words(header: dict[str, object]) -> str:
    kid = f", key {header['kid']}" if "kid" in header else ""
    return f"a Bearer token came: signed by {header.get('alg', 'nothing')}{kid}"


def _signature(auth: Auth) -> Candidate:
    keys = [*auth.keys, *([f"what {auth.jwks_url} has"] if auth.jwks_url else [])]
    reason = f"not verified offline; the keys would be {', '.join(keys)}"
    return Candidate("signature", taken=False, reason=reason)


_Check = tuple[str, str, DropReason]
"""What is looked at, what stands in the way, and what that is counted under."""


def _algorithm(auth: Auth, header: dict[str, object]) -> Iterator[_Check]:
    algorithm = header.get("alg")
    if auth.algorithms or algorithm in (None, "none"):
        wanted = f"one of {', '.join(auth.algorithms)}" if auth.algorithms else "a signature"
        is_good = algorithm in auth.algorithms
        yield "alg", "" if is_good else f"is {algorithm}, want {wanted}", DropReason.TOKEN_ALGORITHM


def _parties(auth: Auth, claims: dict[str, object]) -> Iterator[_Check]:
    for name in auth.required_claims:
        yield name, "" if claims.get(name) is not None else "is missing", DropReason.TOKEN_CLAIM
    if auth.issuer is not None:
        issuer = claims.get("iss")
        obstacle = "" if issuer == auth.issuer else f"is {json.dumps(issuer)}, want {json.dumps(auth.issuer)}"
        yield "iss", obstacle, DropReason.TOKEN_ISSUER
    if auth.audience:
        named = claims.get("aud")
        audience = named if isinstance(named, list) else [named]
        is_good = any(isinstance(each, str) and each in auth.audience for each in audience)
        obstacle = "" if is_good else f"is {json.dumps(named)}, want one of {', '.join(auth.audience)}"
        yield "aud", obstacle, DropReason.TOKEN_AUDIENCE


def _times(auth: Auth, claims: dict[str, object], now_s: float) -> Iterator[_Check]:
    leeway_s = auth.leeway_s
    for name, reason in (
        ("exp", DropReason.TOKEN_EXPIRED),
        ("nbf", DropReason.TOKEN_TOO_EARLY),
        ("iat", DropReason.TOKEN_TOO_EARLY),
    ):
        if name not in claims:
            continue
        moment = claims[name]
        if isinstance(moment, bool) or not isinstance(moment, int | float):
            yield name, "is no number", DropReason.TOKEN_CLAIM
            continue
        try:
            late_s = now_s - float(moment) if name == "exp" else float(moment) - now_s
        except OverflowError:
            yield name, "is no number that a time can be", DropReason.TOKEN_CLAIM
            continue
        is_good = late_s < leeway_s or (name != "exp" and late_s == leeway_s)
        when = "was" if name == "exp" else "is in"
        ago = f"{late_s:.0f} s{' ago' if name == 'exp' else ''}"
        yield name, "" if is_good else f"{when} {ago}, leeway {leeway_s:g} s", reason
