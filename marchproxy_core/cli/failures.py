"""How errors reach the person at the terminal: one line each on standard error, and an exit status.

The statuses are those of :mod:`marchproxy_core.errors`, and are listed in docs/cli.md. A traceback is shown only
where ``PROXY_DEBUG`` asks for it.
"""

from __future__ import annotations

import errno
import os
import traceback
from typing import Any

import attrs
import click

from marchproxy_core.errors import MarchProxyError
from marchproxy_core.logs import escape

INTERRUPTED = 130


@attrs.frozen
class Failure:
    """Errors as a person reads them."""

    lines: tuple[str, ...]
    exit_status: int

    def show(self) -> None:
        """Write a line for each error."""
        for line in self.lines:
            click.echo(f"error: {escape(line)}", err=True)


class Commands(click.Group):
    """A group whose commands may raise any error of ours."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for, and turn what it raises into lines and a status."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - the last stop before the terminal
            leaves = _leaves(error)
            for leaf in leaves:
                if isinstance(leaf, KeyboardInterrupt):
                    ctx.exit(INTERRUPTED)
                if isinstance(leaf, SystemExit) or (isinstance(leaf, OSError) and leaf.errno == errno.EPIPE):
                    raise leaf from None  # click ends quietly: whoever read us has read enough
            if _wants_traceback():
                click.echo("".join(traceback.format_exception(error)), err=True)
            failed = failure(leaves)
            failed.show()
            ctx.exit(failed.exit_status)


def failure(leaves: list[BaseException]) -> Failure:
    """Say in lines what went wrong; the exit status is that of the first error of ours, if all are ours."""
    ours = [leaf for leaf in leaves if isinstance(leaf, MarchProxyError)]
    lines = [line for leaf in ours for line in str(leaf).splitlines()]
    if len(ours) == len(leaves):
        return Failure(tuple(dict.fromkeys(lines)), ours[0].exit_status)
    lines += [_foreign(leaf) for leaf in leaves if not isinstance(leaf, MarchProxyError)]
    return Failure(tuple(dict.fromkeys(lines)), MarchProxyError.exit_status)


def _foreign(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return (
        f"unexpected: {what} - fix: this is a bug; report it with the traceback that PROXY_DEBUG=true shows"
    )


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for one in error.exceptions for leaf in _leaves(one)]
    return [error]


def _wants_traceback() -> bool:
    return os.environ.get("PROXY_DEBUG", "").strip().lower() in ("1", "true", "yes", "on")
