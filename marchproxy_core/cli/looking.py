"""Commands that look without a daemon: check a file, explain choices, list plugins. No root needed."""

from __future__ import annotations

import difflib
import os
from typing import TYPE_CHECKING

import attrs
import click
import trio

from marchproxy_core.admin.answers import (
    AccelerationAnswer,
    ClassificationAnswer,
    ServiceAnswer,
    TierAnswer,
    service_answer,
    tier_answers,
)
from marchproxy_core.cli import paint
from marchproxy_core.cli.client import AdminClient
from marchproxy_core.cli.options import admin_option, config_option, echo_json, json_option
from marchproxy_core.config import Config, PrintedService, PrintedSetting, load, render, render_services
from marchproxy_core.errors import ConfigError, ConfigProblem
from marchproxy_core.host import gather_host_facts
from marchproxy_core.planner import make_plan
from marchproxy_core.plugins import Tiers, discover

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table

    from marchproxy_core.model import Plan


@attrs.frozen(kw_only=True)
class CheckReport:
    """What ``marchproxy check --json`` writes."""

    ok: bool
    problems: tuple[ConfigProblem, ...] = ()
    notes: tuple[str, ...] = ()
    settings: tuple[PrintedSetting, ...] = ()
    services: tuple[PrintedService, ...] = ()


@attrs.frozen(kw_only=True)
class ExplainReport:
    """What ``marchproxy explain --json`` writes."""

    tiers: tuple[TierAnswer, ...]
    services: tuple[ServiceAnswer, ...]


@attrs.frozen(kw_only=True)
class PluginAnswer:
    """One installed plugin."""

    name: str
    distribution: str
    version: str
    value: str
    """What the entry point names."""
    fault: str
    """What is wrong with it; empty for a whole one."""
    fix: str


@attrs.frozen(kw_only=True)
class PluginsReport:
    """What ``marchproxy plugins --json`` writes."""

    plugins: tuple[PluginAnswer, ...]
    tiers: tuple[TierAnswer, ...]
    """What each could do on this host."""


@click.command()
@config_option
@click.option("--print", "show", is_flag=True, help="Show every setting and service with its origin.")
@json_option
def check(*, config_path: Path | None, show: bool, as_json: bool) -> None:
    """Check a configuration: the file, then the environment over it. Needs no daemon and no root."""
    try:
        config = load(config_path, os.environ, discover().names)
    except ConfigError as error:
        if as_json:
            echo_json(CheckReport(ok=False, problems=error.problems))
        raise
    if as_json:
        settings, services = render(config), render_services(config)
        echo_json(CheckReport(ok=True, notes=config.notes, settings=settings, services=services))
        return
    if show:
        _print_config(config)
    for note in config.notes:
        click.echo(f"note: {paint.cell(note)}")
    count = len(config.services)
    click.echo(f"ok: {count} service{'' if count == 1 else 's'}")


def _print_config(config: Config) -> None:
    screen = paint.console()
    screen.print(paint.setting_table(render(config)))
    screen.print()
    for service in render_services(config):
        screen.print(paint.service_values_table(service))
        screen.print()


@click.command("service", hidden=True)
@click.argument("service", required=False)
@config_option
@admin_option
@json_option
def explain_service(
    *, service: str | None, config_path: Path | None, admin: str | None, as_json: bool
) -> None:
    """Say which tier carries each service, or one SERVICE, and why.

    Asks the running daemon; with --config, decides anew from that file and this host, without a daemon.
    """
    report = _explain_offline(config_path) if config_path else _explain_live(AdminClient.of(admin))
    if service is not None:
        report = attrs.evolve(report, services=(_service_named(service, report.services),))
    if as_json:
        echo_json(report)
        return
    screen = paint.console()
    for one in report.services:
        screen.print(paint.explanation(one))
        screen.print()
    screen.print(paint.tier_table(report.tiers))
    lacking = paint.requirement_table((tier.name, tier.requirements) for tier in report.tiers)
    if lacking is not None:
        screen.print()
        screen.print(lacking)


def _explain_live(client: AdminClient) -> ExplainReport:
    return ExplainReport(
        tiers=client.get("/admin/acceleration", AccelerationAnswer).tiers,
        services=client.get("/admin/rules/classification", ClassificationAnswer).services,
    )


def planned(config_path: Path) -> tuple[Config, Plan, Tiers]:
    """Read a configuration and decide what the daemon would, on this host, with this user's rights.

    Raises:
        ConfigError: It has problems.
    """
    tiers = discover()
    config = load(config_path, os.environ, tiers.names)
    return config, _plan(tiers, config), tiers


def _explain_offline(config_path: Path) -> ExplainReport:
    _, plan, tiers = planned(config_path)
    return ExplainReport(
        tiers=tier_answers(plan, tiers.rows), services=tuple(service_answer(one) for one in plan.services)
    )


def _plan(tiers: Tiers, config: Config) -> Plan:
    """Decide as the daemon does at its start, on this host, with this user's rights."""
    from marchproxy_core.engine.asking import ask_tiers

    facts = trio.run(ask_tiers, tiers, gather_host_facts(), config.settings, config.services)
    return make_plan(facts, config.services, config.settings)


def _service_named(name: str, services: tuple[ServiceAnswer, ...]) -> ServiceAnswer:
    by_name = {service.name: service for service in services}
    if name in by_name:
        return by_name[name]
    near = difflib.get_close_matches(name, by_name, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(by_name) or 'none'}"
    raise click.BadParameter(f"no service {name!r}; {hint}", param_hint="SERVICE")


@click.command()
@config_option
@json_option
def plugins(*, config_path: Path | None, as_json: bool) -> None:
    """List the installed tiers, what is wrong with the broken ones, and what each could do on this host."""
    tiers = discover()
    config = load(config_path, os.environ, tiers.names)
    plan = _plan(tiers, attrs.evolve(config, services=()))
    report = PluginsReport(
        plugins=tuple(
            PluginAnswer(
                name=row.name,
                distribution=row.dist,
                version=row.version,
                value=row.value,
                fault=f"{row.fault.stage}: {row.fault.what}" if row.fault else "",
                fix=row.fault.fix if row.fault else "",
            )
            for row in tiers.rows
        ),
        tiers=tier_answers(plan, tiers.rows),
    )
    if as_json:
        echo_json(report)
        return
    screen = paint.console()
    screen.print(_plugin_table(report))
    screen.print()
    screen.print(paint.tier_table(report.tiers))
    lacking = paint.requirement_table((tier.name, tier.requirements) for tier in report.tiers)
    if lacking is not None:
        screen.print()
        screen.print(lacking)


def _plugin_table(report: PluginsReport) -> Table:
    result = paint.table("Plugins", "tier", "distribution", "version", "module", "fault", "fix")
    for row in report.plugins:
        fault = paint.cell(row.fault, "bold red") if row.fault else paint.cell("none", "green")
        result.add_row(
            paint.cell(row.name),
            paint.cell(row.distribution),
            paint.cell(row.version),
            paint.cell(row.value),
            fault,
            paint.cell(row.fix),
        )
    if not report.plugins:
        result.add_row(
            paint.cell("none"),
            *(paint.cell("") for _ in range(4)),
            paint.cell("pip install marchproxy-sockets"),
        )
    return result
