"""The keys of a service about TLS, towards clients and towards backends."""

from __future__ import annotations

import enum

import attrs

from marchproxy_core.config.auth_keys import FILE, AuthKeys
from marchproxy_core.config.declare import setting
from marchproxy_core.config.http_kinds import SERVER_NAME
from marchproxy_core.config.kinds import Flag, ListOf, OneOf
from marchproxy_core.services import TlsVersion


class ClientAuth(enum.StrEnum):
    """Whether clients must have a certificate."""

    REQUIRED = "required"
    OPTIONAL = "optional"


@attrs.frozen(kw_only=True)
class TlsKeys(AuthKeys):
    """Keys about TLS of clients."""

    tls_enabled: bool = setting(
        Flag(), False, "Whether clients speak TLS, which ends here unless `tls_passthrough`."
    )
    tls_certificate: tuple[str, ...] = setting(
        ListOf(FILE, "paths of PEM files"),
        (),
        "PEM files: certificate and chain. The one that has the name asked for (SNI) is shown, else the first.",
        unset="none",
    )
    tls_key: tuple[str, ...] = setting(
        ListOf(FILE, "paths of PEM files", once=False),
        (),
        "PEM files: private keys, one for each of `tls_certificate`.",
        unset="in the file of the certificate",
    )
    tls_client_ca: str | None = setting(
        FILE,
        None,
        "PEM file: authorities whose clients may connect.",
        unset="no client certificate asked for",
    )
    tls_client_auth: ClientAuth = setting(
        OneOf(ClientAuth), ClientAuth.REQUIRED, "Whether a client may come without a certificate."
    )
    tls_min_version: TlsVersion = setting(OneOf(TlsVersion), TlsVersion.TLS_1_2, "Lowest version of TLS.")
    tls_passthrough: bool = setting(
        Flag(),
        False,
        "Whether TLS ends at the backend: of what clients send only the name asked for (SNI) is read, for `hosts`.",
    )


@attrs.frozen(kw_only=True)
class BackendTlsKeys(TlsKeys):
    """Keys about TLS to backends."""

    backend_tls: bool = setting(Flag(), False, "Whether backends speak TLS.")
    backend_tls_verify: bool = setting(
        Flag(), True, "Whether a backend's certificate must be valid; `false` believes anybody."
    )
    backend_tls_ca: str | None = setting(
        FILE, None, "PEM file: authorities of backends' certificates.", unset="those that the system trusts"
    )
    backend_tls_name: str | None = setting(
        SERVER_NAME, None, "Name that backends are asked for (SNI) and must have.", unset="the request's host"
    )
    backend_tls_certificate: str | None = setting(
        FILE, None, "PEM file: certificate and chain that backends are shown.", unset="none"
    )
    backend_tls_key: str | None = setting(
        FILE, None, "PEM file: its private key.", unset="in the file of the certificate"
    )
