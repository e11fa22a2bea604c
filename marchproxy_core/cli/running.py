"""Commands for a daemon: run one, or ask a running one for something."""

from __future__ import annotations

import os
from pathlib import Path

import attrs
import click

from marchproxy_core.admin.answers import (
    AccelerationAnswer,
    BackendAnswer,
    BackendsAnswer,
    ClassificationAnswer,
    DrainAnswer,
    HealthzAnswer,
    ReadyzAnswer,
    ReloadAnswer,
    ServiceAnswer,
    TierAnswer,
)
from marchproxy_core.cli import paint
from marchproxy_core.cli.client import AdminClient
from marchproxy_core.cli.options import admin_option, echo_json, json_option
from marchproxy_core.config import load
from marchproxy_core.logs import FORMAT_VARIABLE, LogFormat
from marchproxy_core.logs import configure as configure_logging
from marchproxy_core.plugins import discover


@attrs.frozen(kw_only=True)
class StatusReport:
    """What ``marchproxy status --json`` writes."""

    daemon: HealthzAnswer
    ready: ReadyzAnswer
    tiers: tuple[TierAnswer, ...]
    services: tuple[ServiceAnswer, ...]
    backends: tuple[BackendAnswer, ...]


@click.command()
@click.option(
    "--config",
    "config_path",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The YAML file.",
)
@click.option(
    "--log-format",
    type=click.Choice([one.value for one in LogFormat]),
    help="Default: console on a terminal, else json.",
)
@click.option(
    "--keep-attached",
    is_flag=True,
    help="At the end leave programs, flows and tables in the kernel, which forward on; the next start takes over.",
)
def run(*, config_path: Path, log_format: str | None, keep_attached: bool) -> None:
    """Run the daemon until it is told to stop.

    SIGTERM and SIGINT drain: nothing new is taken, connections may end; a second one ends at once. SIGHUP
    reloads the file.
    """
    # Imported here: the other commands do not need the engine.
    from marchproxy_core.engine.daemon import run_daemon

    if log_format is not None:
        # In the environment, since the workers log to the same place.
        os.environ[FORMAT_VARIABLE] = log_format
    settings = load(config_path, os.environ, discover().names).settings
    configure_logging("control", level=settings.log_level, debug=settings.proxy_debug)
    run_daemon(config_path, os.environ, keep_attached=keep_attached)


@click.command()
@admin_option
@json_option
def status(*, admin: str | None, as_json: bool) -> None:
    """Show a running daemon: its tiers, services, backends and connections."""
    report = _ask_status(AdminClient.of(admin))
    if as_json:
        echo_json(report)
        return
    screen = paint.console()
    ready = "ready" if report.ready.ready else "not ready"
    if report.ready.without_tier:
        ready += f", without a tier: {', '.join(report.ready.without_tier)}"
    screen.print(
        paint.cell(
            f"MarchProxy {report.daemon.version}, up {_duration(report.daemon.uptime_s)}, {ready}", "bold"
        )
    )
    screen.print()
    screen.print(paint.tier_table(report.tiers))
    screen.print()
    screen.print(paint.service_table(report.services))
    screen.print()
    screen.print(paint.backend_table(report.backends))


def _ask_status(client: AdminClient) -> StatusReport:
    return StatusReport(
        daemon=client.get("/healthz", HealthzAnswer),
        ready=client.get("/readyz", ReadyzAnswer, statuses=(200, 503)),
        tiers=client.get("/admin/acceleration", AccelerationAnswer).tiers,
        services=client.get("/admin/rules/classification", ClassificationAnswer).services,
        backends=client.get("/admin/backends/health", BackendsAnswer).backends,
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "m"), (rest, "s"))
    return " ".join(f"{count}{unit}" for count, unit in parts if count) or "0s"


@click.command()
@admin_option
@json_option
def reload(*, admin: str | None, as_json: bool) -> None:
    """Have the daemon read its configuration again; what did not change is left alone."""
    answer = AdminClient.of(admin).post("/admin/reload", ReloadAnswer)
    if as_json:
        echo_json(answer)
        return
    for what in ("added", "removed", "changed", "unchanged", "settings", "needs_restart", "notes"):
        names: tuple[str, ...] = getattr(answer, what)
        if names:
            click.echo(f"{what.replace('_', ' ')}: {paint.cell(', '.join(names))}")


@click.command()
@admin_option
@json_option
def drain(*, admin: str | None, as_json: bool) -> None:
    """Have the daemon take nothing new, let connections end, and exit."""
    answer = AdminClient.of(admin).post("/admin/drain", DrainAnswer, status=202)
    if as_json:
        echo_json(answer)
        return
    click.echo(f"draining: connections have {answer.drain_timeout_s:g} s to end, then the daemon exits")
