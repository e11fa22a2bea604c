"""Where this host has what compiles BPF programs: bcc's Python package, its library, the kernel's API headers.

Looks at files only; imports nothing of bcc. Virtual environments do not see what Debian installs for its own
Python, so that the usual places of the distributions are looked at as well.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

import attrs

_SYSTEM = Path("/usr")
_PACKAGES = ("lib/python3/dist-packages", "lib/python3*/site-packages", "local/lib/python3*/dist-packages")
_LIBRARIES = ("lib/*-linux-gnu*", "lib64", "lib", "local/lib", "local/lib64")
_LIBRARY = "libbcc.so.0"
_VERSION = re.compile(r"""__version__\s*=\s*['"]([^'"]+)""")
_VERSION_CODE = re.compile(r"LINUX_VERSION_CODE\s+(\d+)")


@attrs.frozen(kw_only=True)
class Toolchain:
    """What was found; None where nothing was."""

    bcc: Path | None
    """bcc's Python package: not the one of that name on PyPI, which is something else."""
    library: Path | None
    headers: Path | None
    """Directory with ``linux/bpf.h``."""
    machine_headers: Path | None
    """Directory ``asm`` that belongs to them."""

    @property
    def bcc_version(self) -> str:
        """As ``0.26.0``; empty when unknown."""
        return _found_in(self.bcc, "version.py", _VERSION)

    @property
    def headers_version(self) -> str:
        """The kernel's version code that the headers come from, as ``393417``; empty when unknown."""
        return _found_in(self.headers, "linux/version.h", _VERSION_CODE)


def find_toolchain(system: Path = _SYSTEM, python_path: Iterable[str] | None = None) -> Toolchain:
    """Look for the pieces.

    Args:
        system: Root of the distribution's files.
        python_path: Where to look for bcc first; the running Python's path by default.
    """
    packages = [Path(entry) for entry in (sys.path if python_path is None else python_path) if entry]
    packages += _directories(system, _PACKAGES)
    include = system / "include"
    machine = [*sorted(include.glob("*-linux-gnu*/asm")), include / "asm"]
    return Toolchain(
        bcc=_first(path / "bcc" for path in packages if (path / "bcc/libbcc.py").is_file()),
        library=_first(
            path / _LIBRARY for path in _directories(system, _LIBRARIES) if (path / _LIBRARY).is_file()
        ),
        headers=include if (include / "linux/bpf.h").is_file() else None,
        machine_headers=_first(path for path in machine if (path / "types.h").is_file()),
    )


def _directories(system: Path, patterns: Iterable[str]) -> list[Path]:
    return [path for pattern in patterns for path in sorted(system.glob(pattern))]


def _first(paths: Iterable[Path]) -> Path | None:
    return next(iter(paths), None)


def _found_in(directory: Path | None, name: str, pattern: re.Pattern[str]) -> str:
    if directory is None:
        return ""
    try:
        match = pattern.search((directory / name).read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""
    return match[1] if match else ""
