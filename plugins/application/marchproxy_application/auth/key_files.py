"""Keys out of files: PEM public keys and certificates, JWK and JWK Set; for whoever starts or reloads a service.

What cannot be used becomes a value that says where, what and how to mend it; nothing is raised.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from marchproxy_application.auth.keys import Key, KeySet, Read, UnusableKey, read_jwks
from marchproxy_application.unusable import Unusable

MOST_FILE_BYTES = 1 << 20
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_FORMS = "write a PEM public key or certificate, a JWK, or a JWK Set"


@attrs.frozen(kw_only=True)
class KeyFiles:
    """All keys of some files, and what was wrong with the rest."""

    keys: KeySet
    problems: tuple[Unusable, ...]


def read_key_files(paths: Iterable[str]) -> KeyFiles:
    """Read key files; blocks for as long as the disk does."""
    keys = KeySet()
    problems: list[Unusable] = []
    for path in paths:
        try:
            with Path(path).open("rb") as file:
                data = file.read(MOST_FILE_BYTES + 1)
        except OSError as error:
            what = error.strerror or str(error)
            problems.append(
                Unusable(where=path, what=what, fix="let the daemon read it, or correct auth_keys")
            )
            continue
        found, wrong = read_keys(data, path)
        keys |= found
        problems += wrong
    return KeyFiles(keys=keys, problems=tuple(problems))


def read_keys(data: bytes, where: str) -> tuple[KeySet, list[Unusable]]:
    """Return the keys in a file's text, and what is wrong with it.

    Args:
        data: All of it.
        where: Its path, for the problems.
    """
    try:
        read = _read(data)
    except UnusableKey as error:
        return KeySet(), [Unusable(where=where, what=str(error), fix=_FORMS)]
    problems = [
        Unusable(where=where, what=why, fix="correct the key, or take it out") for why in read.left_out
    ]
    if not read.keys.keys and not problems:
        problems.append(Unusable(where=where, what="no key is in it", fix=_FORMS))
    return read.keys, problems


def _read(data: bytes) -> Read:
    if len(data) > MOST_FILE_BYTES:
        raise UnusableKey("the file is larger than 1 MiB")
    text = data.strip()
    if text.startswith(b"{"):
        return read_jwks(text)
    if kinds := _BLOCK.findall(text):
        return _read_pem(text, kinds)
    raise UnusableKey("it is neither PEM nor JSON (a bare secret is not taken: a JWK of type oct is)")


def _read_pem(text: bytes, kinds: list[bytes]) -> Read:
    if kinds.count(b"CERTIFICATE") > 1:
        # A chain's other certificates are authorities: their keys sign certificates, not tokens.
        raise UnusableKey("more than one certificate in a file: write the one whose key signs tokens")
    keys: list[Key] = []
    left_out: list[str] = []
    for block in _BLOCK.finditer(text):
        try:
            keys.append(_read_block(block[0], block[1]))
        except UnusableKey as error:
            left_out.append(str(error))
    return Read(keys=KeySet(tuple(keys)), left_out=tuple(left_out))


def _read_block(block: bytes, kind: bytes) -> Key:
    if kind.endswith(b"PRIVATE KEY"):
        raise UnusableKey("a private key: the issuer's alone. Write its public key: openssl pkey -pubout")
    try:
        if kind == b"CERTIFICATE":
            return Key.of(x509.load_pem_x509_certificate(block).public_key(), what="the certificate's key")
        return Key.of(load_pem_public_key(block), what="the public key")
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UnusableKey(f"the {kind.decode().lower()} is unreadable: {error}") from None
