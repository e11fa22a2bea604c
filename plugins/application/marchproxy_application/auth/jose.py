"""The JSON and base64url of tokens and keys, and the compact form of a JWS (RFC 7515, section 7.1): read strictly.

What two readers could understand differently is refused: padding, bits behind the last byte, members named twice,
NaN. Nothing here knows keys or clocks.
"""

from __future__ import annotations

import base64
import json
from typing import NoReturn

import attrs

from marchproxy_application.auth.causes import Cause, NotAccepted

MOST_TOKEN_BYTES = 8192
MOST_KID_CHARACTERS = 256
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


class DuplicateMember(ValueError):
    """A JSON object names a member twice; which one counts is anybody's guess."""


@attrs.frozen(kw_only=True)
class Compact:
    """A JWS, taken apart; nobody has looked at its signature yet."""

    algorithm: str
    kid: str | None
    message: bytes
    """What is signed: header and payload as they were sent, with the dot between them."""
    payload: bytes
    signature: bytes


def read_compact(token: bytes) -> Compact:
    """Take a token apart.

    Args:
        token: Without scheme and white space around it.

    Raises:
        NotAccepted: It is malformed, or its header asks for what is never done.
    """
    if len(token) > MOST_TOKEN_BYTES:
        raise NotAccepted(Cause.TOO_LARGE)
    parts = token.split(b".")
    if len(parts) != 3:
        raise NotAccepted(Cause.MALFORMED)
    try:
        header_text, payload, signature = map(decode, parts)
    except ValueError:
        raise NotAccepted(Cause.MALFORMED) from None
    header = _object(header_text, Cause.BAD_HEADER)
    if "crit" in header:
        raise NotAccepted(Cause.CRITICAL_EXTENSION)
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or "b64" in header:  # RFC 7797's b64 is void without crit
        raise NotAccepted(Cause.BAD_HEADER)
    if kid is not None and (not isinstance(kid, str) or len(kid) > MOST_KID_CHARACTERS):
        raise NotAccepted(Cause.BAD_HEADER)
    message = token[: len(parts[0]) + 1 + len(parts[1])]
    return Compact(algorithm=algorithm, kid=kid, message=message, payload=payload, signature=signature)


def read_claims(payload: bytes) -> dict[str, object]:
    """Return a token's claims.

    Raises:
        NotAccepted: They are no JSON object, or one of their objects names a member twice.
    """
    return _object(payload, Cause.BAD_PAYLOAD)


def decode(text: bytes) -> bytes:
    """Return what base64url without padding stands for (RFC 7515, section 2).

    Raises:
        ValueError: It has other characters, an impossible length, or bits behind the last byte.
    """
    if text.translate(None, _ALPHABET):
        raise ValueError("not base64url")
    data = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    if base64.urlsafe_b64encode(data).rstrip(b"=") != text:
        raise ValueError("bits behind the last byte")
    return data


def read_json(data: bytes) -> object:
    """Return the JSON value that UTF-8 text holds.

    Raises:
        DuplicateMember: An object in it names a member twice.
        ValueError: It is not JSON or not UTF-8, has NaN or Infinity, or is nested too deeply.
    """
    try:
        return json.loads(data.decode(), object_pairs_hook=_members, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _object(data: bytes, cause: Cause) -> dict[str, object]:
    try:
        value = read_json(data)
    except DuplicateMember:
        raise NotAccepted(Cause.DUPLICATE_MEMBER) from None
    except ValueError:
        raise NotAccepted(cause) from None
    if not isinstance(value, dict):
        raise NotAccepted(cause)
    return value


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise DuplicateMember("a member is named twice")
    return members


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
