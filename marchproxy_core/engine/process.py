"""What the control process sets for itself before it runs anything: name, CPUs, open files, garbage collector.

Once, before the trio run, so that every thread that is started later has it too. Host facts are gathered before:
:attr:`HostFacts.cpus <marchproxy_core.host.HostFacts.cpus>` are those that the workers may have.
"""

from __future__ import annotations

import gc
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from marchproxy_core.config import SETTINGS, Config
from marchproxy_core.config.kinds import CpuList
from marchproxy_core.errors import ConfigError, ConfigProblem

log = structlog.get_logger()


def prepare_process(config: Config) -> None:
    """Put its name, ``ADMIN_CPU_AFFINITY``, ``GOGC`` and the highest limit of open files into effect for this process.

    Raises:
        ConfigError: ``ADMIN_CPU_AFFINITY`` or ``PROXY_CPU_AFFINITY`` names a CPU that the process cannot run on.
    """
    settings = config.settings
    _check_cpus(config)
    # For ps, pgrep, and who asks what holds a port. It is python3 where pip's script starts it through a shell,
    # since the path has a space or is too long for #!.
    Path("/proc/self/comm").write_text("marchproxy", encoding="ascii")
    if settings.admin_cpu_affinity:
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), settings.admin_cpu_affinity)
    # A proxy has two or more descriptors a connection; the soft limit is 1024 for programs that use select(2).
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if settings.gc_threshold is not None:
        gc.set_threshold(settings.gc_threshold)
    log.info(
        "process.prepared",
        cpus=CpuList().show(tuple(sorted(os.sched_getaffinity(0)))),
        open_files=hard,
        gc_threshold=gc.get_threshold()[0],
    )


def _check_cpus(config: Config) -> None:
    problems = []
    for variable in ("PROXY_CPU_AFFINITY", "ADMIN_CPU_AFFINITY"):
        cpus: tuple[int, ...] = getattr(config.settings, SETTINGS[variable].attribute)
        lacking = _lacking(cpus) if cpus else ()
        if lacking:
            may = CpuList().show(tuple(sorted(os.sched_getaffinity(0))))
            problems.append(
                ConfigProblem(
                    where=str(config.origins.get(variable, "default")),
                    what=variable,
                    got=f"{CpuList().show(lacking)}, which this process cannot run on",
                    want=f"CPUs of this host that its cpuset has; without the setting: {may}",
                )
            )
    if problems:
        raise ConfigError(tuple(problems))


def _lacking(cpus: tuple[int, ...]) -> tuple[int, ...]:
    """Return those that this thread cannot be put on.

    Tried, not looked up: the kernel leaves CPUs out in silence unless none is left, and CPUs kept from other
    programs by ``isolcpus`` are not in the present set but may be had.
    """
    with _affinity_as_before():
        try:
            os.sched_setaffinity(0, cpus)
        except OSError:
            return cpus
        return tuple(cpu for cpu in cpus if cpu not in os.sched_getaffinity(0))


@contextmanager
def _affinity_as_before() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
