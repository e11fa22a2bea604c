"""Makes certificates, and the keys and tokens of an issuer."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import attrs
import jwt
import trustme
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ISSUER = "https://issuer.test"


@attrs.define(eq=False)
class Workshop:
    """An authority and an issuer that write into a folder."""

    folder: Path
    _authority: trustme.CA = attrs.field(factory=lambda: trustme.CA(key_type=trustme.KeyType.ECDSA))
    _key: ec.EllipticCurvePrivateKey = attrs.field(factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def tls(self) -> dict[str, object]:
        """Issue a certificate for localhost, over the one before, and return what a service has of it."""
        issued = self._authority.issue_cert("localhost", key_type=trustme.KeyType.ECDSA)
        pem, key = self.folder / "server.pem", self.folder / "server.key"
        # In two steps, as renewals have it: for a moment the key and the certificate do not belong together.
        key.write_bytes(issued.private_key_pem.bytes())
        pem.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
        return {"tls_enabled": True, "tls_certificate": str(pem), "tls_key": str(key)}

    def client(self, *alpn: str) -> ssl.SSLContext:
        """Return the context of a client that trusts the authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._authority.configure_trust(context)
        if alpn:
            context.set_alpn_protocols(alpn)
        return context

    def auth(self) -> dict[str, object]:
        """Return what a service has that lets in who has a token."""
        pem = self.folder / "issuer.pem"
        pem.write_bytes(self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        return {"auth_type": "jwt", "auth_issuer": ISSUER, "auth_keys": str(pem)}

    def bearer(self, subject: str = "alice") -> str:
        """Return the value of ``Authorization`` of somebody."""
        claims = {"iss": ISSUER, "sub": subject, "exp": int(time.time()) + 3600}
        return f"Bearer {jwt.encode(claims, self._key, algorithm='ES256')}"
