"""The declaration of one setting or one key of a service, kept as metadata of an attrs field.

Reading, checking, printing, comparing and the reference in ``docs/settings.md`` all work from these values;
nothing about a name is written anywhere else.
"""

from __future__ import annotations

from typing import TypeVar, cast

import attrs

from marchproxy_core.config.kinds import Kind

T = TypeVar("T")
D = TypeVar("D")

_KEY = "marchproxy"


@attrs.frozen(kw_only=True)
class Setting:
    """What is known of one setting."""

    variable: str
    """Name in the environment; the file also takes it in lower case."""
    kind: Kind[object]
    default: object
    doc: str
    """One sentence or two."""
    default_doc: str
    """What an unset value means; the default itself when empty."""
    tiers: tuple[str, ...]
    """The tiers that it acts on; empty: the core, for every tier."""
    restart: bool
    """Whether a reload leaves the old value in force until the daemon starts anew."""
    secret: bool
    """Whether the value must never be shown."""

    @property
    def attribute(self) -> str:
        """Name of the attribute of ``Settings``."""
        return self.variable.lower()

    def shown(self, value: object) -> str:
        """The value as text that reads back; empty when unset, masked when secret."""
        if value is None:
            return ""
        return "***" if self.secret else self.kind.show(value)


def setting(
    kind: Kind[T],
    default: D,
    doc: str,
    *,
    unset: str = "",
    tiers: tuple[str, ...] = (),
    restart: bool = False,
    secret: bool = False,
) -> T | D:
    """Declare a setting as the default of an attrs field; the field's name in upper case is the variable.

    Args:
        kind: How it is written.
        default: Its value when neither file nor environment has it.
        doc: What it does.
        unset: What the default means, where the default is None or empty.
        tiers: The tiers that it acts on.
        restart: Whether only a restart applies a change.
        secret: Whether the value is never shown.
    """
    about = {"kind": kind, "doc": doc, "unset": unset, "tiers": tiers, "restart": restart, "secret": secret}
    field = attrs.field(default=default, metadata={_KEY: about}, repr=not secret)
    return cast("T | D", field)


def declared(
    owner: type[attrs.AttrsInstance], beyond: type[attrs.AttrsInstance] | None = None
) -> tuple[Setting, ...]:
    """The declarations of a class, in order; fields without one are left out, and those that ``beyond`` has too."""
    above = set() if beyond is None else {field.name for field in attrs.fields(beyond)}
    return tuple(
        Setting(
            variable=field.name.upper(),
            kind=field.metadata[_KEY]["kind"],
            default=field.default,
            doc=field.metadata[_KEY]["doc"],
            default_doc=field.metadata[_KEY]["unset"],
            tiers=field.metadata[_KEY]["tiers"],
            restart=field.metadata[_KEY]["restart"],
            secret=field.metadata[_KEY]["secret"],
        )
        for field in attrs.fields(owner)
        if _KEY in field.metadata and field.name not in above
    )
