"""Options that several commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from marchproxy_core.admin.schema import dump

if TYPE_CHECKING:
    import attrs

config_option = click.option(
    "--config", "config_path", type=click.Path(path_type=Path, dir_okay=False), help="The YAML file."
)
admin_option = click.option(
    "--admin",
    metavar="ADDRESS",
    help="Admin API of the daemon: HOST:PORT or unix:/path; default: ADMIN_LISTEN, else 127.0.0.1:8080.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON.")


def echo_json(value: attrs.AttrsInstance) -> None:
    """Write an answer as indented JSON; all but ASCII is escaped."""
    click.echo(json.dumps(json.loads(dump(value)), indent=2))
