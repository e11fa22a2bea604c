"""The backends, and the certificate of the front. All that a server answers with is in memory or in the page cache."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.http.shape import PLAIN_PORT, TLS_PORT, Certificate
from bench.starting import TurnFailed, excerpt

PROGRAMS = Path(__file__).parents[1] / "programs"
SMALL = "0123456789" * 5
MEDIUM_BYTES = 10 * 1024
LARGE_BYTES = 1024 * 1024
SEEN = "cacheable.log"
"""Where the web server notes who asked for what may be cached."""


def web(directory: Path, *, workers: int = 1) -> list[str]:
    """Write the web server's configuration, its files and a certificate; return its command line.

    It answers ``/small`` (50 bytes), ``/medium`` (10 KiB), ``/large`` (1 MiB), and ``/cacheable``, which is the small
    one with ``Cache-Control: max-age``; with TLS and HTTP/2 on the other port, for who comes without a proxy.
    """
    own = make_certificate(directory)
    pages = directory / "pages"
    pages.mkdir()
    (pages / "medium").write_bytes(b"x" * MEDIUM_BYTES)
    (pages / "large").write_bytes(b"x" * LARGE_BYTES)
    (directory / "web.conf").write_text(f"""\
daemon off;
user root;
worker_processes {workers};
pid {directory}/web.pid;
events {{ worker_connections 16000; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    open_file_cache max=10;
    keepalive_requests 1000000000;
    server {{
        listen {PLAIN_PORT} backlog=4096;
        listen {TLS_PORT} ssl http2 backlog=4096;
        http2_max_concurrent_streams 128;
        ssl_certificate {own.certificate};
        ssl_certificate_key {own.key};
        ssl_protocols TLSv1.3;
        root {pages};
        location = /small {{ return 200 "{SMALL}"; }}
        location = /cacheable {{
            access_log {directory}/{SEEN};
            add_header Cache-Control "public, max-age=3600";
            return 200 "{SMALL}";
        }}
    }}
}}
""")
    return [
        "nginx",
        "-p",
        str(directory),
        "-e",
        str(directory / "web.log"),
        "-c",
        str(directory / "web.conf"),
    ]


def sink(_directory: Path) -> list[str]:
    """Return the command line of a server that takes uploads and throws them away."""
    return [sys.executable, str(PROGRAMS / "http_sink.py"), str(PLAIN_PORT)]


def websocket(_directory: Path) -> list[str]:
    """Return the command line of a WebSocket server that echoes."""
    return [sys.executable, str(PROGRAMS / "websocket_traffic.py"), "serve", str(PLAIN_PORT)]


def make_certificate(directory: Path) -> Certificate:
    """Make a key on P-256 and a certificate that it signed itself. Blocks.

    Raises:
        TurnFailed: openssl could not.
    """
    own = Certificate.below(directory)
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    argv += ["-subj", "/CN=bench.example", "-addext", "subjectAltName=DNS:bench.example", "-days", "30"]
    argv += ["-out", str(own.certificate), "-keyout", str(own.key)]
    done = subprocess.run(argv, capture_output=True, check=False)
    if done.returncode != 0:
        raise TurnFailed(f"openssl ended with {done.returncode}: {excerpt(done.stderr)}")
    return own
