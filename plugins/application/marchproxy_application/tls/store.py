"""The certificates of one listener, loaded anew when their files change; a worker has one store per listener.

New connections get new certificates; established ones keep the context that they have, which lives as long as they do.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, final

import structlog

from marchproxy_application.tls.certificates import Authorities, KeyPair, authorities_from, key_pair_from
from marchproxy_application.tls.contexts import Terms, context_of, first_context
from marchproxy_application.tls.picking import Picker, Tenant
from marchproxy_application.tls.watching import Watched
from marchproxy_application.unusable import Unusable

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable

    from marchproxy_application.tls.picking import Making
    from marchproxy_core.services import Certificate, TlsVersion

log = structlog.get_logger()

DAY_S = 86_400.0
WARN_DAYS = 21.0
"""Before its end, or a third of its life if that is shorter: renewal is overdue then."""


@final
class CertificateStore:
    """Gives the context for a listener's new connections."""

    def __init__(self, tenants: Iterable[Tenant], *, alpn: tuple[str, ...] = (), speaks: bool = True) -> None:
        """Remember what to load; nothing is, before :meth:`look`.

        Args:
            tenants: Services on this listener; of their certificates the first is the listener's own.
            alpn: Protocols, the most wanted first, as ``("h2", "http/1.1")``.
            speaks: Whether it logs. All workers see the same files; one that does is enough.
        """
        self._tenants = tuple(tenant for tenant in tenants if not tenant.tls.passthrough)
        self._alpn = alpn
        self._speaks = speaks
        self._pairs = {
            files: _watched_pair(files) for tenant in self._tenants for files in tenant.tls.certificates
        }
        self._disagreement = _disagreement(self._tenants)
        asked = next((tenant.tls for tenant in self._tenants), None)
        ca = asked.client_ca if asked else None
        self._client_optional = bool(asked and asked.client_optional)
        self._authorities = None if ca is None else Watched((ca,), lambda: authorities_from(ca))
        self._warn_after_s: dict[str, float] = {}
        self._terms: Terms | None = None
        self._made: dict[tuple[tuple[KeyPair, ...], TlsVersion], ssl.SSLContext] = {}
        self.context: ssl.SSLContext | None = None
        """What to wrap new connections' sockets with; None: they have to be refused, ``problems`` says why."""

    @property
    def certificates(self) -> tuple[KeyPair, ...]:
        """Those in use."""
        return tuple(watched.value for watched in self._pairs.values() if watched.value is not None)

    @property
    def problems(self) -> tuple[Unusable, ...]:
        """All that is wrong with the files as they are now."""
        authorities = self._authorities
        found = [self._disagreement, authorities.complaint if authorities else None]
        found += [watched.complaint for watched in self._pairs.values()]
        return tuple(problem for problem in found if problem is not None)

    def look(self, now_s: float) -> bool:
        """Load what changed; call it about once a second. Costs one stat(2) per file, and blocks for what is loaded.

        Args:
            now_s: Unix time in seconds.

        Returns:
            Whether new connections get something else than before.
        """
        has_new = self._look_at_authorities(now_s)
        for files, watched in self._pairs.items():
            is_new, complaint = watched.look(now_s)
            has_new |= is_new
            if watched.value is not None and self._speaks:
                if is_new:
                    _say_loaded(watched.value)
                self._warn(watched.value, now_s)
            if complaint is not None:
                self._complain(files.certificate, complaint, kept=watched.value is not None)
        if has_new:
            self._make_anew()
        return has_new

    def _look_at_authorities(self, now_s: float) -> bool:
        if self._authorities is None:
            return False
        is_new, complaint = self._authorities.look(now_s)
        if complaint is not None:
            self._complain(complaint.where, complaint, kept=self._authorities.value is not None)
        return is_new

    def _make_anew(self) -> None:
        authorities = self._authorities.value if self._authorities else None
        if self._disagreement or (self._authorities and authorities is None):
            return  # nobody could be asked for what he has to prove
        offers = [(tenant, self._usable_of(tenant)) for tenant in self._tenants]
        if not any(pairs for _, pairs in offers):
            return
        terms = self._terms_with(authorities)
        if self.context is None or terms != self._terms:
            self._made = {}
            first = first_context(terms)
        else:
            first = self.context
        first.sni_callback = _giving(Picker(offers, self._maker(terms)))  # called without a name, too
        self._terms, self.context = terms, first

    def _maker(self, terms: Terms) -> Making:
        """Return what makes contexts, or takes those that are there and still right."""
        made: dict[tuple[tuple[KeyPair, ...], TlsVersion], ssl.SSLContext] = {}
        before, self._made = self._made, made

        def make(pairs: tuple[KeyPair, ...], version: TlsVersion) -> ssl.SSLContext:
            context = made.get((pairs, version)) or before.get((pairs, version))
            if context is None:
                context = context_of(terms, pairs, version)
            made[pairs, version] = context
            return context

        return make

    def _usable_of(self, tenant: Tenant) -> list[KeyPair]:
        found = (self._pairs[files].value for files in tenant.tls.certificates)
        return [pair for pair in found if pair is not None]

    def _terms_with(self, authorities: Authorities | None) -> Terms:
        return Terms(
            alpn=self._alpn,
            authorities=authorities,
            client_optional=self._client_optional,
            min_version=min(tenant.tls.min_version for tenant in self._tenants),
        )

    def _complain(self, path: str, complaint: Unusable, *, kept: bool) -> None:
        if self._speaks:
            log.warning(
                "certificate.refused", certificate=path, reason=f"{complaint.where} {complaint.what}",
                fix=complaint.fix, kept=kept,
            )  # fmt: skip

    def _warn(self, pair: KeyPair, now_s: float) -> None:
        """Say once a day that a certificate should have been renewed."""
        left_s = pair.not_after_s - now_s
        is_near = 0 <= left_s < min(WARN_DAYS * DAY_S, (pair.not_after_s - pair.not_before_s) / 3)
        if is_near and now_s >= self._warn_after_s.get(pair.fingerprint, 0.0):
            self._warn_after_s[pair.fingerprint] = now_s + DAY_S
            log.warning(
                "certificate.expiry_neared",
                certificate=pair.files.certificate,
                names=sorted(pair.names),
                not_after=_date(pair.not_after_s),
                left_days=round(left_s / DAY_S, 1),
            )


def _giving(picker: Picker) -> Callable[[ssl.SSLObject, str, ssl.SSLContext], None]:
    def give(connection: ssl.SSLObject, name: str | None, first: ssl.SSLContext) -> None:
        del first
        connection.context = picker.find(name)

    return give


def _watched_pair(files: Certificate) -> Watched[KeyPair]:
    paths = (files.certificate,) if files.key is None else (files.certificate, files.key)
    return Watched(paths, lambda: key_pair_from(files), KeyPair.out_of_date)


def _disagreement(tenants: tuple[Tenant, ...]) -> Unusable | None:
    """Say what is wrong when services ask their clients for different proofs: they are asked before they name one."""
    asked: dict[tuple[str | None, bool], str] = {}
    for tenant in tenants:
        asked.setdefault((tenant.tls.client_ca, tenant.tls.client_optional), tenant.service)
    if len(asked) < 2:
        return None
    names = " and ".join(sorted(asked.values()))
    return Unusable(
        f"services {names}",
        "share a listener and ask clients for different certificates",
        "give them the same client CA and the same tls_client_auth, or another port",
    )


def _say_loaded(pair: KeyPair) -> None:
    log.info(
        "certificate.loaded",
        certificate=pair.files.certificate,
        names=sorted(pair.names),
        not_after=_date(pair.not_after_s),
        fingerprint=pair.fingerprint,
    )


def _date(unix_s: float) -> str:
    return datetime.datetime.fromtimestamp(unix_s, datetime.UTC).isoformat(timespec="seconds")
