"""The version of this distribution."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as _installed_version


def version() -> str:
    """Return the installed version, ``unknown`` in a tree that was never installed."""
    try:
        return _installed_version("marchproxy-core")
    except PackageNotFoundError:
        return "unknown"
