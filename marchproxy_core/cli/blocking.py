"""Commands for the front door of a running daemon: which clients may come in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from marchproxy_core.admin.answers import DoorAnswer, DoorRequest
from marchproxy_core.cli import paint
from marchproxy_core.cli.client import AdminClient
from marchproxy_core.cli.options import admin_option, echo_json, json_option
from marchproxy_core.config.kinds import Duration
from marchproxy_core.door import WANT, Door, DoorAction, NotAPrefix, read_prefix

if TYPE_CHECKING:
    from rich.table import Table

_LASTS = Duration(1, 365 * 86400)


def _prefix(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Check a prefix before the daemon is asked."""
    try:
        return str(read_prefix(value))
    except NotAPrefix as error:
        hint = f"; did you mean {error.nearest}?" if error.nearest else ""
        raise click.BadParameter(f"got {value!r}, want {WANT}{hint}", ctx, param) from None


def _seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Read a time span as settings are."""
    try:
        return None if value is None else _LASTS.parse(value)
    except ValueError:
        raise click.BadParameter(f"got {value!r}, want {_LASTS.want}", ctx, param) from None


prefix_argument = click.argument("prefix", callback=_prefix)
service_option = click.option("--service", metavar="NAME", help="About this service alone; default: all.")


@click.group()
def block() -> None:
    """Keep clients out by the prefix of their address, or let them in; at once, until the daemon ends.

    A reload keeps what was asked for here, a restart does not: DOOR_BLOCK, DOOR_ALLOW and the keys block and allow
    of a service are for that.
    """


@block.command()
@prefix_argument
@service_option
@click.option("--allow", is_flag=True, help="Let these in, although a shorter prefix is blocked.")
@click.option(
    "--for", "lasts_s", metavar="TIME", callback=_seconds, help="End by itself after so long: 90, 10m, 2h."
)
@admin_option
@json_option
def add(
    *,
    prefix: str,
    service: str | None,
    allow: bool,
    lasts_s: float | None,
    admin: str | None,
    as_json: bool,
) -> None:
    """Block PREFIX (192.0.2.0/24, 2001:db8::/32, or an address); a rule for the same prefix is replaced."""
    door = Door.ALLOW if allow else Door.BLOCK
    _ask(
        admin,
        DoorRequest(action=DoorAction.ADD, prefix=prefix, service=service, door=door, lasts_s=lasts_s),
        f"{'let in' if allow else 'blocked'}: {prefix}",
        as_json=as_json,
    )


@block.command()
@prefix_argument
@service_option
@admin_option
@json_option
def remove(*, prefix: str, service: str | None, admin: str | None, as_json: bool) -> None:
    """Take out the rule for PREFIX that was added here."""
    request = DoorRequest(action=DoorAction.REMOVE, prefix=prefix, service=service)
    _ask(admin, request, f"removed: {prefix}", as_json=as_json)


@block.command("list")
@admin_option
@json_option
def list_rules(*, admin: str | None, as_json: bool) -> None:
    """Show the rules in force, those of the configuration too, and which tiers keep to them."""
    answer = AdminClient.of(admin).get("/admin/door", DoorAnswer)
    if as_json:
        echo_json(answer)
        return
    paint.console().print(_rule_table(answer))
    _echo_keepers(answer)


def _ask(admin: str | None, request: DoorRequest, done: str, *, as_json: bool) -> None:
    answer = AdminClient.of(admin).post("/admin/door", DoorAnswer, body=request)
    if as_json:
        echo_json(answer)
        return
    click.echo(done + (f" to service {request.service}" if request.service else ""))
    _echo_keepers(answer)


def _echo_keepers(answer: DoorAnswer) -> None:
    kept = ", ".join(answer.kept_by) or "none of the tiers that run; the rules wait for one that does"
    click.echo(f"kept by: {paint.cell(kept)}")
    if answer.not_kept_by:
        click.echo(f"not kept by: {paint.cell(', '.join(answer.not_kept_by))}")


def _rule_table(answer: DoorAnswer) -> Table:
    result = paint.table("Front door", "prefix", "door", "service", "from", "ends in")
    for rule in answer.rules:
        ends = "" if rule.ends_in_s is None else f"{rule.ends_in_s:.0f} s"
        result.add_row(
            paint.cell(rule.prefix),
            paint.cell(rule.door.value),
            paint.cell(rule.service or "all"),
            paint.cell(rule.origin.value),
            paint.cell(ends),
        )
    return result
