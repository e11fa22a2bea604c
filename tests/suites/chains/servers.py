"""The backends of the chains: how each of the real servers is configured and started."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import attrs

from tests.suites.chains.telling import WHERE

TREE = Path(__file__).parents[3]
_APPS = "tests.suites.chains.apps"
_MODULES = ("mpm_event", "authz_core", "proxy", "proxy_http", "proxy_scgi", "env")


@attrs.frozen
class Place:
    """Where a backend lives."""

    directory: Path
    port: int
    inner: int
    """Another port."""
    scgi: int
    """The port of the application that speaks SCGI."""
    told: Path


@attrs.frozen
class Backend:
    """A server and how it is started."""

    name: str
    command: Callable[[Place], list[str]]
    package: str
    """What brings it."""


def _write(place: Place, text: str) -> str:
    path = place.directory / "server.conf"
    path.write_text(text)
    return str(path)


def _nginx(place: Place) -> list[str]:
    text = f"""
daemon off;
worker_processes 1;
pid {place.directory}/pid;
error_log stderr error;
events {{ worker_connections 64; }}
http {{
    access_log off;
    keepalive_requests 100000;
    client_body_temp_path {place.directory}/body;
    proxy_temp_path {place.directory}/proxy;
    fastcgi_temp_path {place.directory}/fastcgi;
    uwsgi_temp_path {place.directory}/uwsgi;
    scgi_temp_path {place.directory}/scgi;
    large_client_header_buffers 4 32k;
    server {{
        listen 127.0.0.1:{place.port};
        location / {{
            include /etc/nginx/scgi_params;
            scgi_pass 127.0.0.1:{place.scgi};
        }}
    }}
}}
"""
    return ["nginx", "-c", _write(place, text), "-p", str(place.directory), "-e", "stderr"]


def _apache(place: Place) -> list[str]:
    modules = "\n".join(
        f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so" for name in _MODULES
    )
    text = f"""
{modules}
ServerName a.test
TraceEnable off
ServerRoot {place.directory}
DefaultRuntimeDir {place.directory}
PidFile {place.directory}/pid
ErrorLog {place.directory}/error.log
User www-data
Group www-data
Listen 127.0.0.1:{place.port}
Listen 127.0.0.1:{place.inner}
StartServers 1
ServerLimit 1
ThreadsPerChild 8
MaxRequestWorkers 8
MaxKeepAliveRequests 0
KeepAliveTimeout 60
LimitRequestLine 32000
LimitRequestFieldSize 32000
<Location "/">
    Require all granted
</Location>
# SCGI takes no chunks and can do without a length, so a first Apache sends a second one what it has read with a length.
<VirtualHost 127.0.0.1:{place.port}>
    AllowEncodedSlashes NoDecode
    MergeSlashes Off
    ProxyPreserveHost On
    SetEnv proxy-sendcl 1
    ProxyPass "/" "http://127.0.0.1:{place.inner}/" nocanon
</VirtualHost>
<VirtualHost 127.0.0.1:{place.inner}>
    AllowEncodedSlashes NoDecode
    MergeSlashes Off
    SetEnv ap_trust_cgilike_cl 1
    ProxyPass "/" "scgi://127.0.0.1:{place.scgi}/" nocanon
</VirtualHost>
"""
    return ["apache2", "-DFOREGROUND", "-f", _write(place, text)]


def _lighttpd(place: Place) -> list[str]:
    text = f"""
server.modules = ( "mod_scgi" )
server.document-root = "{place.directory}"
server.bind = "127.0.0.1"
server.port = {place.port}
server.errorlog = "{place.directory}/error.log"
server.max-keep-alive-requests = 100000
server.max-keep-alive-idle = 60
server.max-request-field-size = 32000
scgi.server = ( "/" => (( "host" => "127.0.0.1", "port" => {place.scgi},
    "check-local" => "disable", "fix-root-scriptname" => "enable" )) )
"""
    return ["lighttpd", "-D", "-f", _write(place, text)]


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _gunicorn(place: Place) -> list[str]:
    bind = f"127.0.0.1:{place.port}"
    keeps = ["--worker-class", "gthread", "--threads", "4", "--keep-alive", "60", "--limit-request-line", "0"]
    return _python("gunicorn", "--bind", bind, *keeps, "--log-level", "error", f"{_APPS}:wsgi")


def _waitress(place: Place) -> list[str]:
    return _python("waitress", f"--listen=127.0.0.1:{place.port}", "--threads=4", f"{_APPS}:wsgi")


def _uvicorn(place: Place) -> list[str]:
    keeps = ["--http", "httptools", "--lifespan", "off", "--timeout-keep-alive", "60"]
    return _python("uvicorn", "--port", str(place.port), *keeps, "--log-level", "error", f"{_APPS}:asgi")


def _hypercorn(place: Place) -> list[str]:
    return _python("hypercorn", "--bind", f"127.0.0.1:{place.port}", "--keep-alive", "60", f"{_APPS}:asgi")


BACKENDS = (
    Backend("nginx", _nginx, "nginx-light"),
    Backend("apache2", _apache, "apache2-bin"),
    Backend("lighttpd", _lighttpd, "lighttpd"),
    Backend("gunicorn", _gunicorn, "gunicorn"),
    Backend("uvicorn", _uvicorn, "uvicorn"),
    Backend("hypercorn", _hypercorn, "hypercorn"),
    Backend("waitress", _waitress, "waitress"),
)


def environ_at(place: Place) -> dict[str, str]:
    """Return a backend's environment."""
    return os.environ | {WHERE: str(place.told), "PYTHONPATH": str(TREE)}
