"""Makes keys and tokens for the tests with ``cryptography`` alone, so that no library checks its own work."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

NOW_S = 1_700_000_000.0
SECRET = bytes(range(64))
RSA = rsa.generate_private_key(65537, 2048)
OTHER_RSA = rsa.generate_private_key(65537, 2048)
P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
P521 = ec.generate_private_key(ec.SECP521R1())
K256 = ec.generate_private_key(ec.SECP256K1())
ED25519 = ed25519.Ed25519PrivateKey.generate()
ED448 = ed448.Ed448PrivateKey.generate()
HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
KEYS = {
    "HS256": SECRET,
    "HS384": SECRET,
    "HS512": SECRET,
    **{f"{family}{size}": RSA for family in ("RS", "PS") for size in HASHES},
    "ES256": P256,
    "ES384": P384,
    "ES512": P521,
    "EdDSA": ED25519,
}


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def sign(algorithm, key, message):
    if algorithm == "EdDSA":
        return key.sign(message)
    digest = HASHES[algorithm[2:]]
    match algorithm[:2]:
        case "HS":
            return hmac.new(key, message, getattr(hashlib, f"sha{algorithm[2:]}")).digest()
        case "RS":
            return key.sign(message, padding.PKCS1v15(), digest)
        case "PS":
            return key.sign(message, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(digest)))
    size = (key.curve.key_size + 7) // 8
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def token(claims, algorithm="RS256", key=None, **header):
    """Return a signed token; claims and header may be bytes, to be taken as they are."""
    head = header.pop("raw", None) or json.dumps({"alg": algorithm, **header}).encode()
    body = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    message = b64(head) + b"." + b64(body)
    return message + b"." + b64(sign(algorithm, key or KEYS[algorithm], message))


def bearer(claims, algorithm="RS256", key=None, **header):
    return b"Bearer " + token(claims, algorithm, key, **header)


def jwk(private, **more):
    """Return the public JWK of a key, or the JWK of a secret."""
    if isinstance(private, bytes):
        return {"kty": "oct", "k": b64(private).decode(), **more}
    public = private.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        numbers = public.public_numbers()
        e, n = (each.to_bytes((each.bit_length() + 7) // 8, "big") for each in (numbers.e, numbers.n))
        return {"kty": "RSA", "n": b64(n).decode(), "e": b64(e).decode(), **more}
    if isinstance(public, ec.EllipticCurvePublicKey):
        numbers, size = public.public_numbers(), (public.curve.key_size + 7) // 8
        names = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521", "secp256k1": "secp256k1"}
        x, y = (b64(each.to_bytes(size, "big")).decode() for each in (numbers.x, numbers.y))
        return {"kty": "EC", "crv": names[public.curve.name], "x": x, "y": y, **more}
    curve = "Ed448" if isinstance(public, ed448.Ed448PublicKey) else "Ed25519"
    return {"kty": "OKP", "crv": curve, "x": b64(public.public_bytes_raw()).decode(), **more}


def jwks(*keys):
    return json.dumps({"keys": list(keys)}).encode()
