"""What one measurement gave: figures, and the CPU time behind them. Pure values; the JSON holds them as they are."""

from __future__ import annotations

import attrs

DISTURBED = 0.1
"""What strangers may use, as a share of one CPU, before a turn counts as disturbed."""


@attrs.frozen(kw_only=True)
class CpuShare:
    """Who used the CPUs while a figure was measured; all shares of the wall time, 1.0 is one CPU.

    Args:
        worker_run: What the busiest thread of the proxy ran.
        worker_wait: How long that thread was runnable, but something else had its CPU.
        proxy_run: What all threads of the proxy ran together.
        proxy_wait: How long they were runnable without a CPU, together.
        proxy_cpu: How busy the CPU was that the proxy alone is pinned to, whoever used it.
        generator_cpus: How busy the CPUs of client and server were, on average.
        strangers: What processes that do not belong to the run used, on all CPUs together.
    """

    worker_run: float = 0.0
    worker_wait: float = 0.0
    proxy_run: float = 0.0
    proxy_wait: float = 0.0
    proxy_cpu: float = 0.0
    generator_cpus: float = 0.0
    strangers: float = 0.0

    @property
    def disturbed(self) -> bool:
        """Whether strangers used so much that the figure tells about them too."""
        return self.strangers > DISTURBED

    @property
    def demand(self) -> float:
        """The share of the time in which the worker had work: it ran, or waited for its CPU."""
        return self.worker_run + self.worker_wait

    def spread_over(self, workers: int) -> CpuShare:
        """Return it with a worker's times as those of all threads, divided by the number of workers.

        For proxies that move work from thread to thread. Where two threads waited at once, a worker waited once.
        """
        run = self.proxy_run / workers
        wait = min(self.proxy_wait / workers, max(0.0, 1.0 - run))
        return attrs.evolve(self, worker_run=run, worker_wait=wait)


@attrs.frozen(kw_only=True)
class Measured:
    """What a workload gives back.

    Args:
        values: Figures by the metric's key.
        cpu: Who used the CPUs meanwhile; None where a workload does not ask.
        command: The generator's command line.
        notes: What else belongs to the figures, by name, as the number of idle connections.
    """

    values: dict[str, float]
    cpu: CpuShare | None
    command: str
    notes: dict[str, float] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Reading:
    """One turn of one peer in one round: what it measured, or why it failed."""

    round: int
    workload: str
    peer: str
    measured: Measured | None = None
    failure: str | None = None


@attrs.frozen(kw_only=True)
class Gap:
    """A peer that is not in the run, or not in one workload, and why.

    Args:
        peer: Which.
        workload: The workload that is left out; None: all of them.
        reason: What is missing.
        fix: The command that brings it, if there is one.
    """

    peer: str
    reason: str
    workload: str | None = None
    fix: str | None = None

    def __str__(self) -> str:
        where = f" ({self.workload})" if self.workload else ""
        fix = f" - fix: {self.fix}" if self.fix else ""
        return f"{self.peer}{where}: {self.reason}{fix}"
