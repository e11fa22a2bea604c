"""Why a request is not let in: for the log and a metric. The client is told none of it, so that he learns nothing."""

from __future__ import annotations

import enum


class Cause(enum.Enum):
    """One cause each; its name in small letters is what metrics, logs and documents say, its value what people read."""

    NO_TOKEN = "no Authorization field"
    NOT_BEARER = "the Authorization field has another scheme than Bearer"
    SEVERAL_FIELDS = "more than one Authorization field"
    TOO_LARGE = "the token is too large"
    MALFORMED = "the token is not three base64url parts without padding"
    BAD_HEADER = "the token's header is no JSON object, or a member of it is not what it must be"
    DUPLICATE_MEMBER = "a JSON object of the token names a member twice"
    CRITICAL_EXTENSION = "the token's header has crit, an extension that must be understood"
    UNKNOWN_ALGORITHM = "the token's alg is none, or one that is not supported"
    ALGORITHM_NOT_ALLOWED = "the token's alg is not among auth_algorithms"
    UNKNOWN_KEY = "there is no key with the token's kid"
    WRONG_KEY_TYPE = "no key with the token's kid may be used with its alg"
    TOO_MANY_KEYS = "the token has no kid, and too many keys could have signed it"
    BAD_SIGNATURE = "the signature is not that of the key"
    BAD_PAYLOAD = "the token's claims are no JSON object"
    BAD_CLAIM = "a claim has another type than RFC 7519 gives it"
    MISSING_CLAIM = "a claim that is required is missing"
    EXPIRED = "exp is over"
    NOT_YET_VALID = "nbf is still to come"
    ISSUED_IN_FUTURE = "iat is still to come"
    WRONG_ISSUER = "iss is not auth_issuer"
    WRONG_AUDIENCE = "aud has none of auth_audience"


class NotAccepted(Exception):
    """A token is not accepted."""

    def __init__(self, cause: Cause, *, kid: str | None = None) -> None:
        """Keep the cause and, where the key is what is missing, the token's ``kid``."""
        super().__init__(cause.value)
        self.cause = cause
        self.kid = kid
