"""What somebody tries who has no key, or not the right one."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from marchproxy_application.auth.causes import Cause
from marchproxy_application.auth.jose import MOST_TOKEN_BYTES, decode
from marchproxy_application.auth.keys import Key, KeySet
from marchproxy_application.auth.verifying import Accepted, Rejected, Verifier
from marchproxy_core.services import Auth, AuthType
from plugins.application.tests.auth.tokens import (
    NOW_S,
    OTHER_RSA,
    P256,
    P384,
    RSA,
    SECRET,
    b64,
    bearer,
    jwk,
    sign,
    token,
)

CLAIMS = {"sub": "mallory"}
PUBLIC = KeySet((Key.from_jwk(jwk(RSA, kid="a")), Key.from_jwk(jwk(P256, kid="b"))))
EVERYTHING = PUBLIC | KeySet((Key.from_jwk(jwk(SECRET, kid="c")),))


def check(authorization, keys=PUBLIC):
    outcome = Verifier(Auth(type=AuthType.JWT), keys).check(authorization, NOW_S)
    assert isinstance(outcome, Rejected), outcome
    assert outcome.challenge == b'Bearer realm="marchproxy", error="invalid_token"'
    return outcome.cause


def spellings():
    public = RSA.public_key()
    yield public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    yield public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    yield public.public_bytes(Encoding.PEM, PublicFormat.PKCS1)
    yield json.dumps(jwk(RSA, kid="a")).encode()
    yield decode(jwk(RSA)["n"].encode())


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("public", list(spellings()), ids=range(5))
def test_a_public_key_is_no_secret(algorithm, public):
    for header in ({"kid": "a"}, {}):
        assert check(bearer(CLAIMS, algorithm, public, **header)) is Cause.WRONG_KEY_TYPE
        assert check(bearer(CLAIMS, algorithm, public, **header), EVERYTHING) in (
            Cause.WRONG_KEY_TYPE,
            Cause.BAD_SIGNATURE,
        )


@pytest.mark.parametrize(
    "name", ["none", "None", "NONE", "nOnE", "", "ES256K", "HS1", "RS256 ", "dir", "EdDSA\u0000"]
)
def test_an_algorithm_that_is_none_of_ours(name):
    for signature in (b"", b64(b"x")):
        unsigned = b64(json.dumps({"alg": name}).encode()) + b"." + b64(b"{}") + b"." + signature
        assert check(b"Bearer " + unsigned, EVERYTHING) is Cause.UNKNOWN_ALGORITHM


@pytest.mark.parametrize("algorithm", ["RS256", "PS512", "ES256", "HS256"])
def test_an_empty_or_cut_signature(algorithm):
    good = token(CLAIMS, algorithm)
    head, _, signature = good.rpartition(b".")
    for other in (b"", decode(signature)[:-1], decode(signature) + b"\0", bytes(64), bytes(256)):
        assert check(b"Bearer " + head + b"." + b64(other), EVERYTHING) is Cause.BAD_SIGNATURE


def test_zero_signatures_of_ecdsa():
    # CVE-2022-21449: r and s of zero.
    assert (
        check(b"Bearer " + token(CLAIMS, "ES256").rpartition(b".")[0] + b"." + b64(bytes(64)))
        is Cause.BAD_SIGNATURE
    )


def test_a_signature_in_der_is_not_taken():
    message = token(CLAIMS, "ES256").rpartition(b".")[0]
    der = P256.sign(message, ec.ECDSA(hashes.SHA256()))
    assert check(b"Bearer " + message + b"." + b64(der)) is Cause.BAD_SIGNATURE


def test_another_curve_under_the_same_name():
    message = b64(b'{"alg":"ES256","kid":"b"}') + b"." + b64(b"{}")
    assert check(b"Bearer " + message + b"." + b64(sign("ES384", P384, message))) is Cause.BAD_SIGNATURE


@pytest.mark.parametrize(
    "kid", ["../../../../dev/null", "a' OR '1'='1", "/etc/passwd", "a\u0000", "A", "", "a" * 256]
)
def test_a_kid_is_a_name_and_nothing_else(kid):
    assert check(bearer(CLAIMS, "HS256", bytes(32), kid=kid), EVERYTHING) in (
        Cause.UNKNOWN_KEY,
        Cause.WRONG_KEY_TYPE,
    )
    assert check(bearer(CLAIMS, "RS256", OTHER_RSA, kid=kid)) is Cause.UNKNOWN_KEY


@pytest.mark.parametrize("kid", [7, None, ["a"], {"a": 1}, True, "a" * 257])
def test_a_kid_of_another_type_is_no_kid(kid):
    expected = Cause.BAD_SIGNATURE if kid is None else Cause.BAD_HEADER
    assert check(bearer(CLAIMS, "RS256", OTHER_RSA, kid=kid)) is expected


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c"])
def test_a_key_that_the_token_brings_is_not_looked_at(name):
    brought = {
        "jwk": jwk(OTHER_RSA),
        "jku": "https://mallory.test/jwks",
        "x5u": "https://mallory.test/",
        "x5c": ["AAAA"],
    }
    assert check(bearer(CLAIMS, "RS256", OTHER_RSA, **{name: brought[name]})) is Cause.BAD_SIGNATURE
    good = Verifier(Auth(type=AuthType.JWT), PUBLIC).check(
        bearer(CLAIMS, "RS256", **{name: brought[name]}), NOW_S
    )
    assert isinstance(good, Accepted)


def test_members_that_are_named_twice():
    assert check(bearer(b'{"sub":"ada","sub":"mallory"}')) is Cause.DUPLICATE_MEMBER
    assert check(bearer(b'{"a":[{"b":1,"b":2}]}')) is Cause.DUPLICATE_MEMBER
    assert check(bearer(b'{"sub":"ada","\\u0073ub":"mallory"}')) is Cause.DUPLICATE_MEMBER
    assert check(bearer({}, raw=b'{"alg":"RS256","alg":"none"}')) is Cause.DUPLICATE_MEMBER


@pytest.mark.parametrize(
    "header",
    [
        b'{"alg":"RS256","crit":["exp"],"exp":1}',
        b'{"alg":"RS256","crit":[]}',
        b'{"alg":"RS256","crit":["b64"],"b64":false}',
    ],
)
def test_crit(header):
    assert check(bearer({}, raw=header)) is Cause.CRITICAL_EXTENSION


@pytest.mark.parametrize(
    "header", [b"[]", b"7", b"null", b"{}", b'{"alg":7}', b'{"alg":["RS256"]}', b'{"alg":"RS256","b64":false}', b"\xff",
               b'{"alg":"RS256"', b'\xef\xbb\xbf{"alg":"RS256"}', b'{"alg":"RS256","x":NaN}', b"[" * 5000]
)  # fmt: skip
def test_headers_that_are_none(header):
    assert check(bearer({}, raw=header)) is Cause.BAD_HEADER


@pytest.mark.parametrize("payload", [b"", b"7", b"[]", b'"x"', b"null", b"\xff", b"{", b'{"exp":Infinity}', b"[" * 5000,
                                     b'{"x":' + b"9" * 5000 + b"}", b'{"a":1}{"b":2}'])  # fmt: skip
def test_payloads_that_are_none(payload):
    assert check(bearer(payload)) is Cause.BAD_PAYLOAD


def test_a_time_that_no_clock_can_show():
    assert check(bearer(b'{"exp":1e999}')) is Cause.BAD_CLAIM


def test_huge_tokens():
    room = MOST_TOKEN_BYTES * 3 // 4
    assert check(bearer({"x": "a" * room})) is Cause.TOO_LARGE
    assert check(b"Bearer " + b"a" * (1 << 20)) is Cause.TOO_LARGE
    assert check(b"Bearer " + b"." * MOST_TOKEN_BYTES) is Cause.MALFORMED


def test_other_spellings_of_a_good_token():
    good = token(CLAIMS)
    head, payload, signature = good.split(b".")
    last = signature[-1:]
    others = [
        good + b"=",
        good + b"==",
        good + b".",
        b"." + good,
        good.replace(b".", b"..", 1),
        head + b"\n." + payload + b"." + signature,
        good + b" ",
        good + b", Bearer " + good,
        head + b"." + payload,
        # 256 bytes leave four bits of the last character unused.
        good[:-1] + bytes([last[0] + 1]),
        good.replace(b"-", b"+").replace(b"_", b"/"),
    ]
    for other in others:
        if other != good:
            assert check(b"Bearer " + other) in (Cause.MALFORMED, Cause.BAD_SIGNATURE), other
    assert check(b"Bearer ") is Cause.MALFORMED
    assert check(b"Bearer") is Cause.MALFORMED


@given(st.binary(max_size=300) | st.text(alphabet="eyJ.-_=, AZ09", max_size=300).map(str.encode))
def test_garbage_is_refused(garbage):
    for start in (b"", b"Bearer "):
        outcome = Verifier(Auth(type=AuthType.JWT), EVERYTHING).check(start + garbage, NOW_S)
        assert isinstance(outcome, Rejected)


GOOD = token(CLAIMS, "ES256", kid="b")


@given(st.integers(0, len(GOOD) - 1), st.binary(max_size=3), st.integers(0, 3))
def test_a_good_token_that_is_changed_anywhere_is_refused(place, new, removed):
    changed = GOOD[:place] + new + GOOD[place + removed :]
    outcome = Verifier(Auth(type=AuthType.JWT), EVERYTHING).check(b"Bearer " + changed, NOW_S)
    assert isinstance(outcome, Accepted) == (changed.lstrip(b" ") == GOOD)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["alg", "kid", "crit", "typ", "cty", "b64", "zip"]), JSON), JSON)
def test_any_header_and_payload_of_an_issuer_are_answered(header, payload):
    raw = json.dumps({"alg": "HS256", **header}).encode()
    signed = bearer(json.dumps(payload).encode(), "HS256", SECRET, raw=raw)
    verifier = Verifier(Auth(type=AuthType.JWT, forward_claims=(("sub", "X-User"),)), EVERYTHING)
    assert isinstance(verifier.check(signed, NOW_S), Accepted | Rejected)


@given(st.dictionaries(st.sampled_from(["exp", "nbf", "iat", "iss", "aud", "sub"]), JSON))
def test_any_claims_are_answered(claims):
    auth = Auth(type=AuthType.JWT, issuer="us", audience=("api",), required_claims=("sub",))
    signed = bearer(claims, "HS256", SECRET)
    assert isinstance(Verifier(auth, EVERYTHING).check(signed, NOW_S), Accepted | Rejected)
