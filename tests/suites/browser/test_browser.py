"""A browser loads a page over TLS and HTTP/2 through the proxy, and has a WebSocket to the server behind it."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate

from marchproxy_core.testing.pytest_plugin import leave_out
from tests.suites.processes import free_ports, proxy, running

_BROWSER = "chromium-headless-shell"
_TREE = Path(__file__).parents[3]
_NAME = "page.test"
_LONGEST_S = 60


@pytest.fixture(scope="module")
def key_pin(tmp_path_factory):
    """A certificate's file, its key's, and what a browser is told to trust: the hash of that very key."""
    directory = tmp_path_factory.mktemp("keys")
    issued = trustme.CA().issue_cert(_NAME)
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    (directory / "chain.pem").write_bytes(chain)
    (directory / "key.pem").write_bytes(issued.private_key_pem.bytes())
    key = load_pem_x509_certificate(chain).public_key()
    digest = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    return directory / "chain.pem", directory / "key.pem", base64.b64encode(digest).decode()


@pytest.fixture(scope="module")
def address(tmp_path_factory, key_pin):
    """The port where the proxy serves the page over TLS."""
    directory = tmp_path_factory.mktemp("page")
    back, port = free_ports(2)
    chain, key, _ = key_pin
    server = [sys.executable, "-m", "hypercorn", "-k", "trio", "--bind", f"127.0.0.1:{back}"]
    service = (
        f"  - {{name: page, listen: 127.0.0.1:{port}, http: true, websocket: true, backends: [127.0.0.1:{back}],"
        f" tls_enabled: true, tls_certificate: {chain}, tls_key: {key}}}\n"
    )
    command = [*server, "tests.suites.browser.page_app:app"]
    with (
        running(command, directory, ports=[back], environ=os.environ | {"PYTHONPATH": str(_TREE)}),
        proxy(directory / "proxy", service, ports=[port]),
    ):
        yield port


def dumped(port: int, pin: str, directory: Path, *more: str) -> dict[str, str]:
    """Have the browser load the page; return what it tells in its list, by name."""
    if shutil.which(_BROWSER) is None:
        leave_out(f"no browser: install {_BROWSER}")
    done = subprocess.run(
        [
            _BROWSER,
            "--no-sandbox",  # Chromium has none for root
            "--disable-gpu",
            "--disable-dev-shm-usage",
            f"--user-data-dir={directory}",
            f"--host-resolver-rules=MAP {_NAME} 127.0.0.1",
            f"--ignore-certificate-errors-spki-list={pin}",
            *more,
            "--dump-dom",
            f"https://{_NAME}:{port}/?{directory.name}",
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=_LONGEST_S,
    )
    told = dict(re.findall(r'<li id="(\w+)">([^<]*)</li>', done.stdout))
    assert told, done.stdout + done.stderr
    return told


def test_a_page_with_a_websocket(address, key_pin, tmp_path):
    assert dumped(address, key_pin[2], tmp_path) == {
        "page": "h2",
        "socket": "via 2.0 marchproxy",
        "echo": "same",
        "close": "1000 true",
        "fetch": "200 60000",
    }


def test_the_same_without_http2(address, key_pin, tmp_path):
    assert dumped(address, key_pin[2], tmp_path, "--disable-http2") == {
        "page": "http/1.1",
        "socket": "via 1.1 marchproxy",
        "echo": "same",
        "close": "1000 true",
        "fetch": "200 60000",
    }
