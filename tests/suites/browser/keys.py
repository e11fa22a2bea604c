"""A certificate for the page's server, and how its clients come to trust it."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import attrs
import trustme
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate

NAME = "page.test"


@attrs.frozen
class Keys:
    """Files, and a pin."""

    chain: Path
    key: Path
    authority: Path
    pin: str
    """The hash of the server's very key, as browsers are told of keys that they shall trust."""


def make_keys(directory: Path) -> Keys:
    """Make an authority and a certificate, and write them down."""
    authority = trustme.CA()
    issued = authority.issue_cert(NAME)
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    public = load_pem_x509_certificate(chain).public_key()
    digest = hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    pin = base64.b64encode(digest).decode()
    keys = Keys(directory / "chain.pem", directory / "key.pem", directory / "authority.pem", pin)
    keys.chain.write_bytes(chain)
    keys.key.write_bytes(issued.private_key_pem.bytes())
    authority.cert_pem.write_to_path(keys.authority)
    return keys
