"""The front door: which clients may come in at all, by prefixes of their addresses. Values and rules only, no I/O.

Who decides is the engine (``engine/door.py``); tiers are given the rules that are in force with each table of services.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, final

import attrs

if TYPE_CHECKING:
    from marchproxy_core.services import Endpoint, IPAddress

Prefix = ipaddress.IPv4Network | ipaddress.IPv6Network

WANT = "an IPv4 or IPv6 prefix as 192.0.2.0/24 or 2001:db8::/32, or an address"
_LENGTH = re.compile(r"[^/%]+(/[0-9]{1,3})?")
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


class Door(enum.StrEnum):
    """What stands at the door for the addresses of a prefix."""

    BLOCK = "block"
    ALLOW = "allow"
    """Let in, although a shorter prefix is blocked; not held to ``DOOR_SOURCE_RATE`` either."""


class NotAPrefix(ValueError):
    """The text is none; ``nearest`` is the prefix that was probably meant, if there is one."""

    def __init__(self, text: str, nearest: str | None = None) -> None:
        super().__init__(text)
        self.nearest = nearest


def read_prefix(text: str) -> Prefix:
    """Read a prefix, or an address, which stands for itself alone.

    Raises:
        NotAPrefix: It is none, has bits behind its length, or is an IPv4 one in IPv6's clothes.
    """
    if not _LENGTH.fullmatch(text):
        raise NotAPrefix(text)
    try:
        loose = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise NotAPrefix(text) from None
    if isinstance(loose, ipaddress.IPv6Network) and loose.subnet_of(_MAPPED):
        bare = ipaddress.IPv4Address(int(loose.network_address) & 0xFFFFFFFF)
        raise NotAPrefix(text, f"{bare}/{loose.prefixlen - 96}")
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise NotAPrefix(text, str(loose)) from None


@attrs.frozen(kw_only=True)
class Rule:
    """Clients of one prefix, and what stands at the door for them. Of several that fit, the longest prefix counts."""

    prefix: Prefix
    door: Door
    service: str = ""
    """The one that it is about; empty: all, and then whatever else comes to the host by the same interfaces."""

    @property
    def key(self) -> RuleKey:
        """What two rules that exclude each other have in common."""
        return self.service, self.prefix


RuleKey = tuple[str, Prefix]
"""A service's name and a prefix."""


class RuleOrigin(enum.StrEnum):
    """Where a rule is from."""

    SETTINGS = "settings"
    """``DOOR_BLOCK`` or ``DOOR_ALLOW``."""
    SERVICE = "service"
    """A service's own ``block`` or ``allow``."""
    COMMAND = "command"
    """Asked for since the daemon started; set over a rule of the configuration for the same prefix."""


@attrs.frozen(kw_only=True)
class KnownRule:
    """A rule that is in force."""

    rule: Rule
    origin: RuleOrigin
    ends_at: float | None = None
    """When it ends by itself, on trio's clock; None: never."""


class DoorAction(enum.StrEnum):
    """What is to become of a rule."""

    ADD = "add"
    REMOVE = "remove"


@attrs.frozen(kw_only=True)
class DoorChange:
    """What an operator asks for while the daemon runs."""

    action: DoorAction
    prefix: Prefix
    service: str = ""
    door: Door = Door.BLOCK
    """What to add; of a rule that is removed it says nothing."""
    lasts_s: float | None = None
    """Seconds until what is added ends by itself; None: never."""


@final
class Screen:
    """Looks clients up in rules, for tiers that ask in Python when a connection or flow begins."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        """Take the rules in; they do not change any more."""
        found: dict[tuple[str, int], dict[int, dict[int, Door]]] = {}
        for rule in rules:
            prefix = rule.prefix
            by_shift = found.setdefault((rule.service, prefix.version), {})
            shift = prefix.max_prefixlen - prefix.prefixlen
            by_shift.setdefault(shift, {})[int(prefix.network_address) >> shift] = rule.door
        self._rules = {key: sorted(by_shift.items()) for key, by_shift in found.items()}

    def refuses(self, client: IPAddress, service: str) -> bool:
        """Return whether a client may not come in to a service.

        A prefix that is blocked for all services stays so whatever a service allows.
        """
        return Door.BLOCK in (self.door("", client), self.door(service, client))

    def shuts_off(self, backends: Iterable[Endpoint]) -> Endpoint | None:
        """Return the first of these backends that is blocked for all services: packet tiers drop its answers too."""
        return next((one for one in backends if self.door("", one.ip) is Door.BLOCK), None)

    def door(self, service: str, client: IPAddress) -> Door | None:
        """Return what the rules of one service, or with "" of all, have for a client; None: nothing."""
        if isinstance(client, ipaddress.IPv6Address):
            client = client.ipv4_mapped or client
        number = int(client)
        for shift, doors in self._rules.get((service, client.version), ()):
            door = doors.get(number >> shift)
            if door is not None:
                return door
        return None
