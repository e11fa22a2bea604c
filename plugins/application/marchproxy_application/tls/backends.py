"""Contexts for TLS to backends: one per distinct configuration, made anew when its files change."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, final

import attrs
import structlog

from marchproxy_application.tls.certificates import Authorities, KeyPair, authorities_from, key_pair_from
from marchproxy_application.tls.contexts import trust
from marchproxy_application.tls.files import load_chain
from marchproxy_application.tls.watching import Watched
from marchproxy_application.unusable import Unusable
from marchproxy_core.services import Certificate, HttpVersion

if TYPE_CHECKING:
    from marchproxy_core.services import BackendTls

log = structlog.get_logger()

_ALPN = {HttpVersion.HTTP1: "http/1.1", HttpVersion.HTTP2: "h2"}


@attrs.frozen(kw_only=True)
class _Proofs:
    """What the files of one configuration have."""

    authorities: Authorities | None = None
    pair: KeyPair | None = None

    def out_of_date(self, now_s: float) -> Unusable | None:
        return self.pair.out_of_date(now_s) if self.pair is not None else None


@final
class BackendContexts:
    """Contexts for connections to backends, of one worker.

    A context is the same object until its files change: sessions and pooled connections can be told apart by it.
    """

    def __init__(self, *, speaks: bool = True) -> None:
        """Begin without any; ``speaks`` as for :class:`CertificateStore`."""
        self._speaks = speaks
        self._watched: dict[tuple[BackendTls, HttpVersion], Watched[_Proofs]] = {}
        self._made: dict[tuple[BackendTls, HttpVersion], ssl.SSLContext] = {}

    def get(self, tls: BackendTls, version: HttpVersion, now_s: float) -> ssl.SSLContext | Unusable:
        """Return the context of a configuration; the first time, its files are read.

        Wrap with ``server_hostname`` (``tls.name``, else the request's host without its port: it is what is asked
        for and checked), and with ``suppress_ragged_eofs=False``, or an answer that was cut off looks whole.

        Args:
            tls: The configuration.
            version: What is offered by ALPN. A backend may pick none; who needs HTTP/2 has to look.
            now_s: Unix time in seconds.
        """
        key = (tls, version)
        if key not in self._watched:
            paths = tuple(path for path in (tls.ca, tls.certificate, tls.key) if path is not None)
            self._watched[key] = Watched(paths, lambda: _read(tls), _Proofs.out_of_date)
            self._look_at(key, now_s)
        made = self._made.get(key)
        if made is not None:
            return made
        complaint = self._watched[key].complaint
        if complaint is None:
            raise RuntimeError("files that have nothing wrong gave no context")
        return complaint

    def look(self, now_s: float) -> bool:
        """Make contexts anew whose files changed; returns whether any did. Call it about once a second."""
        return sum(self._look_at(key, now_s) for key in self._watched) > 0

    def keep(self, wanted: set[tuple[BackendTls, HttpVersion]]) -> None:
        """Forget configurations that no service has any more."""
        for key in self._watched.keys() - wanted:
            del self._watched[key]
            self._made.pop(key, None)

    def _look_at(self, key: tuple[BackendTls, HttpVersion], now_s: float) -> bool:
        watched = self._watched[key]
        has_new, complaint = watched.look(now_s)
        if has_new and watched.value is not None:
            self._made[key] = _context(*key, watched.value)
        if complaint is not None and self._speaks:
            log.warning(
                "certificate.refused",
                certificate=complaint.where,
                reason=complaint.what,
                fix=complaint.fix,
                kept=watched.value is not None,
            )
        return has_new


def _read(tls: BackendTls) -> _Proofs | Unusable:
    authorities = authorities_from(tls.ca) if tls.ca is not None else None
    if isinstance(authorities, Unusable):
        return authorities
    if tls.certificate is None:
        return _Proofs(authorities=authorities)
    pair = key_pair_from(Certificate(certificate=tls.certificate, key=tls.key))
    return pair if isinstance(pair, Unusable) else _Proofs(authorities=authorities, pair=pair)


def _context(tls: BackendTls, version: HttpVersion, proofs: _Proofs) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols((_ALPN[version],))
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif proofs.authorities is not None:
        trust(context, proofs.authorities)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if proofs.pair is not None:
        load_chain(context, proofs.pair.chain_pem, proofs.pair.key_pem)
    return context
