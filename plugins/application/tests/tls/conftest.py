"""Certificates made on the spot, and handshakes in memory."""

import hashlib
import ssl

import attrs
import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from marchproxy_core.services import Certificate

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


@attrs.define
class Workshop:
    """Issues certificates into a folder; ``file(name)`` overwrites, as renewals do."""

    folder: object
    ca: trustme.CA

    def issue(self, *names, file="cert", **options):
        issued = self.ca.issue_cert(*names, **options)
        pair = Certificate(certificate=str(self.folder / f"{file}.pem"), key=str(self.folder / f"{file}.key"))
        chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
        (self.folder / f"{file}.pem").write_bytes(chain)
        (self.folder / f"{file}.key").write_bytes(issued.private_key_pem.bytes())
        return pair

    def authorities(self, name="ca.pem"):
        path = self.folder / name
        self.ca.cert_pem.write_to_path(str(path))
        return str(path)

    def client(self, *, certificate=None, alpn=(), most=None):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.ca.configure_trust(context)
        if certificate:
            context.load_cert_chain(certificate.certificate, certificate.key)
        if alpn:
            context.set_alpn_protocols(alpn)
        if most:
            context.maximum_version = most
        return context


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


@pytest.fixture(scope="session")
def _authority():
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@pytest.fixture
def workshop(tmp_path, _authority):
    return Workshop(tmp_path, _authority)


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
