"""What a request would meet: each step says what was considered and why, and a refusal ends the way."""

from __future__ import annotations

import base64
import json

import pytest

WEB = """
  - {name: web, listen: "127.0.0.1:80", http: true, ip: 192.0.2.1, port: 80}
"""
SHARED = """
  - {name: web, listen: "127.0.0.1:80", http: true, ip: 192.0.2.1, port: 80}
  - {name: api, listen: "127.0.0.1:80", http: true, hosts: [a.test], paths: [/api], ip: 192.0.2.2, port: 80}
  - {name: v2, listen: "127.0.0.1:80", http: true, hosts: [a.test], paths: [/api/v2], ip: 192.0.2.3, port: 80}
"""


def decision(explained, subject):
    (found,) = [one for one in explained.decisions if one.subject.startswith(subject)]
    return found


def reasons(explained, subject):
    return {one.name: one.reason for one in decision(explained, subject).candidates}


def test_every_step_of_a_plain_request_is_told(explain):
    explained = explain(WEB, "GET", "http://a.test/x")
    assert (explained.asks_backend, explained.status, explained.service) == (True, None, "web")
    assert [one.subject.partition(" of ")[0] for one in explained.decisions] == [
        "listener",
        "head",
        "route",
        "tier",
        "auth",
        "limits",
        "cache",
        "what the backend gets",
        "backend",
        "retries",
    ]
    assert explained.outcome == "a backend of web is asked"


def test_routes_are_asked_in_order_and_each_says_what_fails_first(explain):
    explained = explain(SHARED, "GET", "http://a.test/api/v2/x")
    assert decision(explained, "route").chosen == "v2 a.test/api/v2"
    assert [one.name for one in decision(explained, "route").candidates] == [
        "v2 a.test/api/v2",
        "api a.test/api",
        "web */",
    ]
    assert reasons(explained, "route")["api a.test/api"] == "would take it, but v2 a.test/api/v2 comes first"
    other = reasons(explain(SHARED, "GET", "http://b.test/apis"), "route")
    assert other["api a.test/api"] == "host: b.test is not a.test"
    near = reasons(explain(SHARED, "GET", "http://a.test/apis"), "route")
    assert near["api a.test/api"] == "path: /apis is not below /api"


def test_the_host_header_counts_for_the_route_and_the_path_is_matched_in_normal_form(explain):
    explained = explain(SHARED, "GET", "http://127.0.0.1/x/%2e%2e/%61pi", "Host: A.test")
    assert (explained.service, explained.url) == ("api", "http://a.test/api")


def test_nobody_takes_the_host(explain):
    only = '  - {name: a, listen: "127.0.0.1:80", http: true, hosts: [a.test], ip: 192.0.2.1, port: 80}\n'
    explained = explain(only, "GET", "http://b.test/")
    assert (explained.asks_backend, explained.status, explained.reason) == (False, 404, "no_route")
    assert explained.decisions[-1].subject == "route"


@pytest.mark.parametrize(
    ("url", "listen", "chosen"),
    [
        ("http://a.test/", None, "127.0.0.1:80"),
        ("http://127.0.0.2/", None, "0.0.0.0:80"),
        ("http://127.0.0.1/", None, "127.0.0.1:80"),
        ("http://a.test:81/", None, "0.0.0.0:81"),
        ("http://a.test/", "0.0.0.0:81", "0.0.0.0:81"),
        ("https://a.test/", None, None),
        ("https://a.test:80/", None, None),
        ("http://[::1]/", None, None),
    ],
)
def test_the_listener_is_the_urls(explain, url, listen, chosen):
    services = """
  - {name: every, listen: "0.0.0.0:80", http: true, ip: 192.0.2.1, port: 80}
  - {name: own, listen: "127.0.0.1:80", http: true, ip: 192.0.2.1, port: 80}
  - {name: other, listen: "0.0.0.0:81", http: true, ip: 192.0.2.1, port: 80}
  - {name: dns, protocol: udp, listen: "0.0.0.0:80", ip: 192.0.2.1, port: 53}
"""
    explained = explain(services, "GET", url, listen=listen)
    assert explained.decisions[0].chosen == chosen
    assert (explained.asks_backend, explained.status) == (chosen is not None, None)
    assert reasons(explained, "listener")["0.0.0.0:80"]


def test_a_plain_service_is_told_to_relay_what_comes(explain):
    explained = explain(
        '  - {name: raw, listen: "127.0.0.1:80", ip: 192.0.2.1, port: 80}\n', "GET", "http://a.test/"
    )
    assert explained.outcome == "a backend of raw gets the bytes as they come"
    assert explained.sent == ()


def test_what_no_tier_carries_is_not_answered(explain):
    explained = explain(WEB, "GET", "http://a.test/", tier=None)
    assert (explained.asks_backend, explained.status) == (False, None)
    assert "no tier can carry the service" in explained.outcome


@pytest.mark.parametrize(
    ("method", "headers", "status", "reason"),
    [
        ("CONNECT", (), 501, "method_not_implemented"),
        ("GET", ("Host: a", "Host: b"), 400, "no_host"),
        ("POST", ("Content-Length: 1", "Transfer-Encoding: chunked"), 400, "length_and_coding"),
        ("POST", ("Content-Length: x",), 400, "bad_length"),
        ("POST", ("Transfer-Encoding: gzip, chunked",), 501, "unknown_coding"),
        ("POST", ("Expect: wonders",), 417, "unknown_expectation"),
        ("GET", ("A: 1",) * 100, 431, "head_too_large"),
        ("GET", (f"A: {'x' * 40000}",), 431, "head_too_large"),
    ],
)
def test_heads_that_are_refused(explain, method, headers, status, reason):
    explained = explain(WEB, method, "http://a.test/", *headers)
    assert (explained.asks_backend, explained.status, explained.reason) == (False, status, reason)
    assert explained.decisions[-1].subject == "head"


def test_limits_and_the_one_that_refuses(explain):
    services = WEB.replace(
        "http: true", "http: true, max_body_bytes: 10, request_rate: 5, block: [192.0.2.0/24]"
    )
    explained = explain(services, "POST", "http://a.test/", "Content-Length: 10")
    assert reasons(explained, "limits")["request_rate"] == "5 a second; 429 above that"
    assert "front door" in reasons(explained, "limits")
    refused = explain(services, "POST", "http://a.test/", "Content-Length: 11")
    assert (refused.status, refused.reason) == (413, "body_too_large")


def test_backends_have_shares_and_drained_ones_none(explain):
    services = """
  - name: web
    listen: 127.0.0.1:80
    http: true
    backends:
      - {ip: 192.0.2.1, port: 80, weight: 3}
      - {ip: 192.0.2.2, port: 80}
      - {ip: 192.0.2.3, port: 80, weight: 0}
      - {ip: 192.0.2.4, port: 80, flush: true}
"""
    explained = explain(services, "GET", "http://a.test/")
    taken = {one.name: one.taken for one in decision(explained, "backend").candidates}
    assert taken == {
        "192.0.2.1:80": True,
        "192.0.2.2:80": True,
        "192.0.2.3:80": False,
        "192.0.2.4:80": False,
    }
    assert "75 % of requests" in reasons(explained, "backend")["192.0.2.1:80"]


def test_no_backend_with_a_weight(explain):
    services = """
  - {name: web, listen: "127.0.0.1:80", http: true, backends: [{ip: 192.0.2.1, port: 80, weight: 0}]}
"""
    explained = explain(services, "GET", "http://a.test/")
    assert (explained.status, explained.reason, explained.sent) == (503, "no_backend", ())


@pytest.mark.parametrize(
    ("method", "taken"), [("GET", {"connect", "reset", "502"}), ("POST", {"connect", "reset"})]
)
def test_what_is_tried_again(explain, method, taken):
    services = WEB.replace("http: true", "http: true, retry_on: [connect, reset, '502']")
    explained = explain(services, method, "http://a.test/")
    assert {one.name for one in decision(explained, "retries").candidates if one.taken} == taken


CACHED = WEB.replace("http: true", "http: true, cache_enabled: true, cache_vary: [Accept-Language]")


@pytest.mark.parametrize(
    ("method", "headers", "bypass"),
    [
        ("GET", (), None),
        ("HEAD", ("Cache-Control: no-cache",), None),
        ("POST", (), "method"),
        ("GET", ("Cache-Control: max-age=0, no-store",), "Cache-Control"),
        ("GET", ("If-Match: x",), "if-match"),
        ("GET", ("Content-Length: 3",), "body"),
    ],
)
def test_whether_the_cache_is_looked_at(explain, method, headers, bypass):
    explained = explain(CACHED, method, "http://a.test/x?y", "Accept-Language: de", *headers)
    found = decision(explained, "cache")
    if bypass is None:
        assert reasons(explained, "cache")["key"] == "http://a.test/x?y"
        assert reasons(explained, "cache")["cache_vary"] == "Accept-Language: de"
    else:
        assert found.chosen is None
        assert [one.name for one in found.candidates] == [bypass]


LOCKED = WEB.replace(
    "http: true",
    "http: true, auth_type: jwt, auth_jwks_url: 'https://i.test/keys', auth_issuer: 'https://i.test', "
    "auth_audience: [web], auth_algorithms: [RS256], auth_required_claims: [sub]",
)
GOOD = {"iss": "https://i.test", "aud": ["web"], "sub": "alice", "exp": 1_000_100}


def token(claims, **header):
    parts = ({"alg": "RS256", "kid": "k1", **header}, claims)
    coded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return f"Authorization: Bearer {'.'.join([*coded, 'c2ln'])}"


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (token(GOOD), ""),
        (token({**GOOD, "aud": "web"}), ""),
        ("X-Nothing: 1", "token_missing"),
        ("Authorization: Basic YTpi", "token_missing"),
        ("Authorization: Bearer abc", "token_malformed"),
        ("Authorization: Bearer a.b.c", "token_malformed"),
        (token([]), "token_malformed"),
        (token(GOOD, alg="HS256"), "token_algorithm"),
        (token({**GOOD, "sub": None}), "token_claim"),
        (token({**GOOD, "iss": "other"}), "token_issuer"),
        (token({**GOOD, "aud": []}), "token_audience"),
        (token({**GOOD, "exp": 999_900}), "token_expired"),
        (token({**GOOD, "exp": "soon"}), "token_claim"),
        (token({**GOOD, "exp": 10**400}), "token_claim"),
        (token({**GOOD, "nbf": 1_000_100}), "token_too_early"),
    ],
)
def test_what_can_be_told_of_a_token(explain, header, reason):
    explained = explain(LOCKED, "GET", "http://a.test/", header)
    assert (explained.asks_backend, explained.reason) == (not reason, reason)
    assert explained.status == (401 if reason else None)
    if not reason:
        told = reasons(explained, "auth")
        assert told["signature"] == "not verified offline; the keys would be what https://i.test/keys has"
        assert told["token"] == "a Bearer token came: signed by RS256, key k1"


PASSED = """
  - {name: ended, listen: "127.0.0.1:443", http: true, tls_enabled: true, hosts: [a.test], ip: 192.0.2.1, port: 80}
  - {name: passed, listen: "127.0.0.1:443", tls_enabled: true, tls_passthrough: true, hosts: [b.test],
     ip: 192.0.2.2, port: 443}
"""


@pytest.mark.parametrize(
    ("url", "header", "service", "reason"),
    [
        ("https://a.test/", "X: 1", "ended", ""),
        ("https://b.test/", "X: 1", "passed", ""),
        ("https://b.test/", "Host: a.test", "passed", ""),
        ("https://a.test/", "Host: b.test", "passed", "misdirected"),
        ("https://a.test/", "Host: c.test", None, "no_route"),
        ("https://c.test/", "X: 1", None, "tls_failed"),
    ],
)
def test_the_name_that_tls_is_asked_for_counts_before_the_host(explain, url, header, service, reason):
    explained = explain(PASSED, "GET", url, header)
    assert (explained.service, explained.reason) == (service, reason)


def test_each_field_says_what_becomes_of_it(explain):
    services = WEB.replace(
        "http: true",
        "http: true, paths: [/api], strip_path: true, host_header: b.test, request_header_remove: [X-Gone], "
        "request_header_set: ['X-Set: ours'], auth_type: jwt, auth_jwks_url: 'https://i.test/keys', "
        "auth_forward_claims: ['sub: X-User']",
    )
    fields = ("X-Gone: 1", "X-Set: theirs", "X_User: root", "Connection: X-Hop", "X-Hop: 1", "Accept: */*")
    explained = explain(services, "GET", "http://a.test/api/x?y", token({}), *fields, "Forwarded: for=me")
    told = reasons(explained, "what the backend gets")
    assert told["X-Gone: 1"] == "request_header_remove"
    assert told["X_User: root"] == "could be taken for what a token says"
    assert told["X-Hop: 1"] == "Connection names it"
    assert told["Forwarded: for=me"] == "a client's word about it is believed by nobody"
    assert explained.sent[:2] == ("GET /x?y HTTP/1.1", "Host: b.test")
    assert {"X-Set: ours", "Accept: */*", "Via: 1.1 marchproxy"} <= set(explained.sent)
    assert "X-Set: theirs" not in explained.sent
