"""What changes from one configuration to the next. Pure; what to do about it is the engine's part."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from marchproxy_core.config.choices import Enable, enable_variable
from marchproxy_core.config.settings import SETTINGS

if TYPE_CHECKING:
    from marchproxy_core.config.values import Config


@attrs.frozen(kw_only=True)
class ConfigDiff:
    """A change of configuration, by names; each tuple in the new file's order, removed ones in the old's."""

    settings: tuple[str, ...] = ()
    """Variables whose value changed, those in ``needs_restart`` too."""
    needs_restart: tuple[str, ...] = ()
    """Those of them that a running daemon cannot take over."""
    added: tuple[str, ...] = ()
    """Services by name, here and below."""
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing changed."""
        return not (self.settings or self.added or self.removed or self.changed)


def diff(old: Config, new: Config) -> ConfigDiff:
    """Compare values, not origins: a service that only moved in the file is unchanged."""
    changed = [one for one in SETTINGS.values() if _value(old, one.attribute) != _value(new, one.attribute)]
    before = {service.name: service for service in old.services}
    after = {service.name: service for service in new.services}
    both = [name for name in after if name in before]
    return ConfigDiff(
        settings=(*_enabling(old, new), *(one.variable for one in changed)),
        needs_restart=tuple(one.variable for one in changed if one.restart),
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        changed=tuple(name for name in both if before[name] != after[name]),
        unchanged=tuple(name for name in both if before[name] == after[name]),
    )


def _value(config: Config, attribute: str) -> object:
    value: object = getattr(config.settings, attribute)
    return value


def _enabling(old: Config, new: Config) -> tuple[str, ...]:
    """The ``ENABLE_`` variables that changed; a tier that is not mentioned is AUTO."""
    before, after = old.settings.enable, new.settings.enable
    tiers = sorted(set(before) | set(after))
    return tuple(
        enable_variable(tier)
        for tier in tiers
        if before.get(tier, Enable.AUTO) != after.get(tier, Enable.AUTO)
    )
