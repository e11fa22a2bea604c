"""``marchproxy explain``: why a service is where it is, what a request would meet, and what became of one."""

from __future__ import annotations

import time
from pathlib import Path

import click

from marchproxy_core.admin.requests import RequestAnswer
from marchproxy_core.cli import looking, paint
from marchproxy_core.cli.client import AdminClient
from marchproxy_core.cli.looking import explain_service
from marchproxy_core.cli.options import admin_option, echo_json, json_option
from marchproxy_core.cli.telling import tell_request
from marchproxy_core.explaining.asked import asked_of
from marchproxy_core.explaining.requests import explain_request
from marchproxy_core.services import Endpoint

_WITH_VALUE = frozenset({"--config", "--admin", "--listen", "-H", "--header"})
_HELP = frozenset({"-h", "--help"})
_SERVICE = "service"
REFUSED = 1


class _Explain(click.Group):
    """Services by their names, and two commands beside them.

    ``explain request`` alone is about a service of that name, as it was before there was such a command.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Have a command that is named run, and the one about services in all other cases."""
        place = self._place_of_command(args)
        if place is not None:
            args = [args[place], *args[:place], *args[place + 1 :]]
        elif not _HELP & set(args):
            args = [_SERVICE, *args]
        return super().parse_args(ctx, args)

    def _place_of_command(self, args: list[str]) -> int | None:
        words = [
            place
            for place, word in enumerate(args)
            if not word.startswith("-") and not (place and args[place - 1] in _WITH_VALUE)
        ]
        if not words or args[words[0]] not in self.commands or args[words[0]] == _SERVICE:
            return None
        return words[0] if len(words) > 1 or _HELP & set(args) else None


@click.group(cls=_Explain)
def explain() -> None:
    """Say which tier carries each service and why: explain [SERVICE] [--config FILE] [--admin ADDRESS] [--json].

    Asks the running daemon; with --config, decides anew from that file and this host, without a daemon. The commands
    below are about requests.
    """


explain.add_command(explain_service)


def _listener(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    try:
        return None if value is None else str(Endpoint.parse(value))
    except ValueError as error:
        raise click.BadParameter(f"got {value!r}, {error}", ctx, param) from None


@explain.command("request")
@click.argument("method")
@click.argument("url")
@click.option(
    "-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header; repeatable."
)
@click.option(
    "--listen",
    callback=_listener,
    metavar="IP:PORT",
    help="The listener; default: by the URL's scheme and port.",
)
@click.option(
    "--config",
    "config_path",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The YAML file.",
)
@json_option
def explain_one(
    *, method: str, url: str, headers: tuple[str, ...], listen: str | None, config_path: Path, as_json: bool
) -> None:
    """Say what a request would meet: listener, route, tier, token, limits, cache, backends.

    Decides from the file and this host, without a daemon and without asking anybody. The exit status is 1 where
    no backend would be asked.
    """
    try:
        asked = asked_of(method, url, headers)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    config, plan, _ = looking.planned(config_path)
    explained = explain_request(asked, config, plan, listen=listen, now_s=time.time())
    if as_json:
        echo_json(explained)
    else:
        screen = paint.console()
        screen.print(paint.cell(f"{explained.method} {explained.url}", "bold"))
        for one in explained.decisions:
            is_last = one is explained.decisions[-1]
            screen.print(paint.decision(one, is_refused=is_last and not explained.asks_backend))
        screen.print(paint.cell(explained.outcome, "bold green" if explained.asks_backend else "bold red"))
    if not explained.asks_backend:
        click.get_current_context().exit(REFUSED)


@explain.command("id")
@click.argument("request_id", metavar="REQUEST_ID")
@admin_option
@json_option
def explain_id(*, request_id: str, admin: str | None, as_json: bool) -> None:
    """Say what became of a request, by the X-Request-Id of its answer.

    Each worker of the daemon remembers at least its last 4,096 requests.
    """
    if not (request_id.isascii() and request_id.isalnum()):
        raise click.BadParameter(f"got {request_id!r}, want letters and digits", param_hint="REQUEST_ID")
    answer = AdminClient.of(admin).get(f"/admin/requests/{request_id}", RequestAnswer)
    if as_json:
        echo_json(answer)
        return
    screen = paint.console()
    for line in tell_request(answer):
        screen.print(paint.cell(line))
