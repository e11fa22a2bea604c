"""Contexts of one listener: those of its certificates, and the one that its connections begin with.

A connection begins with a context that has no certificate, and is given that of its certificate when it names its
server. Session tickets belong to the first one (OpenSSL keeps it as ``session_ctx``), so renewing a certificate
leaves them valid. What a client must prove is settled with the first one too, before any name is known; hence
services that share a listener ask the same.
"""

from __future__ import annotations

import ssl

import attrs

from marchproxy_application.tls.certificates import Authorities, KeyPair
from marchproxy_application.tls.files import load_authorities, load_chain
from marchproxy_core.services import TlsVersion

_CIPHERS_OF_1_2 = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Forward secret and authenticated; those of TLS 1.3 are all so, and cannot be chosen on CPython 3.11."""
_NO_CIPHER_OF_1_2 = "PSK-AES128-GCM-SHA256"
"""It takes a key shared beforehand, which nobody has; an empty list is refused by OpenSSL. A minimum version is of no
use in a context that a connection is given later: the version is settled before the name. A client of TLS 1.2 that
resumes, under this name, the session of another name of the listener is not held off: no name is read then."""


@attrs.frozen(kw_only=True)
class Terms:
    """What all contexts of a listener have in common."""

    alpn: tuple[str, ...] = ()
    """Protocols, the most wanted first; a client that offers none of them goes on without."""
    authorities: Authorities | None = None
    """Of the clients' certificates; None: none is asked for."""
    client_optional: bool = False
    min_version: TlsVersion = TlsVersion.TLS_1_2
    """The lowest that any service takes."""


def first_context(terms: Terms) -> ssl.SSLContext:
    """Make the context that a listener's connections begin with; it needs an ``sni_callback`` that gives another."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = (
        ssl.TLSVersion.TLSv1_3 if terms.min_version is TlsVersion.TLS_1_3 else ssl.TLSVersion.TLSv1_2
    )
    context.set_ciphers(_CIPHERS_OF_1_2)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # All that are left are good, and the client knows whether it has AES in hardware.
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if terms.alpn:
        context.set_alpn_protocols(terms.alpn)
    if terms.authorities is not None:
        trust(context, terms.authorities)
        context.verify_mode = ssl.CERT_OPTIONAL if terms.client_optional else ssl.CERT_REQUIRED
    return context


def context_of(terms: Terms, pairs: tuple[KeyPair, ...], min_version: TlsVersion) -> ssl.SSLContext:
    """Make the context of one certificate, or of several of the same names and each with another type of key.

    Args:
        terms: The listener's. ALPN and authorities are looked up in the context that a connection has in the end.
        pairs: At least one.
        min_version: What the services of the name ask for.
    """
    context = first_context(terms)
    for pair in pairs:
        load_chain(context, pair.chain_pem, pair.key_pem)
    if min_version is TlsVersion.TLS_1_3:
        context.set_ciphers(_NO_CIPHER_OF_1_2)
    return context


def trust(context: ssl.SSLContext, authorities: Authorities) -> None:
    """Have a context believe certificates that these issued.

    One that is no root is believed without its root being there: who names it means it. X509_STRICT stays off,
    since many an authority of one's own makes certificates without key identifiers.
    """
    load_authorities(context, authorities.pem)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if authorities.has_revocations:
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
