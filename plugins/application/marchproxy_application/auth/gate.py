"""Who may ask a service: its verifier with the keys of files and of a URL, and requests that wait for a key."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, final

import structlog

from marchproxy_application.auth.causes import Cause
from marchproxy_application.auth.jwks import JwksSource
from marchproxy_application.auth.key_files import read_key_files
from marchproxy_application.auth.keys import KeySet
from marchproxy_application.auth.verifying import HOLD_S, Accepted, Rejected, Verifier
from marchproxy_core.drops import DropReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from marchproxy_application.http1.fields import HasFields
    from marchproxy_application.serving.exchange import Exchange
    from marchproxy_core.services import Auth

log = structlog.get_logger()

_MOST_HELD: Final = 1024

REASONS: Final = {
    Cause.NO_TOKEN: DropReason.TOKEN_MISSING,
    Cause.NOT_BEARER: DropReason.TOKEN_MISSING,
    Cause.SEVERAL_FIELDS: DropReason.TOKEN_MALFORMED,
    Cause.TOO_LARGE: DropReason.TOKEN_MALFORMED,
    Cause.MALFORMED: DropReason.TOKEN_MALFORMED,
    Cause.BAD_HEADER: DropReason.TOKEN_MALFORMED,
    Cause.DUPLICATE_MEMBER: DropReason.TOKEN_MALFORMED,
    Cause.CRITICAL_EXTENSION: DropReason.TOKEN_MALFORMED,
    Cause.BAD_PAYLOAD: DropReason.TOKEN_MALFORMED,
    Cause.UNKNOWN_ALGORITHM: DropReason.TOKEN_ALGORITHM,
    Cause.ALGORITHM_NOT_ALLOWED: DropReason.TOKEN_ALGORITHM,
    Cause.WRONG_KEY_TYPE: DropReason.TOKEN_ALGORITHM,
    Cause.UNKNOWN_KEY: DropReason.TOKEN_KEY_UNKNOWN,
    Cause.TOO_MANY_KEYS: DropReason.TOKEN_KEY_UNKNOWN,
    Cause.BAD_SIGNATURE: DropReason.TOKEN_SIGNATURE,
    Cause.BAD_CLAIM: DropReason.TOKEN_CLAIM,
    Cause.MISSING_CLAIM: DropReason.TOKEN_CLAIM,
    Cause.EXPIRED: DropReason.TOKEN_EXPIRED,
    Cause.NOT_YET_VALID: DropReason.TOKEN_TOO_EARLY,
    Cause.ISSUED_IN_FUTURE: DropReason.TOKEN_TOO_EARLY,
    Cause.WRONG_ISSUER: DropReason.TOKEN_ISSUER,
    Cause.WRONG_AUDIENCE: DropReason.TOKEN_AUDIENCE,
}
"""What each cause is counted under; the log has the cause itself, the response neither."""


@final
class Gate:
    """Lets requests in whose token is good."""

    def __init__(self, auth: Auth, service: str, wake: Callable[[], None]) -> None:
        """Read the keys' files, and begin to fetch the others; :meth:`close` ends that.

        Args:
            auth: What the service asks for.
            service: Its name, for the log.
            wake: Called from another thread when :meth:`woken` is to be called.
        """
        self.auth = auth
        self._service = service
        self._files = KeySet()
        self._read_files()
        self._source = JwksSource(auth.jwks_url, auth.jwks_refresh_s, wake) if auth.jwks_url else None
        self._verifier = Verifier(auth, self._files, realm=service)
        self._held: dict[Exchange, float] = {}

    def forged(self, head: HasFields) -> frozenset[bytes]:
        """Return the names of a request's fields that a backend could take for what a token says."""
        return self._verifier.forged(field.name for field in head.fields)

    def lets_in(self, exchange: Exchange, *, again: bool = False) -> bool:
        """Say whether a request may pass; if not, it is answered, or held and goes on later by itself.

        Args:
            exchange: The request.
            again: Whether it was held already.
        """
        fields = exchange.prepared.head.all(b"authorization")
        verdict = self._verifier.check_all(fields, time.time())
        if isinstance(verdict, Accepted):
            exchange.claims = verdict.claims
            exchange.subject = verdict.subject or ""
            if verdict.forwarded:
                exchange.more += b"".join(verdict.forwarded)
            return True
        if not again and self._is_worth_waiting(verdict):
            self._held[exchange] = time.monotonic() + HOLD_S
            return False
        exchange.detail = verdict.cause.name.lower()
        challenge = b"WWW-Authenticate: %b\r\n" % verdict.challenge
        exchange.refuse(REASONS[verdict.cause], status=401, more=challenge)
        return False

    def woken(self) -> None:
        """Take a key set that was fetched, and look at those who wait for it."""
        if self._source is not None and self._source.current is not None:
            self._verifier.keys = self._files | self._source.current
        self._look_again(tuple(self._held))

    def look(self) -> None:
        """Answer those who have waited long enough."""
        if self._held:
            now_s = time.monotonic()
            self._look_again([exchange for exchange, until_s in self._held.items() if now_s >= until_s])

    def close(self) -> None:
        """Fetch no more."""
        if self._source is not None:
            self._source.close()

    def _is_worth_waiting(self, verdict: Rejected) -> bool:
        source = self._source
        return (
            verdict.may_change
            and source is not None
            and len(self._held) < _MOST_HELD
            and source.want(verdict.kid)
        )

    def _look_again(self, exchanges: list[Exchange] | tuple[Exchange, ...]) -> None:
        for exchange in exchanges:
            self._held.pop(exchange, None)
            if not exchange.is_over and self.lets_in(exchange, again=True):
                exchange.go_on()

    def _read_files(self) -> None:
        read = read_key_files(self.auth.keys)
        for problem in read.problems:
            log.error(
                "key.refused",
                service=self._service,
                where=problem.where,
                what=problem.what,
                fix=problem.fix,
            )
        self._files = read.keys
