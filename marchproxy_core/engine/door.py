"""The rules at the front door that are in force: the configuration's, and over them what operators asked for since.

Pure but for what it keeps. A rule that was asked for lives until it is taken out, its time is over, or the daemon ends.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, final

from marchproxy_core.door import Door, DoorAction, KnownRule, Rule, RuleOrigin, Screen
from marchproxy_core.errors import DoorError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from marchproxy_core.config import Config
    from marchproxy_core.door import DoorChange, RuleKey
    from marchproxy_core.services import Endpoint


@final
class FrontDoor:
    """All rules of one daemon."""

    def __init__(self, config: Config) -> None:
        """Begin with the rules of a configuration."""
        self._asked: dict[RuleKey, KnownRule] = {}
        self._config = config
        self._configured = _configured(config)
        self._known: dict[RuleKey, KnownRule] = {}
        self.rules: tuple[Rule, ...] = ()
        """Those in force, the same tuple while nothing changes."""
        self._recount()

    @property
    def known(self) -> tuple[KnownRule, ...]:
        """The rules in force with where they are from: those of all services first, then by prefix."""
        return tuple(self._known.values())

    def adopt(self, config: Config) -> None:
        """Follow a new configuration; what was asked for stays, also for services that are gone and may come back."""
        self._config = config
        self._configured = _configured(config)
        self._recount()

    def change(self, change: DoorChange, now: float) -> KnownRule:
        """Add a rule over those that there are, or take one out that was added so.

        Args:
            change: What is asked.
            now: The time, of the clock that :attr:`KnownRule.ends_at` is told by.

        Returns:
            The rule that was added, or taken out.

        Raises:
            DoorError: There is no such service or rule, it is the configuration's, or there are too many; nothing was
                changed.
        """
        key = change.service, change.prefix
        if change.action is DoorAction.REMOVE:
            removed = self._removable(key)
            self._ask({one: known for one, known in self._asked.items() if one != key})
            return removed
        self._check_service(change.service)
        if key not in self._known:
            self._check_room()
        ends_at = None if change.lasts_s is None else now + change.lasts_s
        rule = Rule(prefix=change.prefix, door=change.door, service=change.service)
        self._ask({**self._asked, key: KnownRule(rule=rule, origin=RuleOrigin.COMMAND, ends_at=ends_at)})
        return self._asked[key]

    def lapse(self, known: KnownRule) -> bool:
        """Take out a rule whose time is over; False when it is not there any more, or was asked for again since."""
        if self._asked.get(known.rule.key) is not known:
            return False
        del self._asked[known.rule.key]
        self._recount()
        return True

    def shut_off(self) -> Endpoint | None:
        """Return a backend whose answers packet tiers drop: a configuration came later, or a rule's time is over."""
        backends = (one.endpoint for service in self._config.services for one in service.backends)
        return Screen(self.rules).shuts_off(backends)

    def _ask(self, asked: dict[RuleKey, KnownRule]) -> None:
        """Have these rules over the configuration's, unless a backend would be shut off by that."""
        before, already = self._asked, self.shut_off()
        self._asked = asked
        self._recount()
        found = self.shut_off()
        if found is not None and already is None:
            self._asked = before
            self._recount()
            raise DoorError(
                f"backend {found} would be shut off: its answers would be dropped too - fix: let it in first with "
                f"'marchproxy block add --allow {found.ip}', or name a service"
            )

    def _recount(self) -> None:
        found = self._configured | self._asked
        self._known = {key: found[key] for key in sorted(found, key=_order)}
        rules = tuple(known.rule for known in self._known.values())
        if rules != self.rules:
            self.rules = rules

    def _removable(self, key: RuleKey) -> KnownRule:
        service, prefix = key
        of = f" of service {service}" if service else ""
        if key in self._asked:
            return self._asked[key]
        known = self._known.get(key)
        if known is None:
            near = difflib.get_close_matches(
                str(prefix), [str(one) for name, one in self._known if name == service]
            )
            raise DoorError(f"no rule for {prefix}{of}" + (f"; did you mean {near[0]}?" if near else ""))
        other = "block add --allow" if known.rule.door is Door.BLOCK else "block add"
        raise DoorError(
            f"the rule for {prefix}{of} is the configuration's - fix: take it out there and reload, or set another "
            f"over it with 'marchproxy {other}'"
        )

    def _check_service(self, name: str) -> None:
        names = [service.name for service in self._config.services]
        if name and name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names) or 'none'}"
            raise DoorError(f"no service {name!r}; {hint}")

    def _check_room(self) -> None:
        # All of IPv4 may take an entry more for each service (packet/door.py).
        most = self._config.settings.ebpf_maps_size
        if len(self._known) + len({service for service, _ in self._known}) + 2 > most:
            raise DoorError(
                f"there are {len(self._known)} rules, and the tables of packet tiers have {most} places - fix: take "
                "some out, or raise EBPF_MAPS_SIZE and restart"
            )


def _configured(config: Config) -> dict[RuleKey, KnownRule]:
    """Return the configuration's rules; with tens of thousands of them this takes longer than all the rest."""
    return {known.rule.key: known for known in _read(config)}


def _read(config: Config) -> Iterator[KnownRule]:
    settings = config.settings
    for door, prefixes in ((Door.BLOCK, settings.door_block), (Door.ALLOW, settings.door_allow)):
        for prefix in prefixes:
            yield KnownRule(rule=Rule(prefix=prefix, door=door), origin=RuleOrigin.SETTINGS)
    for service in config.services:
        for door, prefixes in ((Door.BLOCK, service.block), (Door.ALLOW, service.allow)):
            for prefix in prefixes:
                rule = Rule(prefix=prefix, door=door, service=service.name)
                yield KnownRule(rule=rule, origin=RuleOrigin.SERVICE)


def _order(key: RuleKey) -> tuple[str, int, int, int]:
    service, prefix = key
    return service, prefix.version, int(prefix.network_address), prefix.prefixlen
