"""Answers as tables for people. Text from the daemon is escaped, and never read as markup."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from marchproxy_core.logs import escape
from marchproxy_core.model import Health, TierState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from marchproxy_core.admin.answers import BackendAnswer, ServiceAnswer, TierAnswer
    from marchproxy_core.config import PrintedService, PrintedSetting
    from marchproxy_core.model import Candidate, Decision, Requirement

_PIPE_WIDTH = 1000
_WIDEST_NAME = 48
_STATE_STYLES = {
    TierState.CHOSEN: "bold green",
    TierState.ARMED: "green",
    TierState.IDLE: "dim",
    TierState.DISABLED: "dim",
    TierState.DEGRADED: "yellow",
    TierState.UNKNOWN: "yellow",
    TierState.REFUSED: "yellow",
    TierState.FAULTED: "bold red",
    TierState.BROKEN: "bold red",
}
_HEALTH_STYLES = {
    Health.UP: "green",
    Health.DOWN: "bold red",
    Health.EJECTED: "red",
    Health.DRAINING: "yellow",
}


def console() -> Console:
    """Return standard output; into a pipe nothing is cut off."""
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    return Console(highlight=False, markup=False, emoji=False, width=width)


def cell(value: object, style: str = "") -> Text:
    """Return the value as safe text; None is a dash."""
    return Text("-" if value is None or value == "" else escape(str(value)), style=style)


def table(title: str, *columns: str, numbers: tuple[str, ...] = ()) -> Table:
    """Start a table; columns in ``numbers`` are aligned right."""
    result = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        result.add_column(
            column,
            justify="right" if column in numbers else "left",
            overflow="fold",
            header_style="underline",
        )
    return result


def tier_table(tiers: Iterable[TierAnswer]) -> Table:
    """Return the tier table, highest first."""
    result = table("Tiers", "tier", "order", "state", "carries", "version", "why", numbers=("order",))
    for tier in tiers:
        # A fault's text has its fix already.
        fix = f"fix: {tier.fix}" if tier.fix and tier.fix not in tier.reason else ""
        why = "; ".join(part for part in (tier.reason, fix) if part)
        result.add_row(
            cell(tier.name),
            cell(tier.order),
            cell(tier.state.value, _STATE_STYLES[tier.state]),
            cell(", ".join(tier.carries)),
            cell(tier.version),
            cell(why),
        )
    return result


def requirement_table(tiers: Iterable[tuple[str, tuple[Requirement, ...]]]) -> Table | None:
    """Return what tiers lack, None when they lack nothing."""
    result = table("Not met", "tier", "need", "have", "fix")
    for name, requirements in tiers:
        for one in requirements:
            if one.met is not True:
                have = one.have if one.met is False else f"{one.have} (could not tell)"
                result.add_row(cell(name), cell(one.need), cell(have), cell(one.fix))
    return result if result.row_count else None


def service_table(services: Iterable[ServiceAnswer]) -> Table:
    """Return the services with their traffic, summed over tiers."""
    result = table(
        "Services",
        *("service", "protocol", "listen", "path", "tier", "falls back to"),
        *("active", "opened", "bytes in", "bytes out", "drops"),
        numbers=("active", "opened", "bytes in", "bytes out", "drops"),
    )
    for one in services:
        result.add_row(
            cell(one.name),
            cell(one.protocol.value),
            cell(", ".join(one.listen)),
            cell(one.path.value),
            cell(one.chosen, "bold green") if one.chosen else cell("none", "bold red"),
            cell(", ".join(one.chain[1:])),
            cell(sum(t.connections_active for t in one.traffic)),
            cell(sum(t.connections_opened for t in one.traffic)),
            cell(sum(t.bytes_in for t in one.traffic)),
            cell(sum(t.bytes_out for t in one.traffic)),
            cell(sum(sum(t.drops.values()) for t in one.traffic)),
        )
    return result


def backend_table(backends: Iterable[BackendAnswer]) -> Table:
    """Return the backends with their health."""
    numbers = ("weight", "active", "check ms", "failures")
    result = table(
        "Backends", "service", "backend", "state", *numbers, "since", "why", "last error", numbers=numbers
    )
    for one in backends:
        latency = None if one.check_latency_s is None else f"{one.check_latency_s * 1000:.1f}"
        result.add_row(
            cell(one.service),
            cell(one.backend),
            cell(one.state.value, _HEALTH_STYLES.get(one.state, "")),
            cell(one.weight),
            cell(one.connections_active),
            cell(latency),
            cell(one.failures_total),
            cell(f"{one.since:%Y-%m-%d %H:%M:%S}Z"),
            cell(one.reason),
            cell(one.last_error),
        )
    return result


def explanation(service: ServiceAnswer) -> Text:
    """Return why a service is where it is: a line for each tier that was considered."""
    text = Text()
    text.append(escape(service.name), "bold")
    reasons = f": {', '.join(service.slow_path_reasons)}" if service.slow_path_reasons else ""
    origin = f", {service.origin}" if service.origin else ""
    text.append(escape(f" ({service.protocol.value}, {service.path.value} path{reasons}{origin}) -> "))
    text.append(escape(service.chosen or "no tier"), "bold green" if service.chosen else "bold red")
    _append_candidates(text, service.decision.candidates)
    return text


def decision(one: Decision, *, is_refused: bool = False) -> Text:
    """Return one decision: what was chosen, and a line for each thing that was considered."""
    text = Text(escape(one.subject), "bold")
    text.append(": ")
    style = "bold red" if is_refused else "bold green" if one.chosen else "dim"
    text.append(escape(one.chosen or ("refused" if is_refused else "none")), style)
    _append_candidates(text, one.candidates)
    return text


def _append_candidates(text: Text, candidates: tuple[Candidate, ...]) -> None:
    width = min(max((len(one.name) for one in candidates), default=0), _WIDEST_NAME)
    for one in candidates:
        mark = "  * " if one.taken else "  - "
        text.append("\n" + mark, "green" if one.taken else "dim")
        text.append(f"{escape(one.name):<{width}}  {escape(one.reason)}")


def setting_table(settings: Iterable[PrintedSetting]) -> Table:
    """Return every setting with its origin."""
    result = table("Settings", "setting", "value", "origin")
    for one in settings:
        value = cell(one.value) if one.value else cell(f"unset: {one.unset}" if one.unset else "unset", "dim")
        result.add_row(cell(one.name), value, cell(one.origin, "dim" if one.origin == "default" else ""))
    return result


def service_values_table(service: PrintedService) -> Table:
    """Return one configured service, key by key."""
    result = table(escape(f"Service {service.name} ({service.origin})"), "key", "value")
    for key, value in service.values:
        result.add_row(cell(key), cell(value))
    return result
