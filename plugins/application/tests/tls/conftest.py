"""Handshakes in memory."""

import hashlib
import ssl

import attrs
import pytest
from cryptography.hazmat.primitives import serialization

NOW_S = 1_600_000_000.0
"""In the past, as OpenSSL sees it: what has expired by then has expired."""


@attrs.define
class Shaken:
    """Both sides of a finished or failed handshake."""

    client: ssl.SSLObject
    server: ssl.SSLObject
    errors: dict

    @property
    def names(self):
        return [name for _, name in self.client.getpeercert()["subjectAltName"]]

    @property
    def fingerprint(self):
        return hashlib.sha256(self.client.getpeercert(binary_form=True)).hexdigest()


def key_with_password(pem, password):
    key = serialization.load_pem_private_key(pem, None)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password),
    )


def handshake(client_context, server_context, name, *, session=None):
    """Shake hands through memory and send one byte each way; what either side raises is kept."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    from_client, from_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_context.check_hostname = False  # which certificate was given is what is asked
    client = client_context.wrap_bio(to_client, from_client, server_hostname=name, session=session)
    server = server_context.wrap_bio(to_server, from_server, server_side=True)
    errors = {}

    def step(side, work):
        try:
            if side not in errors:
                return work()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            errors[side] = error
        return None

    for _ in range(4):
        step("client", client.do_handshake)
        to_server.write(from_client.read())
        step("server", server.do_handshake)
        to_client.write(from_server.read())
    if not errors:
        server.write(b"x")
        to_client.write(from_server.read())
        step("client", lambda: client.read(1))
    return Shaken(client, server, errors)


@pytest.fixture
def shake():
    return handshake


@pytest.fixture
def encrypted():
    return key_with_password


@pytest.fixture
def now_s():
    """A time at which certificates that are issued without saying more are valid."""
    return NOW_S
