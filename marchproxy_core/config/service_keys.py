"""The keys of a service in a rules file, declared once each. What they make together is ``building``'s part."""

from __future__ import annotations

import ipaddress
import re
from typing import Generic, TypeVar

import attrs

from marchproxy_core.config.choices import COUNT, DAY_S, PREFIXES, RATE, TIER_NAME
from marchproxy_core.config.declare import setting
from marchproxy_core.config.http_keys import HttpKeys
from marchproxy_core.config.kinds import (
    FALSE_WORDS,
    TRUE_WORDS,
    Address,
    Duration,
    Flag,
    Integer,
    ListOf,
    OneOf,
    Text,
)
from marchproxy_core.door import Prefix
from marchproxy_core.services import (
    ANY_IPV4,
    ANY_IPV6,
    Balance,
    Endpoint,
    HealthCheckKind,
    IPAddress,
    Protocol,
    ProxyHeader,
)

K = TypeVar("K")

PORT = Integer(1, 65535)
SERVICE_NAME = Text("a name of letters, digits, . _ and -, at most 63", r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
SERVER = Address(
    "the IPv4 or IPv6 address of a server", accepts=lambda ip: not ip.is_unspecified and not ip.is_multicast
)


@attrs.frozen
class Section(Generic[K]):
    """A mapping with keys of its own, or a word in short for it."""

    keys: type[K]
    short: dict[str, dict[str, str] | None]
    """What a word alone stands for; None: as if the key were not there."""
    want: str

    def parse(self, text: str) -> K:
        """Never a value: the reader resolves words through ``short``."""
        raise ValueError(text)

    def show(self, value: K) -> str:
        """A section is shown key by key."""
        raise ValueError(str(value))


@attrs.frozen
class ListenAddress:
    """Where clients connect: ``PORT``, ``:PORT``, ``IP:PORT``; a port alone is every address, IPv4 and IPv6."""

    want: str = "PORT, :PORT, IP:PORT or [IPV6]:PORT, with a port from 1 to 65535"

    def parse(self, text: str) -> tuple[Endpoint, ...]:
        """Read one entry."""
        if re.fullmatch(r":?[0-9]{1,5}", text):
            port = PORT.parse(text.removeprefix(":"))
            return Endpoint(ANY_IPV4, port), Endpoint(ANY_IPV6, port)
        endpoint = Endpoint.parse(text)
        if "%" in text or endpoint.ip.is_multicast:
            raise ValueError(text)
        return (endpoint,)

    def show(self, value: tuple[Endpoint, ...]) -> str:
        """Text that reads back."""
        return f":{value[0].port}" if len(value) > 1 else str(value[0])


@attrs.frozen
class ServerAddress:
    """``IP:PORT`` of a server."""

    want: str = "IP:PORT or [IPV6]:PORT of a server"

    def parse(self, text: str) -> Endpoint:
        """Read the address."""
        endpoint = Endpoint.parse(text)
        SERVER.parse(str(endpoint.ip))
        return endpoint

    def show(self, value: Endpoint) -> str:
        """Text that reads back."""
        return str(value)


@attrs.frozen
class StatusRange:
    """HTTP statuses, ``200`` or ``200-399``."""

    want: str = "a status or a range as 200-399, from 100 to 599"

    def parse(self, text: str) -> tuple[int, int]:
        """Read both ends."""
        match = re.fullmatch(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?", text)
        if match is None or int(match[1]) > int(match[2] or match[1]):
            raise ValueError(text)
        return int(match[1]), int(match[2] or match[1])

    def show(self, value: tuple[int, int]) -> str:
        """Text that reads back."""
        return f"{value[0]}-{value[1]}"


@attrs.frozen(kw_only=True)
class BackendKeys:
    """Keys of one backend."""

    ip: IPAddress | None = setting(SERVER, None, "Its address.", unset="must be given")
    port: int | None = setting(PORT, None, "Its port.", unset="the service's `port`")
    weight: int = setting(
        Integer(0, 65535),
        1,
        "Its share of new connections; 0 drains it: established ones go on, no new ones.",
    )
    flush: bool = setting(
        Flag(),
        False,
        "Whether to end at once what it has: nothing new whatever its weight, connections are reset, datagrams of "
        "its flows go to another backend.",
    )


@attrs.frozen(kw_only=True)
class HealthKeys:
    """Keys of a health check."""

    type: HealthCheckKind = setting(
        OneOf(HealthCheckKind), HealthCheckKind.TCP, "Connect, or `GET path` over HTTP/1.1."
    )
    interval: float = setting(Duration(0.1, DAY_S), 2.0, "Time from one check to the next.")
    timeout: float = setting(Duration(0.01, DAY_S), 1.0, "Longest wait for the answer, at most the interval.")
    rise: int = setting(Integer(1, 1000), 2, "Successes in a row that bring a backend up.")
    fall: int = setting(Integer(1, 1000), 3, "Failures in a row that take a backend down.")
    port: int | None = setting(
        PORT, None, "Port to check; a UDP service must name one.", unset="the backend's"
    )
    path: str = setting(
        Text("a path that begins with / and has no spaces", r"/[!-~]{0,2047}"), "/", "Path of an HTTP check."
    )
    host: str | None = setting(
        Text("a host name, with or without a port", r"[A-Za-z0-9.:\[\]_-]{1,255}"),
        None,
        "`Host` header of an HTTP check.",
        unset="the backend's address",
    )
    expect_status: tuple[int, int] = setting(
        StatusRange(), (200, 399), "First and last status that count as healthy."
    )


@attrs.frozen(kw_only=True)
class ProxyKeys:
    """Keys of the PROXY protocol."""

    send: ProxyHeader = setting(
        OneOf(ProxyHeader), ProxyHeader.OFF, "Version of the header sent to backends."
    )
    accept: bool = setting(
        Flag(), False, "Whether clients must begin with a version 2 header; others are closed."
    )


HEALTH = Section(
    HealthKeys,
    {
        **dict.fromkeys(FALSE_WORDS),
        **{word: {} for word in TRUE_WORDS},
        **{kind.value: {"type": kind.value} for kind in HealthCheckKind},
    },
    "a mapping, or one of true, false, tcp, http",
)
PROXY = Section(
    ProxyKeys,
    {**dict.fromkeys(FALSE_WORDS), **{header.value: {"send": header.value} for header in ProxyHeader}},
    "a mapping with send and accept, or one of off, v1, v2",
)


@attrs.frozen
class BackendList:
    """A list of backends; the reader takes it apart."""

    want: str = "a list of backends, each IP:PORT or a mapping with ip, port, weight and flush"

    def parse(self, text: str) -> tuple[BackendKeys, ...]:
        """Never a value: one line of text is no list."""
        raise ValueError(text)

    def show(self, value: tuple[BackendKeys, ...]) -> str:
        """A backend is shown key by key."""
        raise ValueError(str(value))


@attrs.frozen(kw_only=True)
class ServiceKeys(HttpKeys):
    """Keys of one service."""

    name: str | None = setting(
        SERVICE_NAME, None, "What it is called, also written `service`; unique.", unset="must be given"
    )
    ip: IPAddress | None = setting(
        SERVER, None, "Where the service lives: its one backend, where `backends` is not given.", unset="none"
    )
    port: int | None = setting(
        PORT,
        None,
        "Where the service lives; also the port of `listen` and of backends that name none.",
        unset="none",
    )
    listen: tuple[tuple[Endpoint, ...], ...] = setting(
        ListOf(ListenAddress(), "listen addresses (PORT, :PORT, IP:PORT, [IPV6]:PORT)"),
        (),
        "Where clients connect.",
        unset="every address, IPv4 and IPv6, on `port`",
    )
    backends: tuple[BackendKeys, ...] = setting(
        BackendList(),
        (),
        "The servers behind it, each `IP:PORT` or a mapping.",
        unset="the one at `ip`:`port`",
    )
    protocol: Protocol = setting(OneOf(Protocol), Protocol.TCP, "Transport protocol.")
    balance: Balance = setting(
        OneOf(Balance), Balance.ROUND_ROBIN, "How a backend is picked for a new connection or flow."
    )
    health_check: HealthKeys | None = setting(
        HEALTH, None, "Active check of each backend; `true` is `tcp` with its defaults.", unset="none"
    )
    proxy_protocol: ProxyKeys | None = setting(
        PROXY, None, "PROXY protocol; a version alone is the one sent to backends.", unset="off"
    )
    max_connections: int | None = setting(
        COUNT, None, "Open connections or flows at once.", unset="`SERVICE_MAX_CONNECTIONS`"
    )
    connection_rate: float | None = setting(
        RATE, None, "New connections or flows.", unset="`SERVICE_CONNECTION_RATE`"
    )
    block: tuple[Prefix, ...] = setting(
        PREFIXES, (), "Clients that may not come in: nothing new of theirs is taken.", unset="none"
    )
    allow: tuple[Prefix, ...] = setting(
        PREFIXES,
        (),
        "Clients that may, although a shorter prefix in `block` has them; not though `DOOR_BLOCK` has.",
        unset="none",
    )
    tier: str | None = setting(TIER_NAME, None, "The only tier that may carry it.", unset="the planner picks")


def backend_keys(text: str) -> BackendKeys:
    """A backend in short, ``IP:PORT``.

    Raises:
        ValueError: It is not an address and port of a server.
    """
    endpoint = ServerAddress().parse(text)
    return BackendKeys(ip=ipaddress.ip_address(str(endpoint.ip)), port=endpoint.port)
