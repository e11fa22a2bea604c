"""Who is let in, with what, and who is not and why."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy_application.auth.causes import Cause
from marchproxy_application.auth.keys import Key, KeySet
from marchproxy_application.auth.verifying import MOST_TRIED, Accepted, Rejected, Verifier
from marchproxy_core.services import Auth, AuthType
from plugins.application.tests.auth.tokens import KEYS, NOW_S, OTHER_RSA, P256, RSA, SECRET, bearer, jwk

SET = KeySet(
    tuple(Key.from_jwk(jwk(key)) for key in {id(key): key for key in KEYS.values()}.values()),
)
CLAIMS = {"sub": "ada", "iss": "us", "aud": "api", "exp": NOW_S + 60}
ERROR = b'Bearer realm="api", error="invalid_token"'


def auth(**more):
    return Auth(type=AuthType.JWT, **more)


def verifier(keys=SET, memory_bytes=1 << 20, **more):
    return Verifier(auth(**more), keys, realm="api", memory_bytes=memory_bytes)


def cause(outcome):
    assert isinstance(outcome, Rejected), outcome
    assert outcome.challenge == ERROR
    return outcome.cause


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_good_token_is_accepted(algorithm):
    outcome = verifier(issuer="us", audience=("api",)).check(bearer(CLAIMS, algorithm), NOW_S)
    assert isinstance(outcome, Accepted)
    assert outcome.claims == CLAIMS
    assert outcome.subject == "ada"
    assert outcome.forwarded == ()
    assert outcome.valid_until_s == NOW_S + 90


def test_without_a_token_the_challenge_has_no_error():
    for given_ in (None, b"Basic YTpi", b"", b"Bear x"):
        outcome = verifier().check(given_, NOW_S)
        assert isinstance(outcome, Rejected)
        assert outcome.cause in (Cause.NO_TOKEN, Cause.NOT_BEARER)
        assert outcome.challenge == b'Bearer realm="api"'


def test_the_scheme_may_be_in_any_letters_and_several_fields_are_refused():
    token = bearer(CLAIMS).partition(b" ")[2]
    for scheme in (b"bearer ", b"BEARER ", b"Bearer   "):
        assert isinstance(verifier().check(scheme + token, NOW_S), Accepted)
    assert isinstance(verifier().check_all([b"Bearer " + token], NOW_S), Accepted)
    assert verifier().check_all([], NOW_S).cause is Cause.NO_TOKEN
    assert cause(verifier().check_all([b"Bearer " + token] * 2, NOW_S)) is Cause.SEVERAL_FIELDS


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"exp": NOW_S - 30}, Cause.EXPIRED),
        ({"exp": NOW_S - 29.5}, None),
        ({"exp": -1}, Cause.EXPIRED),
        ({"nbf": NOW_S + 31}, Cause.NOT_YET_VALID),
        ({"nbf": NOW_S + 30}, None),
        ({"iat": NOW_S + 31}, Cause.ISSUED_IN_FUTURE),
        ({"iat": NOW_S + 30}, None),
        ({"exp": str(NOW_S + 60)}, Cause.BAD_CLAIM),
        ({"exp": True}, Cause.BAD_CLAIM),
        ({"exp": None}, Cause.BAD_CLAIM),
        ({"nbf": [1]}, Cause.BAD_CLAIM),
        ({"exp": 10**400}, Cause.BAD_CLAIM),
        ({"sub": 7}, Cause.BAD_CLAIM),
        ({"iss": "them"}, Cause.WRONG_ISSUER),
        ({"iss": ["us"]}, Cause.WRONG_ISSUER),
        ({"aud": "other"}, Cause.WRONG_AUDIENCE),
        ({"aud": ["other", "api"]}, None),
        ({"aud": [["api"], 7]}, Cause.WRONG_AUDIENCE),
        ({"aud": []}, Cause.WRONG_AUDIENCE),
        ({"aud": {"api": 1}}, Cause.WRONG_AUDIENCE),
        ({"tenant": None}, Cause.MISSING_CLAIM),
        ({"tenant": False}, None),
    ],
)
def test_each_claim_is_judged(claims, expected):
    asks = verifier(issuer="us", audience=("api", "web"), required_claims=("tenant",))
    outcome = asks.check(bearer({**CLAIMS, "tenant": 1, **claims}), NOW_S)
    if expected is None:
        assert isinstance(outcome, Accepted)
    else:
        assert cause(outcome) is expected


@pytest.mark.parametrize("missing", ["iss", "aud", "exp"])
def test_a_claim_that_is_asked_for_may_not_be_missing(missing):
    asks = verifier(issuer="us", audience=("api",), required_claims=("exp",))
    outcome = asks.check(bearer({name: value for name, value in CLAIMS.items() if name != missing}), NOW_S)
    assert cause(outcome) in (Cause.WRONG_ISSUER, Cause.WRONG_AUDIENCE, Cause.MISSING_CLAIM)


def test_a_token_without_times_is_good_for_ever():
    outcome = verifier().check(bearer({}), NOW_S)
    assert isinstance(outcome, Accepted)
    assert outcome.valid_until_s == float("inf")
    assert outcome.subject is None


def test_only_chosen_algorithms_are_taken():
    asks = verifier(algorithms=("RS256", "ES256"))
    assert isinstance(asks.check(bearer(CLAIMS, "ES256"), NOW_S), Accepted)
    assert cause(asks.check(bearer(CLAIMS, "RS384"), NOW_S)) is Cause.ALGORITHM_NOT_ALLOWED
    assert cause(asks.check(bearer(CLAIMS, "HS256"), NOW_S)) is Cause.ALGORITHM_NOT_ALLOWED


def test_claims_are_forwarded_as_chosen():
    forwards = verifier(
        forward_claims=(
            ("sub", "X-User"),
            ("roles", "X-Roles"),
            ("admin", "X-Admin"),
            ("n", "X-N"),
            ("none", "X-None"),
            ("missing", "X-Missing"),
            ("preferred", "X-Name"),
            ("name", "X-Name"),
        )
    )
    claims = {
        "sub": "ada",
        "roles": ["a", {"b": 1}],
        "admin": True,
        "n": 1.5,
        "none": None,
        "name": "J\u00fcrgen",
    }
    assert forwards.check(bearer(claims), NOW_S).forwarded == (
        b"X-User: ada\r\n",
        b'X-Roles: ["a",{"b":1}]\r\n',
        b"X-Admin: true\r\n",
        b"X-N: 1.5\r\n",
        b"X-Name: J\xc3\xbcrgen\r\n",
    )
    assert forwards.owned_headers == {
        b"x-user",
        b"x-roles",
        b"x-admin",
        b"x-n",
        b"x-none",
        b"x-missing",
        b"x-name",
    }


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ada",
        "ada ",
        "a\r\nX-Admin: true",
        "a\nb",
        "a\x00",
        "\x7f",
        "\x85",
        "\ud800",
        "a" * 4097,
        "\u00a0",
    ],
)
def test_a_value_that_is_unsafe_is_left_out(value):
    outcome = verifier(forward_claims=(("name", "X-Name"),)).check(
        bearer({"sub": "ada", "name": value}), NOW_S
    )
    assert isinstance(outcome, Accepted)
    assert outcome.forwarded == ()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(JSON)
def test_whatever_is_forwarded_is_one_line(value):
    outcome = verifier(forward_claims=(("name", "X-Name"),)).check(
        bearer({"name": value}, "HS256", SECRET), NOW_S
    )
    assert isinstance(outcome, Accepted)
    for line in outcome.forwarded:
        assert line.startswith(b"X-Name: ")
        assert line.endswith(b"\r\n")
        text = line[8:-2].decode()
        assert text == text.strip()
        assert text.isprintable() or all(each > "\x9f" or " " <= each <= "~" for each in text)
        assert text == value if isinstance(value, str) else json.loads(text) == value


def test_of_several_claims_for_one_header_the_first_counts():
    forwards = verifier(forward_claims=(("preferred", "X-Name"), ("name", "x-name")))
    both = forwards.check(bearer({"name": "a", "preferred": "b"}), NOW_S)
    assert both.forwarded == (b"X-Name: b\r\n",)
    unsafe = forwards.check(bearer({"name": "a", "preferred": "b\n"}), NOW_S)
    assert unsafe.forwarded == (b"x-name: a\r\n",)


def test_fields_that_could_be_taken_for_ours_are_found():
    forwards = verifier(forward_claims=(("sub", "X-User-Id"),))
    names = [b"host", b"x-user-id", b"x_user_id", b"x-user_id", b"x.user~id", b"x-user-ids", b"xuserid"]
    assert forwards.forged(names) == {b"x-user-id", b"x_user_id", b"x-user_id", b"x.user~id"}
    assert verifier().forged(names) == frozenset()


def test_a_header_that_cannot_be_is_refused_at_once():
    for name in ("X User", "", "X-\u00dcser", "X:"):
        with pytest.raises(ValueError, match="auth_forward_claims"):
            verifier(forward_claims=(("sub", name),))


def test_the_realm_cannot_break_out():
    outcome = Verifier(auth(), SET, realm='a"b\\c\r\n\u00e9').check(None, NOW_S)
    assert outcome.challenge == b'Bearer realm="a\\"b\\\\c???"'


def test_what_was_verified_is_remembered_until_it_expires():
    asks, token = verifier(), bearer(CLAIMS)
    first = asks.check(token, NOW_S)
    assert asks.check(bytes(bytearray(token)), NOW_S + 1) is first
    assert cause(asks.check(token, NOW_S + 90)) is Cause.EXPIRED
    assert asks.check(token, NOW_S + 89) is first


def test_the_clock_may_be_set_back():
    asks, token = verifier(), bearer({**CLAIMS, "nbf": NOW_S})
    assert isinstance(asks.check(token, NOW_S), Accepted)
    assert cause(asks.check(token, NOW_S - 31)) is Cause.NOT_YET_VALID


def test_other_keys_make_it_forget():
    asks, token = verifier(), bearer(CLAIMS)
    first = asks.check(token, NOW_S)
    asks.keys = KeySet(tuple(SET.keys))
    assert asks.check(token, NOW_S) is first
    asks.keys = KeySet((Key.from_jwk(jwk(OTHER_RSA)),))
    assert cause(asks.check(token, NOW_S)) is Cause.BAD_SIGNATURE
    asks.keys = SET
    again = asks.check(token, NOW_S)
    assert again == first
    assert again is not first


def test_what_was_refused_is_not_remembered():
    asks, token = verifier(keys=KeySet(), jwks_url="https://issuer.test/keys"), bearer(CLAIMS)
    assert cause(asks.check(token, NOW_S)) is Cause.UNKNOWN_KEY
    asks.keys = SET
    assert isinstance(asks.check(token, NOW_S), Accepted)


def test_the_memory_is_bounded_and_keeps_what_is_used():
    asks = verifier(memory_bytes=100_000)
    often = bearer(CLAIMS, "HS256")
    first = asks.check(often, NOW_S)
    for number in range(200):
        assert isinstance(asks.check(bearer({**CLAIMS, "jti": number}, "HS256"), NOW_S), Accepted)
        assert asks.check(often, NOW_S) is first
    assert 2 < len(asks._memory) <= 100_000 // (6 * len(often))
    none = verifier(memory_bytes=0)
    assert none.check(often, NOW_S) is not none.check(often, NOW_S)


def test_an_unknown_key_may_be_on_its_way_only_where_keys_are_fetched():
    named = KeySet((Key.from_jwk(jwk(RSA, kid="old")),))
    token = bearer(CLAIMS, kid="new")
    alone = verifier(keys=named).check(token, NOW_S)
    assert (alone.cause, alone.may_change, alone.kid) == (Cause.UNKNOWN_KEY, False, None)
    fetched = verifier(keys=named, jwks_url="https://issuer.test/keys").check(token, NOW_S)
    assert (fetched.cause, fetched.may_change, fetched.kid) == (Cause.UNKNOWN_KEY, True, "new")
    assert fetched.challenge == ERROR
    no_keys = verifier(keys=KeySet(), jwks_url="https://issuer.test/keys").check(bearer(CLAIMS), NOW_S)
    assert (no_keys.cause, no_keys.may_change, no_keys.kid) == (Cause.UNKNOWN_KEY, True, None)


def test_a_nameless_key_is_tried_before_a_fetch_is_asked_for():
    mixed = KeySet((Key.from_jwk(jwk(RSA)), Key.from_jwk(jwk(P256, kid="old"))))
    asks = verifier(keys=mixed, jwks_url="https://issuer.test/keys")
    assert isinstance(asks.check(bearer(CLAIMS, kid="new"), NOW_S), Accepted)
    other = asks.check(bearer(CLAIMS, key=OTHER_RSA, kid="new"), NOW_S)
    assert (other.cause, other.may_change) == (Cause.UNKNOWN_KEY, True)
    forged = asks.check(bearer(CLAIMS, key=OTHER_RSA), NOW_S)
    assert (forged.cause, forged.may_change) == (Cause.BAD_SIGNATURE, False)


def test_a_token_is_tried_with_few_keys():
    many = KeySet(tuple(Key.from_jwk(jwk(RSA, kid=str(number))) for number in range(MOST_TRIED + 1)))
    assert isinstance(verifier(keys=many).check(bearer(CLAIMS, kid="3"), NOW_S), Accepted)
    assert cause(verifier(keys=many).check(bearer(CLAIMS), NOW_S)) is Cause.TOO_MANY_KEYS
