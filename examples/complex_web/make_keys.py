"""Makes what the example needs into ./keys: an authority, the server's certificate, and an issuer's keys.

`python make_keys.py` makes them; `python make_keys.py token NAME` prints a token of one hour for somebody called so.
"""

from __future__ import annotations

import datetime
import ipaddress
import sys
from pathlib import Path

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

_KEYS = Path("keys")
_HOUR = datetime.timedelta(hours=1)


def make() -> None:
    """Write everything."""
    _KEYS.mkdir(exist_ok=True)
    now = datetime.datetime.now(datetime.UTC)
    authority_key, server_key, issuer_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    authority = _certificate("MarchProxy example", authority_key, now, is_authority=True)
    server = _certificate("localhost", server_key, now, by=(authority, authority_key))
    _write("ca.pem", authority.public_bytes(Encoding.PEM))
    _write("server.pem", server.public_bytes(Encoding.PEM))
    _write("server.key", _private(server_key))
    _write("issuer.key", _private(issuer_key))
    _write(
        "issuer.pem", issuer_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )


def token(subject: str) -> str:
    """Return a token for somebody, valid for an hour."""
    now = datetime.datetime.now(datetime.UTC)
    claims = {
        "iss": "https://issuer.example",
        "aud": "complex-web",
        "sub": subject,
        "iat": now,
        "exp": now + _HOUR,
    }
    return jwt.encode(claims, (_KEYS / "issuer.key").read_bytes(), algorithm="ES256")


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    now: datetime.datetime,
    *,
    is_authority: bool = False,
    by: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None = None,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by[0].subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _HOUR)
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if by is not None:
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]
        issuer = by[1].public_key()
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False).add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False
        )
    return builder.sign(by[1] if by else key, hashes.SHA256())


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(name: str, data: bytes) -> None:
    path = _KEYS / name
    path.touch(mode=0o600)
    path.write_bytes(data)


if __name__ == "__main__":
    if sys.argv[1:2] == ["token"]:
        sys.stdout.write(token(" ".join(sys.argv[2:]) or "somebody") + "\n")
    else:
        make()
