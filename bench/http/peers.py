"""The peers of the HTTP bench, as data."""

from __future__ import annotations

from functools import partial

from bench.http import configurations, envoy, programs
from bench.http.configurations import ACCESS_LOG, PEER_LOG
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
_NO_CACHE = {"cached": "it has no cache"}
_NO_HANDSHAKES = "its server would do the proxy's part of a handshake, on the generator's CPU"
_UNFINISHED_CACHE = {"cached": "its cache is, in its own words, work in progress"}


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
        without={"tls_full": _NO_HANDSHAKES, "tls_resumed": _NO_HANDSHAKES},
        missing=lambda: None,
        version=kernel_version,
    ),
)
