"""Starting programs in a laboratory, and what they say when they fail."""

from __future__ import annotations

import subprocess
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import trio

from bench import admin
from marchproxy_core.errors import MarchProxyError
from marchproxy_core.testing import Namespace, until

_PATIENCE_S = 30.0


class TurnFailed(MarchProxyError):
    """A program of a turn did not start, failed or hung; says which, and what it printed."""


def flat(group: BaseExceptionGroup[BaseException]) -> list[str]:
    """Return what all the errors of a group say, those of groups within it too."""
    said: list[str] = []
    for error in group.exceptions:
        said.extend(flat(error) if isinstance(error, BaseExceptionGroup) else [str(error)])
    return said


def pinned(argv: Sequence[str], cpus: frozenset[int]) -> list[str]:
    """Return a command line that runs ``argv`` on some CPUs only; the pid stays the program's own."""
    return ["taskset", "--cpu-list", ",".join(map(str, sorted(cpus))), *argv]


async def start_marchproxy(namespace: Namespace, argv: Sequence[str], log: Path, tier: str) -> trio.Process:
    """Start the daemon, and wait until its one service runs on a tier that has no listener; the laboratory ends it.

    Args:
        namespace: The proxy's.
        argv: Its command line; the configuration and the admin socket are in the log's directory.
        log: Where its output goes.
        tier: A tier in the kernel.

    Raises:
        TurnFailed: It did not come up.
        WrongTier: The service runs elsewhere.
    """
    process = await launch(namespace, argv, log)
    runs = partial(trio.to_thread.run_sync, admin.runs_on, log.parent, tier)
    await until_ready(process, "marchproxy", runs, f"the service on tier {tier}")
    return process


async def launch(namespace: Namespace, argv: Sequence[str], log: Path) -> trio.Process:
    """Start a program with its output in a file; the laboratory ends it."""
    with log.open("wb") as output:
        return await namespace.start(argv, stdout=output.fileno(), stderr=subprocess.STDOUT)


async def until_ready(
    process: trio.Process, program: str, ready: Callable[[], Awaitable[bool]], what: str
) -> None:
    """Wait until a program is ready.

    Args:
        process: Its.
        program: What it is called.
        ready: Tells whether it is.
        what: What one waits for.

    Raises:
        TurnFailed: It ended before, or took more than half a minute.
    """

    async def is_ready() -> bool:
        if process.poll() is not None:
            raise TurnFailed(f"{program} ended with {process.returncode} before it listened")
        return await ready()

    try:
        await until(is_ready, deadline_s=_PATIENCE_S, what=what)
    except TimeoutError as error:
        raise TurnFailed(str(error)) from error


def tail(log: Path) -> str:
    """Return the end of what a program printed into a file."""
    return excerpt(log.read_bytes())


def excerpt(output: bytes) -> str:
    """Return the end of what a program printed, on one line."""
    return " ".join(output.decode(errors="replace").split())[-400:]
