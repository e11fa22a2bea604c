"""The tier template under another name, which fails when a test says so: its runner raises once a file is there."""

from __future__ import annotations

import os
from pathlib import Path

import trio

from marchproxy_core.hookspecs import hookimpl
from marchproxy_core.testing import until
from my_tier import plugin as template

BREAKER = Path(os.environ["BRITTLE_TIER_BREAKER"])

probe = template.probe
attach = template.attach
stats = template.stats


@hookimpl
def classify(service):
    """Take what the template takes, but for what is not its own."""
    return template.classify(service)


@hookimpl
def forward(attachment, services):
    """Relay until the file is there."""
    relay = template.forward(attachment, services)

    async def run(*, task_status):
        async with trio.open_nursery() as nursery:
            await nursery.start(relay)
            task_status.started()
            await until(BREAKER.exists, deadline_s=float("inf"))
            await trio.Path(BREAKER).unlink()
            raise RuntimeError("the test broke it")

    return run
