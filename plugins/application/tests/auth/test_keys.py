"""Which key may do what, and what key files and key sets are read as."""

from __future__ import annotations

import datetime
import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from marchproxy_application.auth.key_files import read_key_files, read_keys
from marchproxy_application.auth.keys import MOST_KEYS, Key, KeySet, Read, UnusableKey, read_jwks
from plugins.application.tests.auth.tokens import (
    ED448,
    ED25519,
    K256,
    KEYS,
    OTHER_RSA,
    P256,
    P384,
    P521,
    RSA,
    SECRET,
    b64,
    jwk,
    jwks,
    sign,
)

X25519 = b64(x25519.X25519PrivateKey.generate().public_key().public_bytes_raw()).decode()
RSA_ALGORITHMS = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
ALLOWED = [
    (RSA, RSA_ALGORITHMS),
    (P256, {"ES256"}),
    (P384, {"ES384"}),
    (P521, {"ES512"}),
    (ED25519, {"EdDSA"}),
    (ED448, {"EdDSA"}),
    (SECRET, {"HS256", "HS384", "HS512"}),
    (SECRET[:48], {"HS256", "HS384"}),
    (SECRET[:32], {"HS256"}),
]


def pem(private):
    return private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def certificate(private):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")])
    start = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder(name, name, private.public_key(), 1, start, start.replace(year=2025))
    return builder.sign(P256, hashes.SHA256()).public_bytes(Encoding.PEM)


@pytest.mark.parametrize(("private", "allowed"), ALLOWED)
def test_a_keys_type_says_what_it_may_be_used_with(private, allowed):
    assert Key.from_jwk(jwk(private)).algorithms == allowed


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_key_verifies_its_own_algorithms_and_no_others(algorithm):
    signature = sign(algorithm, KEYS[algorithm], b"message")
    key = Key.from_jwk(jwk(KEYS[algorithm]))
    assert [each for each in KEYS if key.verifies(each, b"message", signature)] == [algorithm]
    assert not key.verifies(algorithm, b"other", signature)
    assert not key.verifies("none", b"message", b"")


def test_ed448_is_eddsa_as_well():
    assert Key.from_jwk(jwk(ED448)).verifies("EdDSA", b"message", ED448.sign(b"message"))


@pytest.mark.parametrize(
    "unusable",
    [
        jwk(K256),
        jwk(SECRET[:31]),
        jwk(rsa.generate_private_key(65537, 1024)),
        jwk(RSA, use="enc"),
        jwk(RSA, key_ops=["sign"]),
        jwk(RSA, key_ops="verify"),
        jwk(RSA, alg="RSA-OAEP"),
        jwk(RSA, alg="HS256"),
        jwk(RSA, alg=["RS256"]),
        jwk(RSA, kid=7),
        jwk(P256, alg="ES384"),
        {**jwk(P256), "crv": "P-384"},
        {**jwk(P256), "y": jwk(P256)["x"]},
        {**jwk(RSA), "n": None},
        {**jwk(RSA), "e": "AA"},
        {**jwk(ED25519), "x": "AAAA"},
        {"kty": "OKP", "crv": "X25519", "x": X25519},
        {"kty": "oct", "k": "not base64url!" * 5},
        {"kty": "oct", "k": "\u00e9" * 64},
        {"kty": "oct"},
        {"kty": ["RSA"]},
        {},
    ],
)  # fmt: skip
def test_what_is_no_key_for_signatures_is_left_out_and_the_rest_is_kept(unusable):
    with pytest.raises(UnusableKey):
        Key.from_jwk(unusable)
    read = read_jwks(jwks(unusable, jwk(OTHER_RSA, kid="good"), "text"))
    assert [key.kid for key in read.keys.keys] == ["good"]
    assert len(read.left_out) == 2


def test_alg_and_key_ops_narrow_what_a_key_may_do():
    key = Key.from_jwk(jwk(RSA, alg="PS256", key_ops=["verify"], use="sig"))
    assert key.algorithms == {"PS256"}


def test_candidates_are_of_the_tokens_kid_or_of_none():
    ours, other, nameless, curve = (
        Key.from_jwk(each)
        for each in (jwk(RSA, kid="ours"), jwk(OTHER_RSA, kid="other"), jwk(RSA), jwk(P256, kid="ours"))
    )
    keys = KeySet((ours, other)) | KeySet((nameless, curve))
    assert keys.candidates("RS256", "ours") == [ours, nameless]
    assert keys.candidates("RS256", "new") == [nameless]
    assert keys.candidates("RS256", None) == [ours, other, nameless]
    assert keys.candidates("ES256", "ours") == [curve]
    assert keys.named("other")
    assert not keys.named("new")


def test_a_foreign_set_is_bounded():
    read = read_jwks(jwks(*[jwk(ED25519, kid=str(number)) for number in range(MOST_KEYS + 1)]))
    assert len(read.keys.keys) == MOST_KEYS
    assert len(read.left_out) == 1


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"7", b"{}", b'{"keys": 7}', b'{"keys": [], "keys": []}', b"\xff", b"[" * 100_000, b'{"kty": NaN}'],
)  # fmt: skip
def test_what_is_no_key_set_is_said_to_be_none(data):
    with pytest.raises(UnusableKey):
        read_jwks(data)


MEMBERS = ["keys", "kty", "crv", "n", "e", "x", "y", "k", "alg", "use", "kid", "key_ops"]
VALUES = st.none() | st.text() | st.integers() | st.sampled_from(["RSA", "EC", "oct", "P-256", "AQAB", "sig"])


@given(
    st.recursive(
        VALUES,
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(MEMBERS), inner),
        max_leaves=20,
    )
)
def test_any_json_is_read_or_refused(value):
    try:
        read = read_jwks(json.dumps(value).encode())
    except UnusableKey:
        return
    assert isinstance(read, Read)
    assert all(key.algorithms for key in read.keys.keys)


@given(st.binary(max_size=200))
def test_any_file_is_read_or_has_a_problem(data):
    keys, problems = read_keys(data, "file")
    assert keys.keys or problems


@pytest.mark.parametrize("private", [RSA, P256, ED25519])
def test_pem_keys_and_certificates_are_the_same_as_their_jwk(private):
    for text in (pem(private), certificate(private)):
        keys, problems = read_keys(b"a comment\n" + text, "file")
        assert keys == KeySet((Key.from_jwk(jwk(private)),))
        assert problems == []


def test_all_files_are_read_and_all_problems_told(tmp_path):
    private = RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    contents = {
        "two.pem": pem(RSA) + pem(P256),
        "set.json": jwks(jwk(SECRET, kid="a"), jwk(K256)),
        "one.jwk": json.dumps(jwk(ED25519, kid="b")).encode(),
        "private.pem": private,
        "chain.pem": certificate(RSA) + certificate(P256),
        "secret.txt": b"a secret that is only text",
        "dsa.pem": pem(dsa.generate_private_key(1024)),
        "broken.pem": b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        "empty.json": b'{"keys": []}',
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    paths = [str(tmp_path / name) for name in (*contents, "missing.pem")]
    files = read_key_files(paths)
    assert [key.kid for key in files.keys.keys] == [None, None, "a", "b"]
    told = {problem.where.rpartition("/")[2]: problem.what for problem in files.problems}
    assert set(told) == {*contents, "missing.pem"} - {"two.pem", "one.jwk"}
    assert "private key" in told["private.pem"]
    assert "more than one certificate" in told["chain.pem"]
    assert all(str(problem).count(" - fix: ") == 1 for problem in files.problems)


def test_a_secret_is_not_shown():
    key = Key.from_jwk(jwk(SECRET, kid="a"))
    assert repr(SECRET) not in repr(key)
    assert b64(SECRET).decode() not in repr(KeySet((key,)))
