"""``marchproxy logs``: reads JSON lines from files or standard input, filters them, and shows them to people."""

from __future__ import annotations

import json
import sys
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, final

import attrs
import click
import trio
from rich.console import Console
from rich.text import Text

from marchproxy_core.cli.log_files import follow_lines, read_lines
from marchproxy_core.cli.log_lines import Entry, Line, LogFilter, parse, parse_moment
from marchproxy_core.cli.paint import console
from marchproxy_core.logs import LEVELS, escape

if TYPE_CHECKING:
    from collections.abc import Iterable

_LEVEL_STYLES = {"debug": "dim", "info": "green", "warning": "yellow", "error": "red", "critical": "bold red"}
_BLOCK_KEYS = ("exception", "stack")


def _moment(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    try:
        return None if value is None else parse_moment(value, datetime.now(UTC))
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


@click.command("logs")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.option("--level", type=click.Choice(LEVELS), help="This level and the more urgent ones.")
@click.option("--event", metavar="PATTERN", help="Events that match, as 'tier.*'.")
@click.option("--tier", help="Events of one tier.")
@click.option("--service", help="Events of one service.")
@click.option(
    "--since",
    metavar="TIME",
    callback=_moment,
    help="From then on: ISO 8601 (UTC), or how long ago: 10m, 2h, 1d.",
)
@click.option("--until", metavar="TIME", callback=_moment, help="Up to then.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what is added; Ctrl-C ends it.")
@click.option("--json", "as_json", is_flag=True, help="Pass the matching lines through as they are.")
def logs(
    *,
    files: tuple[Path, ...],
    level: str | None,
    event: str | None,
    tier: str | None,
    service: str | None,
    since: datetime | None,
    until: datetime | None,
    follow: bool,
    as_json: bool,
) -> None:
    """Show log lines from FILES, or from standard input."""
    wanted = LogFilter(level=level, event=event, tier=tier, service=service, since=since, until=until)
    shower = Shower(wanted=wanted, as_json=as_json, console=console())
    paths = tuple(path for path in files if str(path) != "-")
    try:
        if follow and paths:
            trio.run(_follow_all, paths, shower)
        else:
            for path in files or (Path("-"),):
                _show_file(path, shower)
    finally:
        shower.tell_foreign()


def _show_file(path: Path, shower: Shower) -> None:
    if str(path) == "-":
        _show_all(read_lines(sys.stdin.buffer), shower)
        return
    with path.open("rb") as stream:
        _show_all(read_lines(stream), shower)


def _show_all(lines: Iterable[Line], shower: Shower) -> None:
    for line in lines:
        shower.show(line)


async def _follow_all(paths: tuple[Path, ...], shower: Shower) -> None:
    async def follow(path: Path) -> None:
        async with aclosing(follow_lines(path)) as lines:
            async for line in lines:
                shower.show(line)

    async with trio.open_nursery() as nursery:
        for path in paths:
            nursery.start_soon(follow, path)


@final
@attrs.define(eq=False, kw_only=True)
class Shower:
    """Writes the lines that pass, and counts those that are not JSON."""

    wanted: LogFilter
    as_json: bool
    console: Console
    foreign: int = 0

    def show(self, line: Line) -> None:
        """Write the line if it passes."""
        entry = parse(line)
        if entry is None:
            self._show_foreign(line)
        elif self.wanted.passes(entry):
            if self.as_json:
                click.echo(_as_safe_json(line.text))
            else:
                self.console.print(paint(entry), soft_wrap=True)

    def tell_foreign(self) -> None:
        """Say on standard error how many lines were not JSON, if any."""
        if self.foreign:
            click.echo(f"{self.foreign} lines were not JSON log lines", err=True)

    def _show_foreign(self, line: Line) -> None:
        if not line.text and not line.cut_bytes:
            return
        self.foreign += 1
        if self.as_json or not self.wanted.passes_foreign:
            return
        text = Text("not JSON | ", style="magenta")
        text.append(escape(line.text, keep="\t"), "default")
        if line.cut_bytes:
            text.append(f" … and {line.cut_bytes} bytes more", "magenta")
        self.console.print(text, soft_wrap=True)


def _as_safe_json(text: str) -> str:
    """Return the line as it is; one that would reach the terminal with raw controls is written anew."""
    return text if text.isascii() and escape(text) == text else json.dumps(json.loads(text))


def paint(entry: Entry) -> Text:
    """Return an entry for people: time, level, event, then the keys; a traceback on lines of its own."""
    moment = f"{entry.timestamp.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3] if entry.timestamp else "-" * 23
    text = Text(f"{moment} ", style="")
    text.append(f"{escape(entry.level):<8} ", _LEVEL_STYLES.get(entry.level, ""))
    text.append(f"{escape(entry.event):<24}", "bold")
    for key, value in entry.keys.items():
        if key not in _BLOCK_KEYS:
            text.append(f" {escape(key)}=", "cyan")
            text.append(_value(value))
    for key in _BLOCK_KEYS:
        if key in entry.keys:
            block = escape(str(entry.keys[key]), keep="\n\t")
            text.append("\n    " + block.replace("\n", "\n    "), "dim")
    return text


def _value(value: object) -> str:
    if not isinstance(value, str):
        return escape(json.dumps(value, ensure_ascii=False))
    return escape(value) if value and not set(value) & set(" \t\"'=") else json_quoted(value)


def json_quoted(value: str) -> str:
    """Return the text in double quotes, controls escaped."""
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escape(quoted)}"'
