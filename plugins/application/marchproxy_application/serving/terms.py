"""What clients of one listener have to begin with, and the certificates that they are shown."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, final

import structlog

from marchproxy_application.serving.passing import PassedThrough
from marchproxy_application.tls.picking import Tenant
from marchproxy_application.tls.store import CertificateStore

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

    from marchproxy_application.serving.service import HttpService
    from marchproxy_core.services import Endpoint

log = structlog.get_logger()

ALPN: Final = ("h2", "http/1.1")


@final
class Admitter:
    """The terms of one listener; its services agree about them."""

    def __init__(self, endpoint: Endpoint, *, speaks: bool) -> None:
        """Ask for nothing yet.

        Args:
            endpoint: The listener's address.
            speaks: Whether this worker is the one that tells about certificates.
        """
        self._endpoint = endpoint
        self._speaks = speaks
        self._tenants: tuple[Tenant, ...] = ()
        self._store: CertificateStore | None = None
        self._has_complained = False
        self.has_header = False
        """Whether clients begin with a PROXY header."""
        self.has_passed = False
        """Whether some clients' TLS is passed through, so that the name that they ask for is looked at."""
        self.asked: tuple[str | None, bool] | None = None
        """Authorities of clients' certificates, and whether one may come without; None: no TLS ends here."""

    @property
    def is_needed(self) -> bool:
        """Whether there is anything before the first request."""
        return self.has_header or self.has_passed or self._store is not None

    @property
    def has_tls(self) -> bool:
        """Whether TLS ends here."""
        return self._store is not None

    @property
    def context(self) -> ssl.SSLContext | None:
        """What handshakes begin with; None while there is no certificate."""
        return self._store.context if self._store is not None else None

    def follow(self, services: Iterable[HttpService | PassedThrough]) -> None:
        """Take over what the listener's services ask for; blocks for files of certificates that are new."""
        self.has_header = self.has_passed = False
        tenants = []
        for service in services:
            wanted = service.carried.work.service
            self.has_header |= wanted.proxy_protocol.accept
            if isinstance(service, PassedThrough):
                self.has_passed = True
            elif wanted.tls is not None:
                tenants.append(Tenant(service=service.name, hosts=wanted.hosts, tls=wanted.tls))
        if tuple(tenants) != self._tenants:
            self._tenants = tuple(tenants)
            self._store = CertificateStore(tenants, alpn=ALPN, speaks=self._speaks) if tenants else None
            self._has_complained = False
            first = tenants[0].tls if tenants else None
            self.asked = (first.client_ca, first.client_optional) if first is not None else None
            self.look()

    def look(self) -> None:
        """Load certificates whose files have changed; call it once a second."""
        if self._store is None:
            return
        self._store.look(time.time())
        if self._store.context is not None:
            self._has_complained = False
        elif not self._has_complained and self._speaks:
            self._has_complained = True
            problem = next(iter(self._store.problems), None)
            log.error(
                "certificate.lacked",
                listen=str(self._endpoint),
                services=[tenant.service for tenant in self._tenants],
                reason=f"{problem.where} {problem.what}" if problem is not None else "no certificate",
                fix=problem.fix if problem is not None else "name a certificate",
            )
