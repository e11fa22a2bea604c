"""From the keys of one service to a :class:`Service`, with the checks that need no other service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marchproxy_core.config.choices import TIER_NAMES
from marchproxy_core.config.document import Entries, Items, Node
from marchproxy_core.config.problems import Problems, nearest, quote
from marchproxy_core.config.reading import Keys, read_keys, shape
from marchproxy_core.config.service_keys import ServiceKeys
from marchproxy_core.services import (
    ANY_IPV4,
    ANY_IPV6,
    Auth,
    AuthType,
    Backend,
    Cache,
    Certificate,
    Endpoint,
    HealthCheck,
    HealthCheckKind,
    Http,
    Protocol,
    ProxyHeader,
    ProxyProtocol,
    Service,
    Tls,
)

if TYPE_CHECKING:
    from collections.abc import Collection

_NEEDS = {
    "auth_issuer": "auth_type: jwt",
    "auth_audience": "auth_type: jwt",
    "auth_keys": "auth_type: jwt",
    "auth_jwks_url": "auth_type: jwt",
    "tls_certificate": "tls_enabled: true",
    "tls_key": "tls_enabled: true",
    "tls_client_ca": "tls_enabled: true",
    "cache_ttl": "cache_enabled: true",
    "cache_vary": "cache_enabled: true",
}


def read_services(
    node: Node | None, path: str, problems: Problems, notes: list[str], known_tiers: Collection[str]
) -> tuple[Service, ...]:
    """Every service of a list; those with problems are left out, after the problems are noted."""
    if node is None:
        return ()
    if not isinstance(node, Items):
        problems.add(node.line, path, shape(node), "a list of services")
        return ()
    services: list[Service] = []
    for index, item in enumerate(node.items):
        here = f"{path}[{index}]"
        if not isinstance(item, Entries):
            problems.add(item.line, here, shape(item), "a mapping that describes a service")
            continue
        before = len(problems.found)
        keys = read_keys(ServiceKeys, item, here, problems, also={"service": "name"})
        builder = _Builder(keys, problems, notes)
        service = builder.build(known_tiers)
        if service is not None and len(problems.found) == before:
            services.append(service)
    return tuple(services)


class _Builder:
    """Puts one service together; what is wrong goes to ``problems``."""

    def __init__(self, keys: Keys[ServiceKeys], problems: Problems, notes: list[str]) -> None:
        self._keys = keys
        self._value = keys.value
        self._problems = problems
        self._before = len(problems.found)
        self._notes = notes

    def build(self, known_tiers: Collection[str]) -> Service | None:
        value = self._value
        if value.name is None and "name" not in self._keys.broken:
            self._problem("name", "nothing", "a name", "name")
        backends = self._backends()
        listen = self._listen()
        self._check_loop(listen, backends)
        self._check_protocol()
        health_check = self._health_check()
        self._check_tier(known_tiers)
        self._check_door()
        if value.name is None or not backends or not listen or len(self._problems.found) > self._before:
            return None
        self._note_unused(value.name)
        if all(backend.weight == 0 for backend in backends):
            what = "has weight 0" + (" or is flushed" if any(one.flush for one in backends) else "")
            self._note(value.name, f"every backend {what}, so it takes no new connections")
        return Service(
            name=value.name,
            protocol=value.protocol,
            listen=listen,
            backends=backends,
            balance=value.balance,
            health_check=health_check,
            auth=self._auth(value.name),
            tls=self._tls(value.name),
            websocket=value.websocket,
            cache=Cache(ttl_s=value.cache_ttl, vary=value.cache_vary) if value.cache_enabled else None,
            http=Http() if self._needs_http() else None,
            proxy_protocol=self._proxy_protocol(),
            max_connections=value.max_connections,
            connection_rate=value.connection_rate,
            block=value.block,
            allow=value.allow,
            tier=value.tier,
            origin=self._problems.where(self._keys.line),
        )

    def _problem(self, key: str, got: str, want: str, *lines: str) -> None:
        self._problems.add(self._keys.line_of(*(lines or (key,))), f"{self._keys.path}.{key}", got, want)

    def _note(self, name: str, text: str) -> None:
        self._notes.append(f"{self._problems.where(self._keys.line)}: service {name}: {text}")

    def _given(self, key: str) -> bool:
        return key in self._keys.nodes

    def _backends(self) -> tuple[Backend, ...]:
        value = self._value
        if not self._given("backends"):
            if value.ip is None or value.port is None:
                for key in ("ip", "port"):
                    if not self._given(key):
                        self._problem(key, "nothing", "ip and port of the service, or backends")
                return ()
            return (Backend(endpoint=Endpoint(value.ip, value.port)),)
        found: list[Backend] = []
        for keys in self._keys.backends:
            one = keys.value
            port = one.port or value.port
            if one.ip is None and "ip" not in keys.broken:
                self._problems.add(keys.line, f"{keys.path}.ip", "nothing", "the backend's address")
            if port is None and "port" not in keys.broken | self._keys.broken:
                self._problems.add(
                    keys.line, f"{keys.path}.port", "nothing", "a port, here or of the service"
                )
            if one.ip is None or port is None:
                continue
            endpoint = Endpoint(one.ip, port)
            if any(endpoint == backend.endpoint for backend in found):
                self._problems.add(keys.line, keys.path, f"{endpoint} again", "each backend once")
            weight = 0 if one.flush else one.weight
            found.append(Backend(endpoint=endpoint, weight=weight, flush=one.flush))
        return tuple(found)

    def _listen(self) -> tuple[Endpoint, ...]:
        value = self._value
        if self._given("listen"):
            if not value.listen and "listen" not in self._keys.broken:
                self._problem("listen", "no address", "at least one")
            return tuple(dict.fromkeys(endpoint for entry in value.listen for endpoint in entry))
        if value.port is not None:
            return Endpoint(ANY_IPV4, value.port), Endpoint(ANY_IPV6, value.port)
        if self._given("backends") and not self._given("port"):
            self._problem("listen", "nothing", "listen, or the port of the service")
        return ()

    def _check_loop(self, listen: tuple[Endpoint, ...], backends: tuple[Backend, ...]) -> None:
        """A backend that is the service itself: every connection would make the next one."""
        own = set(listen)
        for backend in backends:
            at = backend.endpoint
            everywhere = Endpoint(ANY_IPV4 if at.ip.version == 4 else ANY_IPV6, at.port)
            if at in own or (at.ip.is_loopback and everywhere in own):
                want = "a listen address other than the backend's own"
                self._problem(
                    "listen", f"{at} as listen address and backend", want, "listen", "backends", "port"
                )

    def _check_protocol(self) -> None:
        if self._value.protocol is not Protocol.UDP:
            return
        value = self._value
        proxied = value.proxy_protocol is not None and value.proxy_protocol != type(value.proxy_protocol)()
        asked = {
            "auth_type": value.auth_type is not AuthType.NONE,
            "tls_enabled": value.tls_enabled,
            "websocket": value.websocket,
            "cache_enabled": value.cache_enabled,
            "proxy_protocol": proxied,
        }
        for key, is_asked in asked.items():
            if is_asked:
                self._problem(key, "it with protocol udp", "protocol tcp, or the key left out")

    def _health_check(self) -> HealthCheck | None:
        value, keys = self._value.health_check, self._keys.inside.get("health_check")
        if value is None or keys is None:
            return None
        if value.timeout > value.interval and not keys.broken & {"timeout", "interval"}:
            got = f"{value.timeout:g} seconds with an interval of {value.interval:g}"
            want = "a timeout not above the interval"
            self._problems.add(keys.line_of("timeout", "interval"), f"{keys.path}.timeout", got, want)
        if self._value.protocol is Protocol.UDP and value.port is None and "port" not in keys.broken:
            want = "a TCP port to check, since UDP itself gives no sign of life"
            self._problems.add(keys.line, f"{keys.path}.port", "nothing", want)
        if value.type is not HealthCheckKind.HTTP:
            unused = [key for key in ("path", "host", "expect_status") if key in keys.nodes]
            if unused and self._value.name:
                self._note(
                    self._value.name, f"{' and '.join(unused)} of health_check only act with type: http"
                )
        return HealthCheck(
            kind=value.type,
            interval_s=value.interval,
            timeout_s=value.timeout,
            rise=value.rise,
            fall=value.fall,
            port=value.port,
            path=value.path,
            host=value.host,
            expect_status=value.expect_status,
        )

    def _check_tier(self, known_tiers: Collection[str]) -> None:
        tier = self._value.tier
        if tier is None or tier in known_tiers:
            return
        if tier in TIER_NAMES:
            self._note(self._value.name or "?", f"tier {tier} is not installed, so nothing can carry it")
            return
        known = {*known_tiers, *TIER_NAMES}
        self._problems.add(
            self._keys.line_of("tier"),
            f"{self._keys.path}.tier",
            quote(tier),
            "the name of a tier",
            nearest(tier, known),
        )

    def _check_door(self) -> None:
        for prefix in self._value.allow:
            if prefix in self._value.block:
                self._problem("allow", f"{prefix} as in block", "each prefix in one of the two")

    def _note_unused(self, name: str) -> None:
        value = self._value
        on = {
            "auth_type: jwt": value.auth_type is AuthType.JWT,
            "tls_enabled: true": value.tls_enabled,
            "cache_enabled: true": value.cache_enabled,
        }
        for key, need in _NEEDS.items():
            if self._given(key) and not on[need]:
                self._note(name, f"{key} does nothing without {need}")

    def _auth(self, name: str) -> Auth:
        value = self._value
        if value.auth_type is AuthType.NONE:
            return Auth()
        if not value.auth_keys and value.auth_jwks_url is None:
            self._note(
                name, "auth_type jwt has no auth_keys and no auth_jwks_url, so no token can be checked"
            )
        return Auth(
            type=value.auth_type,
            issuer=value.auth_issuer,
            audience=value.auth_audience,
            keys=value.auth_keys,
            jwks_url=value.auth_jwks_url,
        )

    def _tls(self, name: str) -> Tls | None:
        value = self._value
        if not value.tls_enabled:
            return None
        if value.tls_certificate is None:
            self._note(name, "tls_enabled has no tls_certificate, so no TLS connection can be accepted")
            return Tls(client_ca=value.tls_client_ca)
        certificate = Certificate(certificate=value.tls_certificate, key=value.tls_key)
        return Tls(certificates=(certificate,), client_ca=value.tls_client_ca)

    def _needs_http(self) -> bool:
        value = self._value
        return (
            value.auth_type is not AuthType.NONE
            or value.tls_enabled
            or value.websocket
            or value.cache_enabled
        )

    def _proxy_protocol(self) -> ProxyProtocol:
        value = self._value.proxy_protocol
        if value is None:
            return ProxyProtocol()
        return ProxyProtocol(send=ProxyHeader(value.send), accept=value.accept)
