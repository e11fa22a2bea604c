"""Tokens and keys as the RFCs print them."""

from __future__ import annotations

import json

import pytest

from marchproxy_application.auth.causes import Cause, NotAccepted
from marchproxy_application.auth.jose import read_compact
from marchproxy_application.auth.keys import Key, KeySet
from marchproxy_application.auth.verifying import Accepted, Rejected, Verifier
from marchproxy_core.services import Auth, AuthType

JOE = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
A1 = f"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{JOE}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
A1_KEY = {
    "kty": "oct",
    "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
}
A2 = (
    f"eyJhbGciOiJSUzI1NiJ9.{JOE}."
    "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7"
    "AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4"
    "BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K"
    "0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqv"
    "hJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrB"
    "p0igcN_IoypGlUPQGe77Rw"
)
A2_KEY = {
    "kty": "RSA",
    "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp"
    "-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOW"
    "vG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUs"
    "LA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9k"
    "G4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2"
    "PAcDTW9gb54h4FRWyuXpoQ",
    "e": "AQAB",
}
A3 = (
    f"eyJhbGciOiJFUzI1NiJ9.{JOE}."
    "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
)
A3_KEY = {
    "kty": "EC",
    "crv": "P-256",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    "d": "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI",
}
A4 = (
    "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA."
    "AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZq"
    "wqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8Kp"
    "EHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn"
)
A4_KEY = {
    "kty": "EC",
    "crv": "P-521",
    "x": "AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk",
    "y": "ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2",
}
A5 = f"eyJhbGciOiJub25lIn0.{JOE}."

FRODO = (
    "SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0"
    "aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91"
    "IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4"
)
BILBO = "bilbo.baggins@hobbiton.example"
COOKBOOK_RSA = {
    "kty": "RSA",
    "kid": BILBO,
    "use": "sig",
    "n": "n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRoj"
    "dNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRBSFKrKb2wqVwGU_NsYOYL-QtiWN2l"
    "bzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6c"
    "S6M1FZcD1NNLYD5lFHpPI9bTwJlsde3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3"
    "-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRhuaxwU"
    "kRz5iaiQkqgc5gHdrNP5zw",
    "e": "AQAB",
}
COOKBOOK_EC = {
    "kty": "EC",
    "kid": BILBO,
    "use": "sig",
    "crv": "P-521",
    "x": "AHKZLLOsCOzz5cY97ewNUajB957y-C-U88c3v13nmGZx6sYl_oJXu9A5RkTKqjqvjyekWF-7ytDyRXYgCF5cj0Kt",
    "y": "AdymlHvOiLxXkEhayXQnNCvDX4h9htZaCJN34kfmC6pV5OhQHiraVySsUdaQkAgDPrwQrJmbnX9cwlGfP-HqHZR1",
}
COOKBOOK_SECRET = {
    "kty": "oct",
    "kid": "018c0ae5-4d9b-471b-bfd6-eef314bc7037",
    "use": "sig",
    "alg": "HS256",
    "k": "hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg",
}
COOKBOOK_4_1 = (
    f"eyJhbGciOiJSUzI1NiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.{FRODO}."
    "MRjdkly7_-oTPTS3AXP41iQIGKa80A0ZmTuV5MEaHoxnW2e5CZ5NlKtainoFmKZo"
    "pdHM1O2U4mwzJdQx996ivp83xuglII7PNDi84wnB-BDkoBwA78185hX-Es4JIwmD"
    "LJK3lfWRa-XtL0RnltuYv746iYTh_qHRD68BNt1uSNCrUCTJDt5aAE6x8wW1Kt9e"
    "Ro4QPocSadnHXFxnt8Is9UzpERV0ePPQdLuW3IS_de3xyIrDaLGdjluPxUAhb6L2"
    "aXic1U12podGU0KLUQSE_oI-ZnmKJ3F4uOZDnd6QZWJushZ41Axf_fcIe8u9ipH8"
    "4ogoree7vjbU5y18kDquDg"
)
COOKBOOK_4_2 = (
    f"eyJhbGciOiJQUzM4NCIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.{FRODO}."
    "cu22eBqkYDKgIlTpzDXGvaFfz6WGoz7fUDcfT0kkOy42miAh2qyBzk1xEsnk2IpN"
    "6-tPid6VrklHkqsGqDqHCdP6O8TTB5dDDItllVo6_1OLPpcbUrhiUSMxbbXUvdvW"
    "Xzg-UD8biiReQFlfz28zGWVsdiNAUf8ZnyPEgVFn442ZdNqiVJRmBqrYRXe8P_ij"
    "Q7p8Vdz0TTrxUeT3lm8d9shnr2lfJT8ImUjvAA2Xez2Mlp8cBE5awDzT0qI0n6ui"
    "P1aCN_2_jLAeQTlqRHtfa64QQSUmFAAjVKPbByi7xho0uTOcbH510a6GYmJUAfmW"
    "jwZ6oD4ifKo8DYM-X72Eaw"
)
COOKBOOK_4_3 = (
    f"eyJhbGciOiJFUzUxMiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.{FRODO}."
    "AE_R_YZCChjn4791jSQCrdPZCNYqHXCTZH0-JZGYNlaAjP2kqaluUIIUnC9qvbu9"
    "Plon7KRTzoNEuT4Va2cmL1eJAQy3mtPBu_u_sDDyYjnAMDxXPn7XrT0lw-kvAD89"
    "0jl8e2puQens_IEKBpHABlsbEPX6sFY8OcGDqoRuBomu9xQ2"
)
COOKBOOK_4_4 = (
    f"eyJhbGciOiJIUzI1NiIsImtpZCI6IjAxOGMwYWU1LTRkOWItNDcxYi1iZmQ2LWVlZjMxNGJjNzAzNyJ9.{FRODO}."
    "s0h6KThzkfBBBkLspW1h84VsJZFTsPPqMDA7g1Md7p0"
)
ED = (
    "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc."
    "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
)
ED_KEY = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
VECTORS = {
    "RFC 7515 A.1": (A1, A1_KEY, "HS256"),
    "RFC 7515 A.2": (A2, A2_KEY, "RS256"),
    "RFC 7515 A.3": (A3, A3_KEY, "ES256"),
    "RFC 7515 A.4": (A4, A4_KEY, "ES512"),
    "RFC 7520 4.1": (COOKBOOK_4_1, COOKBOOK_RSA, "RS256"),
    "RFC 7520 4.2": (COOKBOOK_4_2, COOKBOOK_RSA, "PS384"),
    "RFC 7520 4.3": (COOKBOOK_4_3, COOKBOOK_EC, "ES512"),
    "RFC 7520 4.4": (COOKBOOK_4_4, COOKBOOK_SECRET, "HS256"),
    "RFC 8037 A.4": (ED, ED_KEY, "EdDSA"),
}


def changed(part):
    return part[:-2] + ("A" if part[-2] != "A" else "B") + part[-1]


@pytest.mark.parametrize(("token", "jwk", "algorithm"), VECTORS.values(), ids=VECTORS)
def test_the_printed_signature_is_the_keys(token, jwk, algorithm):
    compact = read_compact(token.encode())
    key = Key.from_jwk(jwk)
    assert compact.algorithm == algorithm
    assert compact.kid == key.kid
    assert key.verifies(compact.algorithm, compact.message, compact.signature)


@pytest.mark.parametrize(("token", "jwk", "algorithm"), VECTORS.values(), ids=VECTORS)
def test_no_other_message_or_signature_is(token, jwk, algorithm):
    header, payload, signature = token.split(".")
    key = Key.from_jwk(jwk)
    for other in (f"{header}.{changed(payload)}.{signature}", f"{header}.{payload}.{changed(signature)}"):
        compact = read_compact(other.encode())
        assert not key.verifies(algorithm, compact.message, compact.signature)


def test_the_cookbooks_text_is_what_was_signed():
    text = read_compact(COOKBOOK_4_1.encode()).payload.decode()
    assert text.startswith("It\u2019s a dangerous business, Frodo")
    assert read_compact(ED.encode()).payload == b"Example of Ed25519 signing"


@pytest.mark.parametrize(("token", "jwk"), [(A1, A1_KEY), (A2, A2_KEY), (A3, A3_KEY)])
def test_joes_claims_are_good_until_they_expire(token, jwk):
    verifier = Verifier(Auth(type=AuthType.JWT, issuer="joe"), KeySet((Key.from_jwk(jwk),)))
    accepted = verifier.check(b"Bearer " + token.encode(), 1_300_819_379)
    assert isinstance(accepted, Accepted)
    assert accepted.claims == {"iss": "joe", "exp": 1300819380, "http://example.com/is_root": True}
    expired = verifier.check(b"Bearer " + token.encode(), 1_300_819_380 + 30)
    assert isinstance(expired, Rejected)
    assert expired.cause is Cause.EXPIRED


def test_the_unsecured_token_is_not_taken():
    for jwk in (A1_KEY, A2_KEY, A3_KEY):
        verifier = Verifier(Auth(type=AuthType.JWT), KeySet((Key.from_jwk(jwk),)))
        assert verifier.check(b"Bearer " + A5.encode(), 0).cause is Cause.UNKNOWN_ALGORITHM


def test_a_payload_that_is_no_object_is_not_taken():
    verifier = Verifier(Auth(type=AuthType.JWT), KeySet((Key.from_jwk(A4_KEY),)))
    assert verifier.check(b"Bearer " + A4.encode(), 0).cause is Cause.BAD_PAYLOAD


def test_the_private_part_of_a_jwk_is_not_kept():
    assert json.dumps(A3_KEY).count('"d"') == 1
    public = {name: value for name, value in A3_KEY.items() if name != "d"}
    assert Key.from_jwk(A3_KEY) == Key.from_jwk(public)
    assert not hasattr(Key.from_jwk(A3_KEY).native, "private_numbers")


def test_a_critical_extension_is_refused():
    # RFC 7515, appendix E: {"alg":"none","crit":["http://example.com/UNDEFINED"],...}
    token = (
        b"eyJhbGciOiJub25lIiwNCiAiY3JpdCI6WyJodHRwOi8vZXhhbXBsZS5jb20vVU5ERUZJTkVEIl0sDQogImh0dHA6Ly9leGFt"
        b"cGxlLmNvbS9VTkRFRklORUQiOnRydWUNCn0.RkFJTA."
    )
    with pytest.raises(NotAccepted) as caught:
        read_compact(token)
    assert caught.value.cause is Cause.CRITICAL_EXTENSION
