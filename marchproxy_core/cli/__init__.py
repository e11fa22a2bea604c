"""The command line: ``marchproxy``. Only puts the commands together; each lives in a module of its own."""

from __future__ import annotations

import click

from marchproxy_core.cli.blocking import block
from marchproxy_core.cli.explaining import explain
from marchproxy_core.cli.failures import Commands
from marchproxy_core.cli.looking import check, plugins
from marchproxy_core.cli.purging import purge
from marchproxy_core.cli.running import drain, reload, run, status
from marchproxy_core.cli.show_logs import logs
from marchproxy_core.version import version

__all__ = ["main"]


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version(), prog_name="marchproxy")
def main() -> None:
    """Proxy TCP, UDP and HTTP services, each on the fastest tier that this host really has."""


for command in (run, check, explain, status, plugins, reload, drain, block, purge, logs):
    main.add_command(command)
