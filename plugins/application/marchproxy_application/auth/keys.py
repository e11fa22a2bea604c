"""Keys that tokens are checked with, each bound to the algorithms that it may be used with, and sets of them.

PyJWT does the signatures rather than joserfc: both are kept well and typed, but PyJWT's algorithms are a public
interface of their own, so that tokens, JSON and the choice of a key can be read more strictly than either does it.
An algorithm is looked up in a key, never a key by an algorithm: what a token says cannot turn a public key into a
secret (RFC 8725, section 3.1). Never here: files, sockets, clocks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import attrs
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import get_default_algorithms
from jwt.exceptions import PyJWTError

from marchproxy_application.auth.jose import DuplicateMember, decode, read_json

Native = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey | bytes
"""A key as it is used; bytes are a secret."""

_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_BY_CURVE = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_OF_CURVE = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_BY_SECRET = {"HS256": 32, "HS384": 48, "HS512": 64}
"""The least length of a secret in bytes: that of the hash (RFC 7518, section 3.2)."""
SUPPORTED = frozenset((*_RSA, *_BY_CURVE.values(), *_BY_SECRET, "EdDSA"))
_ALGORITHMS = {name: each for name, each in get_default_algorithms().items() if name in SUPPORTED}
LEAST_RSA_BITS = 2048
"""RFC 7518, section 3.3."""
MOST_RSA_BITS = 8192
"""A signature costs the more the longer the key is: 8192 bits are some 15 times 2048."""
MOST_KEYS = 100
"""Of a key set that somebody else wrote."""


class UnusableKey(Exception):
    """A key, or a whole set, cannot be used; says why in a few words."""


@attrs.frozen(kw_only=True)
class Key:
    """A key; two are equal when they check the same tokens."""

    kid: str | None
    """None: it may be the key of any token, whatever its ``kid``."""
    algorithms: frozenset[str]
    """Not empty."""
    identity: bytes
    """SHA-256 of the public key or secret."""
    native: Native = attrs.field(eq=False, repr=False)

    @classmethod
    def of(
        cls, native: object, *, kid: str | None = None, only: frozenset[str] = SUPPORTED, what: str = ""
    ) -> Key:
        """Bind a key to what its type allows.

        Args:
            native: A public key of ``cryptography``, or a secret.
            kid: Its name, if it has one.
            only: Algorithms that its owner wants it used with.
            what: What it is called in an error.

        Raises:
            UnusableKey: Its type is none of JWS's, it is too short, or too long, or nothing is left of ``only``.
        """
        allowed = _allowed(native) & only
        if not allowed:
            raise UnusableKey(f"{what or 'the key'} may be used with no algorithm that its type allows")
        assert isinstance(native, Native)  # all others have no algorithm
        if isinstance(native, bytes):
            material = native
        else:
            material = native.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return cls(kid=kid, algorithms=allowed, identity=hashlib.sha256(material).digest(), native=native)

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, object]) -> Key:
        """Read a JSON Web Key (RFC 7517); of a private key the public part is taken.

        Raises:
            UnusableKey: It is malformed, of an unknown type, not for signatures, or of no use for our algorithms.
        """
        kid, use, operations, algorithm = (jwk.get(name) for name in ("kid", "use", "key_ops", "alg"))
        if kid is not None and not isinstance(kid, str):
            raise UnusableKey("kid is no string")
        if use not in (None, "sig"):
            raise UnusableKey("use is not sig")
        if operations is not None and not (isinstance(operations, list) and "verify" in operations):
            raise UnusableKey("key_ops has no verify")
        if algorithm is not None and not (isinstance(algorithm, str) and algorithm in SUPPORTED):
            raise UnusableKey("alg is not supported")
        only = SUPPORTED if algorithm is None else frozenset((algorithm,))
        return cls.of(_native(jwk), kid=kid, only=only, what=f"a key of type {jwk.get('kty')}")

    def verifies(self, algorithm: str, message: bytes, signature: bytes) -> bool:
        """Whether a signature is this key's; never, if the algorithm is not one of its own."""
        return algorithm in self.algorithms and _ALGORITHMS[algorithm].verify(message, self.native, signature)


@attrs.frozen
class KeySet:
    """Keys in the order in which they are tried."""

    keys: tuple[Key, ...] = ()

    def named(self, kid: str) -> bool:
        """Whether a key has this name."""
        return any(key.kid == kid for key in self.keys)

    def candidates(self, algorithm: str, kid: str | None) -> list[Key]:
        """Return those that may have signed a token: of its ``kid`` or of none, and for its algorithm."""
        return [
            key
            for key in self.keys
            if algorithm in key.algorithms and (kid is None or key.kid is None or key.kid == kid)
        ]

    def __or__(self, other: KeySet) -> KeySet:
        return KeySet(self.keys + other.keys)


@attrs.frozen(kw_only=True)
class Read:
    """What was found in a JWK or a JWK Set."""

    keys: KeySet
    left_out: tuple[str, ...]
    """Why a key is of no use to us, for each such key."""


def read_jwks(data: bytes) -> Read:
    """Read a JWK Set or a single JWK; a key that is of no use is left out (RFC 7517, section 5).

    Raises:
        UnusableKey: It is neither.
    """
    try:
        value = read_json(data)
    except DuplicateMember:
        raise UnusableKey("a JSON object names a member twice") from None
    except ValueError as error:
        raise UnusableKey(f"it is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise UnusableKey("it is no JSON object")
    listed = value.get("keys", [value] if "kty" in value else None)
    if not isinstance(listed, list):
        raise UnusableKey("it is neither a JWK Set, which has keys, nor a JWK, which has kty")
    found: list[Key] = []
    left_out: list[str] = []
    for number, jwk in enumerate(listed[:MOST_KEYS]):
        try:
            found.append(_from_any(jwk))
        except UnusableKey as error:
            left_out.append(f"key {number}: {error}")
    if len(listed) > MOST_KEYS:
        left_out.append(f"keys from {MOST_KEYS} on: more than that many are not read")
    return Read(keys=KeySet(tuple(found)), left_out=tuple(left_out))


def _from_any(jwk: object) -> Key:
    if not isinstance(jwk, dict):
        raise UnusableKey("it is no JSON object")
    return Key.from_jwk(jwk)


def _allowed(native: object) -> frozenset[str]:
    if isinstance(native, bytes):
        return frozenset(name for name, least in _BY_SECRET.items() if len(native) >= least)
    if isinstance(native, RSAPublicKey):
        return frozenset(_RSA if LEAST_RSA_BITS <= native.key_size <= MOST_RSA_BITS else ())
    if isinstance(native, EllipticCurvePublicKey):
        return frozenset((_OF_CURVE[native.curve.name],) if native.curve.name in _OF_CURVE else ())
    return frozenset(("EdDSA",) if isinstance(native, Ed25519PublicKey | Ed448PublicKey) else ())


def _native(jwk: Mapping[str, object]) -> object:
    """Return the key of a JWK; only its public members are looked at."""
    match jwk.get("kty"), jwk.get("crv"):
        case "RSA", _:
            return _converted("RS256", jwk, "n", "e")
        case "EC", str(curve) if curve in _BY_CURVE:
            return _converted(_BY_CURVE[curve], jwk, "crv", "x", "y")
        case "OKP", "Ed25519" | "Ed448":
            return _converted("EdDSA", jwk, "crv", "x")
        case "oct", _:
            return _secret(jwk.get("k"))
        case kind, curve:
            raise UnusableKey(f"type {kind!r:.40} with curve {curve!r:.40} is not supported")


def _secret(text: object) -> bytes:
    try:
        return decode(str(text).encode("ascii"))
    except ValueError:
        raise UnusableKey("k is not base64url") from None


def _converted(algorithm: str, jwk: Mapping[str, object], *members: str) -> object:
    public: dict[str, object] = {"kty": jwk["kty"]}
    for name in members:
        member = jwk.get(name)
        if not isinstance(member, str):
            raise UnusableKey(f"{name} is missing, or no string")
        public[name] = member
    try:
        return _ALGORITHMS[algorithm].from_jwk(public)
    except (PyJWTError, ValueError, TypeError, OverflowError, UnsupportedAlgorithm) as error:
        raise UnusableKey(f"its members make no key: {error}") from None
