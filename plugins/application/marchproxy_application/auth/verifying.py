"""Whether a request's token lets it in (RFC 6750, RFC 7519, RFC 8725). Pure: keys and the time are given.

A token of RS256 costs some 40 µs and one of ES256 80, so what was verified is remembered by the whole field's bytes,
until it expires or the keys change: that costs 0.3. The worker asks :meth:`Verifier.check` for each request, drops
what :meth:`Verifier.forged` names, and writes ``Accepted.forwarded`` into the head that the backend gets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, final

import attrs

from marchproxy_application.auth.causes import Cause, NotAccepted
from marchproxy_application.auth.claims import Demands
from marchproxy_application.auth.forwarding import Forwarding
from marchproxy_application.auth.jose import Compact, read_claims, read_compact
from marchproxy_application.auth.keys import SUPPORTED, Key, KeySet
from marchproxy_application.auth.memory import Remembered

if TYPE_CHECKING:
    from marchproxy_core.services import Auth

MOST_TRIED = 8
"""Keys that one token is tried with."""
MEMORY_BYTES = 16 << 20
HOLD_S = 2.0
"""For how long, at most, a worker should hold a request whose ``Rejected.may_change``."""
_UNASKED = frozenset((Cause.NO_TOKEN, Cause.NOT_BEARER))
"""The client did not try: RFC 6750, section 3.1, wants no error then."""


@attrs.frozen(kw_only=True)
class Accepted:
    """The request may pass."""

    claims: Mapping[str, object]
    """All of the token's; not to be changed, since the next request with the token gets the same."""
    subject: str | None
    forwarded: tuple[bytes, ...]
    """Header lines for the backend, each with its CR LF."""
    valid_from_s: float
    valid_until_s: float
    """When it expires, leeway included, in seconds since 1970; infinity: never."""


@attrs.frozen(kw_only=True)
class Rejected:
    """The request gets 401 (Unauthorized)."""

    cause: Cause
    """For the log and a metric."""
    challenge: bytes
    """The value of WWW-Authenticate: the same for all causes but those where the client did not try."""
    may_change: bool = False
    """Whether a fetch of keys may bring the one that is missing: ask ``JwksSource.want(kid)``."""
    kid: str | None = None
    """With ``may_change``: the key that is missing, if the token names one."""


@final
class Verifier:
    """Checks tokens of one service; for one thread."""

    def __init__(
        self, auth: Auth, keys: KeySet, *, realm: str = "marchproxy", memory_bytes: int = MEMORY_BYTES
    ) -> None:
        """Prepare everything that does not depend on a token.

        Args:
            auth: What the service asks for.
            keys: Those of its files and, once there, of its JWKS URL.
            realm: What a client is told that the token is for; visible ASCII and spaces, all else becomes ``?``.
            memory_bytes: About how much memory verified tokens may take; 0 verifies each time.

        Raises:
            ValueError: ``auth.forward_claims`` has a name that no header can have.
        """
        self._demands = Demands.of(auth)
        self._algorithms = frozenset(auth.algorithms) & SUPPORTED if auth.algorithms else SUPPORTED
        self._forwarding = Forwarding(auth.forward_claims)
        self._fetches = auth.jwks_url is not None
        self._keys = keys
        self._memory: Remembered[Accepted] = Remembered(memory_bytes)
        self._rejected = {cause: _rejection(cause, realm) for cause in Cause}
        self._no_token = self._rejected[Cause.NO_TOKEN]

    @property
    def keys(self) -> KeySet:
        """The keys that tokens are checked with."""
        return self._keys

    @keys.setter
    def keys(self, keys: KeySet) -> None:
        """Use other keys from now on; with others than before, nothing that was verified counts any more."""
        if keys != self._keys:
            self._memory.clear()
        self._keys = keys

    @property
    def owned_headers(self) -> frozenset[bytes]:
        """Names of the headers that bring claims, in small letters; :meth:`forged` finds look-alikes as well."""
        return self._forwarding.headers

    def forged(self, names: Iterable[bytes]) -> frozenset[bytes]:
        """Return which of a request's own fields must be dropped, since a backend could take them for claims.

        Args:
            names: In small letters. ``X_User`` counts as ``X-User``: CGI and WSGI call both the same.
        """
        return self._forwarding.taken_for(names)

    def check(self, authorization: bytes | None, now_s: float) -> Accepted | Rejected:
        """Say whether a request may pass.

        Args:
            authorization: The value of its only Authorization field, without white space around it; None: it has none.
            now_s: Seconds since 1970.
        """
        if authorization is None:
            return self._no_token
        known = self._memory.get(authorization)
        if known is not None and known.valid_from_s <= now_s < known.valid_until_s:
            return known
        try:
            accepted = self._verified(authorization, now_s)
        except NotAccepted as refused:
            return self._reject(refused)
        self._memory.put(authorization, accepted)
        return accepted

    def check_all(self, fields: Sequence[bytes], now_s: float) -> Accepted | Rejected:
        """As :meth:`check`, with the values of all Authorization fields: more than one are refused."""
        if len(fields) > 1:
            return self._rejected[Cause.SEVERAL_FIELDS]
        return self.check(fields[0] if fields else None, now_s)

    def _verified(self, authorization: bytes, now_s: float) -> Accepted:
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            raise NotAccepted(Cause.NOT_BEARER)
        compact = read_compact(token.lstrip(b" "))
        if compact.algorithm not in SUPPORTED:
            raise NotAccepted(Cause.UNKNOWN_ALGORITHM)
        if compact.algorithm not in self._algorithms:
            raise NotAccepted(Cause.ALGORITHM_NOT_ALLOWED)
        self._check_signature(compact)
        claims = read_claims(compact.payload)
        span = self._demands.check(claims, now_s)
        subject = claims.get("sub")
        return Accepted(
            claims=claims,
            subject=subject if isinstance(subject, str) else None,
            forwarded=self._forwarding.lines(claims),
            valid_from_s=span.from_s,
            valid_until_s=span.until_s,
        )

    def _check_signature(self, compact: Compact) -> None:
        candidates = self._keys.candidates(compact.algorithm, compact.kid)
        is_named = compact.kid is not None and self._keys.named(compact.kid)
        if not candidates:
            is_known = is_named or (compact.kid is None and self._keys.keys)
            raise NotAccepted(Cause.WRONG_KEY_TYPE if is_known else Cause.UNKNOWN_KEY, kid=compact.kid)
        if len(candidates) > MOST_TRIED:
            raise NotAccepted(Cause.TOO_MANY_KEYS)
        if not _signed_by_any(candidates, compact):
            # A key without a name was tried; the one that the token names may be still to come.
            is_missing = compact.kid is not None and not is_named and self._fetches
            raise NotAccepted(Cause.UNKNOWN_KEY if is_missing else Cause.BAD_SIGNATURE, kid=compact.kid)

    def _reject(self, refused: NotAccepted) -> Rejected:
        rejected = self._rejected[refused.cause]
        if refused.cause is Cause.UNKNOWN_KEY and self._fetches:
            return attrs.evolve(rejected, may_change=True, kid=refused.kid)
        return rejected


def _signed_by_any(keys: list[Key], compact: Compact) -> bool:
    return any(key.verifies(compact.algorithm, compact.message, compact.signature) for key in keys)


def _rejection(cause: Cause, realm: str) -> Rejected:
    shown = "".join(each if " " <= each <= "~" else "?" for each in realm)
    quoted = shown.replace("\\", "\\\\").replace('"', '\\"').encode("ascii")
    error = b"" if cause in _UNASKED else b', error="invalid_token"'
    return Rejected(cause=cause, challenge=b'Bearer realm="%b"%b' % (quoted, error))
