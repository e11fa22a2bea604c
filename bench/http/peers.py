"""The peers of the HTTP bench, as data."""

from __future__ import annotations

from functools import partial

from bench.http import configurations, envoy, programs
from bench.http.configurations import ACCESS_LOG, PEER_LOG
from bench.http.shape import TWO_WORKERS
from bench.peers import (
    Peer,
    kernel_version,
    nothing,
    prints_version,
    program_missing,
    tier_missing,
    tier_version,
)

OURS = "marchproxy-application"
DIRECT = "direct"


def _without(reason: str, *kinds: str) -> dict[str, str]:
    """Return the reason for each kind of traffic, with one worker and with two."""
    return {f"{kind}{workers}": reason for kind in kinds for workers in ("", TWO_WORKERS)}


_NO_CACHE = _without("it has no cache", "cached")
_UNFINISHED_CACHE = _without("its cache is, in its own words, work in progress", "cached")

PEERS = (
    Peer(
        name=OURS,
        title="MarchProxy application",
        tier="application",
        write=configurations.marchproxy,
        access_log=PEER_LOG,
        missing=tier_missing(OURS, "application"),
        version=tier_version("application"),
    ),
    Peer(
        name="haproxy",
        title="HAProxy",
        write=configurations.haproxy,
        access_log=PEER_LOG,
        missing=partial(programs.missing, "haproxy"),
        version=partial(programs.version, "haproxy"),
    ),
    Peer(
        name="nginx",
        title="nginx",
        write=configurations.nginx,
        access_log=ACCESS_LOG,
        missing=program_missing("nginx", "nginx", "nginx-light"),
        version=prints_version("nginx", "-v"),
    ),
    Peer(
        name="envoy",
        title="Envoy",
        write=envoy.configure,
        access_log=ACCESS_LOG,
        without=_UNFINISHED_CACHE,
        missing=partial(programs.missing, "envoy"),
        version=partial(programs.version, "envoy"),
    ),
    Peer(
        name="traefik",
        title="Traefik",
        write=configurations.traefik,
        access_log=ACCESS_LOG,
        without=_NO_CACHE,
        moves_work=True,
        missing=partial(programs.missing, "traefik"),
        version=partial(programs.version, "traefik"),
    ),
    Peer(
        name="caddy",
        title="Caddy",
        write=configurations.caddy,
        access_log=ACCESS_LOG,
        without=_NO_CACHE,
        moves_work=True,
        missing=partial(programs.missing, "caddy"),
        version=partial(programs.version, "caddy"),
    ),
    Peer(
        name=DIRECT,
        title="no proxy (generator's limit)",
        kind="nothing",
        write=nothing,
        missing=lambda: None,
        version=kernel_version,
    ),
)
