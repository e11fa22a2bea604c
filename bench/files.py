"""The files that a run leaves behind, whatever it measured: JSON, a page of Markdown, a plot. Blocks."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import attrs

_ROOT = Path(__file__).parents[1]


def describe_host() -> dict[str, object]:
    """Return what the figures depend on but for what is measured."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return {
        "kernel": platform.release(),
        "cpu": f"{os.cpu_count()} x {model}",
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        "python": platform.python_version(),
        "commit": commit.stdout.strip(),
    }


@attrs.frozen(kw_only=True)
class Occasion:
    """When and how long a run measured, and where.

    Args:
        rounds: Turns of each.
        seconds: How long a turn counts.
        taken: When the run ended.
        host: What the figures depend on, as :func:`describe_host` returns it.
    """

    rounds: int
    seconds: float
    taken: datetime = attrs.field(factory=lambda: datetime.now(UTC))
    host: Mapping[str, object] = attrs.field(factory=describe_host)

    @property
    def caption(self) -> str:
        """One line that says which run it is."""
        how = f"{self.rounds} rounds of {self.seconds:g} s"
        return f"{self.taken:%Y-%m-%d}, {how}, {self.host['cpu']}, Linux {self.host['kernel']}"

    def as_json(self) -> dict[str, object]:
        """Return it as plain values."""
        return {
            "taken": self.taken.isoformat(timespec="seconds"),
            "rounds": self.rounds,
            "seconds": self.seconds,
            "host": dict(self.host),
        }


def page(title: str, occasion: Occasion, remarks: Sequence[str], tables: str) -> str:
    """Return a page of Markdown: which run it is, what a reader must know, the tables."""
    lines = [f"# {title}", ""]
    lines += [f"{occasion.caption}. Written by `make bench`; how to read it: [README](../README.md).", ""]
    lines += [f"- {remark}" for remark in remarks]
    return "\n".join([*lines, "", tables, ""])


def write(directory: Path, name: str, *, json_: Mapping[str, object], md: str, svg: str) -> list[Path]:
    """Write ``name.json``, ``name.md`` and ``name.svg`` into a directory; return their paths.

    Where the checkout lies is taken out: results are for others to read.
    """
    contents = {"json": json.dumps(json_, indent=1, ensure_ascii=False) + "\n", "md": md, "svg": svg}
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for ending, content in contents.items():
        path = directory / f"{name}.{ending}"
        path.write_text(content.replace(str(_ROOT), "."), encoding="utf-8")
        paths.append(path)
    return paths
