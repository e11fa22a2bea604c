"""A page behind the proxy, over TLS."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.suites.browser.keys import make_keys
from tests.suites.processes import free_ports, proxy, running

_TREE = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    """The certificate of the page's server."""
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def port(tmp_path_factory, keys):
    """The port where the proxy serves the page over TLS."""
    directory = tmp_path_factory.mktemp("page")
    back, port = free_ports(2)
    service = (
        f"  - {{name: page, listen: 127.0.0.1:{port}, http: true, websocket: true, backends: [127.0.0.1:{back}],"
        f" tls_enabled: true, tls_certificate: {keys.chain}, tls_key: {keys.key}}}\n"
    )
    bind = ["-k", "trio", "--bind", f"127.0.0.1:{back}"]
    command = [sys.executable, "-m", "hypercorn", *bind, "tests.suites.browser.page_app:app"]
    with (
        running(command, directory, ports=[back], environ=os.environ | {"PYTHONPATH": str(_TREE)}),
        proxy(directory / "proxy", service, ports=[port]),
    ):
        yield port
