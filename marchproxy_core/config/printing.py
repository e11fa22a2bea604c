"""A configuration for people: every setting and service with where it came from. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from marchproxy_core.config.choices import TIER_VARIABLES, Enable, enable_variable
from marchproxy_core.config.given import all_settings
from marchproxy_core.config.http_printing import http_values
from marchproxy_core.config.values import DEFAULT, Config

if TYPE_CHECKING:
    from marchproxy_core.services import Backend, Service


@attrs.frozen(kw_only=True)
class PrintedSetting:
    """One setting as ``marchproxy check --print`` shows it."""

    name: str
    value: str
    """Text that reads back; empty when unset, ``***`` for a secret."""
    origin: str
    """``default``, ``file:line`` or ``env NAME``."""
    unset: str = ""
    """What the absence of a value means, where there is none."""


@attrs.frozen(kw_only=True)
class PrintedService:
    """One service as ``marchproxy check --print`` shows it."""

    name: str
    origin: str
    values: tuple[tuple[str, str], ...]
    """Keys and what they are, defaults included."""


def render(config: Config) -> tuple[PrintedSetting, ...]:
    """Every setting, in the order of the reference; secrets are masked."""
    settings = config.settings
    known = all_settings(settings.enable)
    return tuple(
        PrintedSetting(
            name=variable,
            value=one.shown(
                settings.enable.get(one.tiers[0], Enable.AUTO)
                if _is_enable(variable, one.tiers)
                else getattr(settings, one.attribute)
            ),
            origin=str(config.origins.get(variable, DEFAULT)),
            unset=one.default_doc,
        )
        for variable, one in known.items()
    )


def _is_enable(variable: str, tiers: tuple[str, ...]) -> bool:
    return variable in TIER_VARIABLES or (len(tiers) == 1 and variable == enable_variable(tiers[0]))


def render_services(config: Config) -> tuple[PrintedService, ...]:
    """Every service, in the file's order."""
    return tuple(
        PrintedService(name=service.name, origin=service.origin, values=_values(service))
        for service in config.services
    )


def _values(service: Service) -> tuple[tuple[str, str], ...]:
    check = service.health_check
    shown = {
        "protocol": service.protocol.value,
        "listen": ", ".join(map(str, service.listen)),
        "backends": ", ".join(map(_backend, service.backends)),
        "balance": service.balance.value,
        "health_check": f"{check.kind.value} every {check.interval_s:g} s" if check else "none",
        "proxy_protocol": _proxy(service),
        "max_connections": _or(service.max_connections, "SERVICE_MAX_CONNECTIONS"),
        "connection_rate": _or(service.connection_rate, "SERVICE_CONNECTION_RATE"),
        "block": ", ".join(map(str, service.block)) or "none",
        "allow": ", ".join(map(str, service.allow)) or "none",
        "tier": service.tier or "the planner picks",
        **http_values(service),
    }
    return tuple(shown.items())


def _backend(backend: Backend) -> str:
    return f"{backend.endpoint} weight {backend.weight}" + (" flush" if backend.flush else "")


def _proxy(service: Service) -> str:
    proxy = service.proxy_protocol
    return proxy.send.value + (", clients must send v2" if proxy.accept else "")


def _or(limit: float | None, otherwise: str) -> str:
    return otherwise if limit is None else f"{limit:g}"
