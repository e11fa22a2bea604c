"""``marchproxy purge``: have a running daemon forget what it has cached."""

from __future__ import annotations

import click

from marchproxy_core.admin.requests import PurgeAnswer, PurgeRequest
from marchproxy_core.cli import paint
from marchproxy_core.cli.client import AdminClient
from marchproxy_core.cli.options import admin_option, echo_json, json_option
from marchproxy_core.questions import read_prefix, read_url

INCOMPLETE = 1


@click.command()
@click.argument("service")
@click.option("--url", help="One URL with all its variants, as https://example.com/path?query.")
@click.option("--prefix", help="All whose paths begin so: /static/, or example.com/static/ of one host.")
@admin_option
@json_option
def purge(*, service: str, url: str | None, prefix: str | None, admin: str | None, as_json: bool) -> None:
    """Forget what is cached for SERVICE: one URL, all below a prefix, or everything.

    The exit status is 1 where a worker did not answer, whose cache may still have it.
    """
    if url is not None and prefix is not None:
        raise click.UsageError("want --url or --prefix, or neither to forget everything")
    try:
        if url is not None:
            read_url(url)
        if prefix is not None:
            read_prefix(prefix)
    except ValueError as error:
        got, hint = (url, "--url") if url is not None else (prefix, "--prefix")
        raise click.BadParameter(f"got {got!r}, want {error}", param_hint=hint) from None
    request = PurgeRequest(service=service, url=url, prefix=prefix)
    answer = AdminClient.of(admin).post("/admin/cache/purge", PurgeAnswer, body=request)
    if as_json:
        echo_json(answer)
    else:
        count = answer.forgotten
        click.echo(f"forgotten: {count} response{'' if count == 1 else 's'} of {paint.cell(service)}")
        if answer.silent_workers:
            click.echo(f"workers that did not answer: {answer.silent_workers}; ask again", err=True)
    if answer.silent_workers:
        click.get_current_context().exit(INCOMPLETE)
