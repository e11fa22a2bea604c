"""What an HTTP service is asked for, beyond passing requests on. Pure values; bench/configurations.py needs them."""

from __future__ import annotations

from pathlib import Path

import attrs

PLAIN_PORT = 8000
TLS_PORT = 8443
TWO_WORKERS = "_2"
"""Ends the names of workloads in which each proxy has two workers."""


@attrs.frozen(kw_only=True)
class Shape:
    """One HTTP service.

    Args:
        workers: How many workers or threads the proxy has.
        tls: Whether clients come with TLS 1.3, by HTTP/1.1 or HTTP/2 as they like.
        cache: Whether the proxy keeps answers, as they allow.
        websocket: Whether clients ask for WebSockets.
        handshakes: Whether each request comes with a handshake of TLS, which costs a server more than all the rest.
    """

    workers: int = 1
    tls: bool = False
    cache: bool = False
    websocket: bool = False
    handshakes: bool = False

    @property
    def port(self) -> int:
        """The port of clients; the backend has it too, so that a generator can talk to it without a proxy."""
        return TLS_PORT if self.tls else PLAIN_PORT

    @property
    def backend_port(self) -> int:
        """The port that the proxy connects to: backends speak HTTP/1.1 without TLS."""
        return PLAIN_PORT


@attrs.frozen
class Certificate:
    """Paths of PEM files."""

    certificate: Path
    key: Path

    @classmethod
    def below(cls, directory: Path) -> Certificate:
        """Return where a turn's certificate is; bench/http/servers.py makes it."""
        return cls(directory / "certificate.pem", directory / "key.pem")
