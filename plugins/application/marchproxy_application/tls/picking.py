"""Which certificate a connection gets, by the name that its client asks for. Pure, but for the contexts it holds.

First those of the services that claim the name, then those of all: of each, one that has the name itself before one
with a wildcard. Where none has it, the first of the services that claim the name, else the listener's first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import attrs

from marchproxy_application.tls.names import claims, normal, wildcard_above
from marchproxy_core.services import Tls, TlsVersion

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Sequence

    from marchproxy_application.tls.certificates import KeyPair

    Making = Callable[[tuple[KeyPair, ...], TlsVersion], ssl.SSLContext]


@attrs.frozen(kw_only=True)
class Tenant:
    """One service's TLS on a listener."""

    service: str
    hosts: tuple[str, ...] = ()
    """As in ``Http.hosts``; none: any."""
    tls: Tls


@final
class _Bundle:
    """Certificates of the same names, each with another type of key; OpenSSL picks one that the client can verify."""

    __slots__ = ("_for_1_3", "_make", "_pairs", "_usual")

    def __init__(self, pairs: tuple[KeyPair, ...], make: Making) -> None:
        self._pairs = pairs
        self._make = make
        self._usual = make(pairs, TlsVersion.TLS_1_2)
        self._for_1_3: ssl.SSLContext | None = None

    def context(self, *, asks_1_3: bool) -> ssl.SSLContext:
        if not asks_1_3:
            return self._usual
        if self._for_1_3 is None:
            self._for_1_3 = self._make(self._pairs, TlsVersion.TLS_1_3)
        return self._for_1_3


@final
class _Offer:
    """A tenant's certificates."""

    __slots__ = ("asks_1_3", "by_name", "first")

    def __init__(self, tenant: Tenant, pairs: Sequence[KeyPair], make: Making) -> None:
        self.asks_1_3 = tenant.tls.min_version is TlsVersion.TLS_1_3
        bundles = [(together, _Bundle(together, make)) for together in _together(pairs)]
        self.first = bundles[0][1] if bundles else None
        self.by_name: dict[str, _Bundle] = {}
        for together, bundle in bundles:
            for name in together[0].names:
                self.by_name.setdefault(name, bundle)


@final
class Picker:
    """Finds contexts by names."""

    def __init__(self, offers: Iterable[tuple[Tenant, Sequence[KeyPair]]], make: Making) -> None:
        """Sort what is offered.

        Args:
            offers: Each tenant with those of its certificates that can be used.
            make: Makes a context of certificates.

        Raises:
            ValueError: There is not one certificate.
        """
        self._all: list[_Offer] = []
        self._claimed: dict[str, list[_Offer]] = {}
        for tenant, pairs in offers:
            offer = _Offer(tenant, pairs, make)
            self._all.append(offer)
            for host in tenant.hosts or ("*",):
                self._claimed.setdefault(host, []).append(offer)
        first = next((offer.first for offer in self._all if offer.first), None)
        if first is None:
            raise ValueError("no certificate")
        self._first = first

    def find(self, server_name: str | None) -> ssl.SSLContext:
        """Return the context for a name, or for a client that asked for none."""
        host = normal(server_name or "")
        claiming = next((found for claim in claims(host) if (found := self._claimed.get(claim))), [])
        bundle = (
            _covering(claiming, host)
            or _covering(self._all, host)
            or next((offer.first for offer in claiming if offer.first), self._first)
        )
        return bundle.context(asks_1_3=any(offer.asks_1_3 for offer in claiming))


def _covering(offers: list[_Offer], host: str) -> _Bundle | None:
    for name in (host, wildcard_above(host)):
        for offer in offers:
            if name is not None and name in offer.by_name:
                return offer.by_name[name]
    return None


def _together(pairs: Sequence[KeyPair]) -> list[tuple[KeyPair, ...]]:
    """Put those together that a client may choose among."""
    bundles: list[list[KeyPair]] = []
    for pair in pairs:
        for bundle in bundles:
            types = {other.key_type for other in bundle}
            if pair.names and bundle[0].names == pair.names and pair.key_type not in types:
                bundle.append(pair)
                break
        else:
            bundles.append([pair])
    return [tuple(bundle) for bundle in bundles]
