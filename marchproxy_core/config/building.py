"""From the keys of one service to a :class:`Service`, with the checks that need no other service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marchproxy_core.config.choices import TIER_NAMES
from marchproxy_core.config.document import Entries, Items, Node
from marchproxy_core.config.findings import Findings
from marchproxy_core.config.http_building import build_auth, build_cache, build_http, build_tls
from marchproxy_core.config.http_checks import check_http, note_unused
from marchproxy_core.config.problems import Problems, nearest, quote
from marchproxy_core.config.reading import Keys, read_keys, shape
from marchproxy_core.config.service_keys import ServiceKeys
from marchproxy_core.services import (
    ANY_IPV4,
    ANY_IPV6,
    Backend,
    Endpoint,
    HealthCheck,
    HealthCheckKind,
    Protocol,
    ProxyHeader,
    ProxyProtocol,
    Service,
)

if TYPE_CHECKING:
    from collections.abc import Collection


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
        keys = read_keys(ServiceKeys, item, here, problems, also={"service": "name", "path": "paths"})
        builder = _Builder(keys, problems, notes)
        service = builder.build(known_tiers)
        if service is not None and len(problems.found) == before:
            services.append(service)
    return tuple(services)


class _Builder:
    """Puts one service together; what is wrong goes to ``problems``."""

    def __init__(self, keys: Keys[ServiceKeys], problems: Problems, notes: list[str]) -> None:
        self._findings = Findings(keys, problems, notes)
        self._keys = keys
        self._value = keys.value
        self._problems = problems
        self._before = len(problems.found)

    def build(self, known_tiers: Collection[str]) -> Service | None:
        value = self._value
        if value.name is None and "name" not in self._keys.broken:
            self._findings.problem("name", "nothing", "a name", "name")
        backends = self._backends()
        listen = self._listen()
        self._check_loop(listen, backends)
        check_http(self._findings)
        health_check = self._health_check()
        self._check_tier(known_tiers)
        self._check_door()
        if value.name is None or not backends or not listen or len(self._problems.found) > self._before:
            return None
        note_unused(self._findings)
        if all(backend.weight == 0 for backend in backends):
            what = "has weight 0" + (" or is flushed" if any(one.flush for one in backends) else "")
            self._findings.note(f"every backend {what}, so it takes no new connections")
        return Service(
            name=value.name,
            protocol=value.protocol,
            listen=listen,
            backends=backends,
            balance=value.balance,
            health_check=health_check,
            auth=build_auth(self._findings),
            tls=build_tls(self._findings),
            websocket=value.websocket,
            cache=build_cache(self._findings),
            http=build_http(self._findings),
            proxy_protocol=self._proxy_protocol(),
            max_connections=value.max_connections,
            connection_rate=value.connection_rate,
            block=value.block,
            allow=value.allow,
            tier=value.tier,
            origin=self._problems.where(self._keys.line),
        )

    def _backends(self) -> tuple[Backend, ...]:
        value = self._value
        if not self._findings.given("backends"):
            if value.ip is None or value.port is None:
                for key in ("ip", "port"):
                    if not self._findings.given(key):
                        self._findings.problem(key, "nothing", "ip and port of the service, or backends")
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
        if self._findings.given("listen"):
            if not value.listen and "listen" not in self._keys.broken:
                self._findings.problem("listen", "no address", "at least one")
            return tuple(dict.fromkeys(endpoint for entry in value.listen for endpoint in entry))
        if value.port is not None:
            return Endpoint(ANY_IPV4, value.port), Endpoint(ANY_IPV6, value.port)
        if self._findings.given("backends") and not self._findings.given("port"):
            self._findings.problem("listen", "nothing", "listen, or the port of the service")
        return ()

    def _check_loop(self, listen: tuple[Endpoint, ...], backends: tuple[Backend, ...]) -> None:
        """A backend that is the service itself: every connection would make the next one."""
        own = set(listen)
        for backend in backends:
            at = backend.endpoint
            everywhere = Endpoint(ANY_IPV4 if at.ip.version == 4 else ANY_IPV6, at.port)
            if at in own or (at.ip.is_loopback and everywhere in own):
                want = "a listen address other than the backend's own"
                self._findings.problem(
                    "listen", f"{at} as listen address and backend", want, "listen", "backends", "port"
                )

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
                self._findings.note(f"{' and '.join(unused)} of health_check only act with type: http")
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
            self._findings.note(f"tier {tier} is not installed, so nothing can carry it")
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
                self._findings.problem("allow", f"{prefix} as in block", "each prefix in one of the two")

    def _proxy_protocol(self) -> ProxyProtocol:
        value = self._value.proxy_protocol
        if value is None:
            return ProxyProtocol()
        return ProxyProtocol(send=ProxyHeader(value.send), accept=value.accept)
