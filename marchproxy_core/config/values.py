"""What loading gives: settings and services, each with where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs

from marchproxy_core.config.settings import Settings
from marchproxy_core.services import Service


@attrs.frozen
class Origin:
    """Where a value came from: ``default``, ``file:line`` or ``env NAME``."""

    text: str

    @property
    def is_default(self) -> bool:
        """Whether nobody set it."""
        return self.text == "default"

    def __str__(self) -> str:
        return self.text


DEFAULT = Origin("default")


@attrs.frozen(kw_only=True)
class Config:
    """A whole, checked configuration."""

    settings: Settings = Settings()
    services: tuple[Service, ...] = ()
    notes: tuple[str, ...] = ()
    """What an operator should know and what stops nothing, one sentence each."""
    origins: Mapping[str, Origin] = attrs.field(factory=dict, eq=False)
    """By variable, as ``DRAIN_TIMEOUT``; those left out have their default."""
    path: Path | None = None
    """The file it came from, None without one."""
