"""Certificates with their keys, and authorities, read out of files and judged: values, or what is wrong with them."""

from __future__ import annotations

import datetime
import re
import ssl
from typing import TYPE_CHECKING

import attrs
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

from marchproxy_application.tls.files import load_authorities, load_chain, read
from marchproxy_application.tls.names import normal
from marchproxy_application.unusable import Unusable
from marchproxy_core.services import Certificate

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

_PRIVATE_KEY = re.compile(rb"-----BEGIN ([A-Z ]*)PRIVATE KEY-----.*?-----END \1PRIVATE KEY-----", re.DOTALL)
_ENCODING = serialization.Encoding.DER
_FORMAT = serialization.PublicFormat.SubjectPublicKeyInfo


@attrs.frozen(kw_only=True)
class KeyPair:
    """A certificate with the chain above it, and its key."""

    files: Certificate
    chain_pem: bytes = attrs.field(repr=False)
    key_pem: bytes = attrs.field(repr=False)
    names: frozenset[str]
    """DNS names of its subjectAltName, in normal form."""
    key_type: str
    """``rsa``, ``ec`` or the name of another; a context takes one certificate of each."""
    subject: str
    fingerprint: str
    """SHA-256 of the certificate, in hexadecimal."""
    not_before_s: float
    """Unix time in seconds, as is ``not_after_s``."""
    not_after_s: float

    def out_of_date(self, now_s: float) -> Unusable | None:
        """Say whether it is valid no more, or not yet, at a Unix time in seconds."""
        if now_s > self.not_after_s:
            return Unusable(
                self.files.certificate, f"expired at {_date(self.not_after_s)}", "renew the certificate"
            )
        if now_s < self.not_before_s:
            what = f"is not valid before {_date(self.not_before_s)}"
            return Unusable(self.files.certificate, what, "set the host's clock, or wait")
        return None


@attrs.frozen
class Authorities:
    """Who may have issued the other side's certificate."""

    pem: bytes = attrs.field(repr=False)
    has_revocations: bool
    """Whether the file has revocation lists as well; then every certificate is looked up in one."""


def key_pair_from(files: Certificate) -> KeyPair | Unusable:
    """Read a certificate and its key; blocks for two small files."""
    chain_pem = read(files.certificate)
    key_path = files.key or files.certificate
    key_pem = chain_pem if files.key is None else read(files.key)
    if isinstance(chain_pem, Unusable):
        return chain_pem
    if isinstance(key_pem, Unusable):
        return key_pem
    try:
        chain = x509.load_pem_x509_certificates(chain_pem)
    except ValueError as error:
        return Unusable(
            files.certificate, f"has no certificate that can be read: {_first_line(error)}", _PEM_FIX
        )
    public = _public_key_of(key_path, key_pem)
    if isinstance(public, Unusable):
        return public
    return _mismatch(files, chain, public) or _pair(files, chain_pem, key_pem, chain[0])


def authorities_from(path: str) -> Authorities | Unusable:
    """Read certificates of authorities, and revocation lists if there are any; blocks for one small file."""
    pem = read(path)
    if isinstance(pem, Unusable):
        return pem
    try:
        x509.load_pem_x509_certificates(pem)
        load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), pem)
    except (ValueError, ssl.SSLError) as error:
        return Unusable(path, f"has no certificates that can be read: {_first_line(error)}", _AUTHORITIES_FIX)
    return Authorities(pem, b"-----BEGIN X509 CRL-----" in pem)


_AUTHORITIES_FIX = "name a PEM file of the authorities' certificates"
_PEM_FIX = "name a PEM file of whole certificates, the host's own first"


def _public_key_of(path: str, pem: bytes) -> PublicKeyTypes | Unusable:
    """Return the public half of the first private key in a file: `openssl ecparam` puts other blocks before it."""
    block = _PRIVATE_KEY.search(pem)
    if block is None:
        return Unusable(path, "has no private key", "name the PEM file of the certificate's key")
    try:
        return serialization.load_pem_private_key(block[0], password=None).public_key()
    except TypeError:
        fix = "take the password off: openssl pkey -in KEY -out NEW_KEY; and let the daemon's user alone read it"
        return Unusable(path, "is encrypted", fix)
    except (ValueError, UnsupportedAlgorithm) as error:
        return Unusable(path, f"has a private key that cannot be read: {_first_line(error)}", "make it anew")


def _mismatch(files: Certificate, chain: list[x509.Certificate], public: PublicKeyTypes) -> Unusable | None:
    """Say what is wrong when the first certificate is not the key's."""
    wanted = public.public_bytes(_ENCODING, _FORMAT)
    try:
        matches = [one.public_key().public_bytes(_ENCODING, _FORMAT) == wanted for one in chain]
    except (ValueError, UnsupportedAlgorithm) as error:
        return Unusable(
            files.certificate, f"has a key that is not known: {_first_line(error)}", "issue it anew"
        )
    if matches[0]:
        return None
    if any(matches):
        what = "the key's certificate is not the first one in the file"
        return Unusable(files.certificate, what, "put it first, what it was issued with behind it")
    what = f"is not the certificate of the key in {files.key or files.certificate}"
    return Unusable(files.certificate, what, "install both files of one renewal")


def _pair(files: Certificate, chain_pem: bytes, key_pem: bytes, leaf: x509.Certificate) -> KeyPair | Unusable:
    try:
        pair = KeyPair(
            files=files,
            chain_pem=chain_pem,
            key_pem=key_pem,
            names=_names(leaf),
            key_type=_key_type(leaf.public_key()),
            subject=leaf.subject.rfc4514_string(),
            fingerprint=leaf.fingerprint(hashes.SHA256()).hex(),
            not_before_s=leaf.not_valid_before_utc.timestamp(),
            not_after_s=leaf.not_valid_after_utc.timestamp(),
        )
        load_chain(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), chain_pem, key_pem)
    except ssl.SSLError as error:
        what = f"is refused by OpenSSL: {(error.reason or str(error)).lower().replace('_', ' ')}"
        return Unusable(
            files.certificate, what, "issue it anew, with an RSA key of 2048 bits or an EC key of P-256"
        )
    except ValueError as error:
        return Unusable(files.certificate, f"is malformed: {_first_line(error)}", "issue it anew")
    return pair


def _names(leaf: x509.Certificate) -> frozenset[str]:
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(normal(name) for name in found.get_values_for_type(x509.DNSName))


def _key_type(public: PublicKeyTypes) -> str:
    if isinstance(public, rsa.RSAPublicKey):
        return "rsa"
    if isinstance(public, ec.EllipticCurvePublicKey):
        return "ec"
    return "dsa" if isinstance(public, dsa.DSAPublicKey) else type(public).__name__


def _date(unix_s: float) -> str:
    return datetime.datetime.fromtimestamp(unix_s, datetime.UTC).isoformat(timespec="seconds")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].removesuffix(".")
