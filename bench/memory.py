"""Memory of a proxy before and while many connections idle through it.

PSS, the proportional share of what processes map, summed over the process tree: it counts what workers share once.
What the kernel holds for the connections is apart from it, as growth of the whole machine's slabs: it has the sockets
of client, proxy and server alike, so compare rows, and subtract the one without a proxy.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from bench import cpu
from bench.readings import Measured
from bench.starting import TurnFailed, pinned

if TYPE_CHECKING:
    from bench.stage import Stage

_READY_S = 60.0
_SETTLE_S = 1.0


async def measure(stage: Stage, count: int, program: Sequence[str]) -> Measured:
    """Hold idle connections through the proxy and read its memory before and meanwhile.

    Args:
        stage: With a server that echoes.
        count: How many connections.
        program: The command line of ``idle_traffic.py``, without arguments.

    Raises:
        TurnFailed: Not all connections came through.
    """
    await trio.sleep(_SETTLE_S)
    before_pss, before_slab = await _look(stage)
    argv = [*program, "hold", stage.target, str(stage.port), str(count)]
    process = await stage.generator.start(
        pinned(argv, stage.generator_cpus),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    await _ready(process)
    await trio.sleep(_SETTLE_S)
    pss, slab = await _look(stage)
    await process.stdin.aclose()
    await process.wait()
    values = {"kernel_idle_mib": (slab - before_slab) / 1024}
    if stage.proxy_pid is not None:
        values |= {
            "pss_unused_mib": before_pss / 1024,
            "pss_idle_mib": pss / 1024,
            "pss_connection_kib": (pss - before_pss) / count,
        }
    return Measured(values=values, cpu=None, command=" ".join(argv), notes={"connections": count})


async def _ready(process: trio.Process) -> None:
    assert process.stdout is not None
    assert process.stderr is not None
    with trio.move_on_after(_READY_S):
        if await process.stdout.receive_some() == b"ready\n":
            return
        raise TurnFailed(
            f"not all connections came through: {(await process.stderr.receive_some(600)).decode()}"
        )
    raise TurnFailed(f"not all connections came through within {_READY_S:g} s")


async def _look(stage: Stage) -> tuple[int, int]:
    return await trio.to_thread.run_sync(pss_kib, stage.proxy_pid), _slab_kib()


def pss_kib(root_pid: int | None) -> int:
    """Return what a process and all that descend from it map; 0 where there is none. Blocks.

    Raises:
        TurnFailed: One ended meanwhile.
    """
    if root_pid is None:
        return 0
    try:
        return sum(_field(Path(f"/proc/{pid}/smaps_rollup"), "Pss") for pid in cpu.descendants(root_pid))
    except (FileNotFoundError, ProcessLookupError) as error:
        raise TurnFailed("the peer, or a process of it, ended") from error


def _slab_kib() -> int:
    return _field(Path("/proc/meminfo"), "Slab")


def _field(file: Path, name: str) -> int:
    """Return a figure in KiB of a file of ``Name: 123 kB`` lines."""
    for line in file.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise TurnFailed(f"{file} has no {name}")
