"""Which certificate a name gets, and what a handshake comes to."""

import ssl

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from marchproxy_application.tls.names import claims, normal, wildcard_above
from marchproxy_application.tls.picking import Tenant
from marchproxy_application.tls.store import CertificateStore
from marchproxy_core.services import Tls, TlsVersion

V1_2 = ssl.TLSVersion.TLSv1_2


@pytest.fixture
def listen(now_s):
    """Make a listener's store, loaded."""

    def make(*tenants, alpn=()):
        store = CertificateStore(tenants, alpn=alpn)
        assert store.look(now_s)
        return store

    return make


def tenant(*certificates, service="one", hosts=(), **tls):
    return Tenant(service=service, hosts=hosts, tls=Tls(certificates=certificates, **tls))


def test_the_name_itself_then_a_wildcard_then_the_first(workshop, shake, listen):
    store = listen(
        tenant(
            workshop.issue("first.test", file="1"),
            workshop.issue("*.a.test", "other.test", file="2"),
            workshop.issue("www.a.test", file="3"),
        )
    )
    for name, expected in [
        ("www.a.test", ["www.a.test"]),
        ("WWW.A.test", ["www.a.test"]),
        ("b.a.test", ["*.a.test", "other.test"]),
        ("other.test", ["*.a.test", "other.test"]),
        ("a.test", ["first.test"]),
        ("x.b.a.test", ["first.test"]),
        ("unknown.test", ["first.test"]),
        (None, ["first.test"]),
    ]:
        for most in (V1_2, None):
            shaken = shake(workshop.client(most=most), store.context, name)
            assert (shaken.errors, sorted(shaken.names)) == ({}, sorted(expected)), name


def test_a_services_own_certificate_comes_before_that_of_another(workshop, shake, listen):
    wide, own = workshop.issue("*.a.test", file="1"), workshop.issue("*.a.test", "own.test", file="2")
    store = listen(
        tenant(wide, service="one", hosts=("x.a.test",)),
        tenant(own, service="two", hosts=("*.a.test",)),
    )
    assert shake(workshop.client(), store.context, "x.a.test").names == ["*.a.test"]
    assert "own.test" in shake(workshop.client(), store.context, "y.a.test").names


def test_a_service_may_do_with_the_certificate_of_another(workshop, shake, listen):
    store = listen(
        tenant(workshop.issue("b.test", file="1"), service="one", hosts=("b.test",)),
        tenant(workshop.issue("*.a.test", file="2"), service="two", hosts=("two.a.test",)),
        tenant(workshop.issue("three.test", file="3"), service="three", hosts=("three.a.test", "lost.test")),
    )
    assert shake(workshop.client(), store.context, "three.a.test").names == ["*.a.test"]
    assert shake(workshop.client(), store.context, "lost.test").names == ["three.test"]


def test_a_client_picks_the_type_of_key(workshop, shake, listen):
    store = listen(
        tenant(
            workshop.issue("a.test", file="1", key_type=trustme.KeyType.RSA),
            workshop.issue("a.test", file="2", key_type=trustme.KeyType.ECDSA),
        )
    )
    by_fingerprint = {pair.fingerprint: pair.key_type for pair in store.certificates}
    for ciphers, expected in (("ECDHE+aRSA", "rsa"), ("ECDHE+aECDSA", "ec")):
        client = workshop.client(most=V1_2)
        client.set_ciphers(ciphers)
        shaken = shake(client, store.context, "a.test")
        assert by_fingerprint[shaken.fingerprint] == expected


def test_alpn(workshop, shake, listen):
    store = listen(tenant(workshop.issue("a.test")), alpn=("h2", "http/1.1"))
    for offered, expected in [
        (["http/1.1", "h2"], "h2"),
        (["http/1.1"], "http/1.1"),
        (["other"], None),
        ([], None),
    ]:
        shaken = shake(workshop.client(alpn=offered), store.context, "a.test")
        assert (shaken.errors, shaken.server.selected_alpn_protocol()) == ({}, expected)


def test_only_ciphers_that_are_forward_secret_and_authenticated(workshop, shake, listen):
    store = listen(tenant(workshop.issue("a.test", key_type=trustme.KeyType.RSA)))
    for refused in ("ECDHE-RSA-AES128-SHA256", "AES128-GCM-SHA256", "DHE-RSA-AES128-GCM-SHA256"):
        client = workshop.client(most=V1_2)
        client.set_ciphers(refused)
        assert "server" in shake(client, store.context, "a.test").errors, refused
    for taken in ("ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-CHACHA20-POLY1305"):
        client = workshop.client(most=V1_2)
        client.set_ciphers(taken)
        assert shake(client, store.context, "a.test").server.cipher()[0] == taken


def test_the_lowest_version(workshop, shake, listen):
    store = listen(tenant(workshop.issue("a.test")))
    assert store.context.minimum_version == V1_2
    strict = listen(tenant(workshop.issue("a.test"), min_version=TlsVersion.TLS_1_3))
    assert "client" in shake(workshop.client(most=V1_2), strict.context, "a.test").errors
    assert shake(workshop.client(), strict.context, "a.test").server.version() == "TLSv1.3"


def test_services_of_one_listener_may_want_different_versions(workshop, shake, listen):
    both = workshop.issue("a.test", "b.test")
    store = listen(
        tenant(both, service="old", hosts=("a.test",)),
        tenant(both, service="new", hosts=("b.test",), min_version=TlsVersion.TLS_1_3),
    )
    assert shake(workshop.client(most=V1_2), store.context, "a.test").server.version() == "TLSv1.2"
    assert "server" in shake(workshop.client(most=V1_2), store.context, "b.test").errors
    assert shake(workshop.client(), store.context, "b.test").server.version() == "TLSv1.3"


@pytest.mark.parametrize("most", [V1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_is_resumed(workshop, shake, listen, most):
    store = listen(tenant(workshop.issue("a.test")))
    client = workshop.client(most=most)
    first = shake(client, store.context, "a.test")
    again = shake(client, store.context, "a.test", session=first.client.session)
    assert again.client.session_reused


LABELS = st.text("abc", min_size=1, max_size=3)
HOSTS = st.lists(LABELS, min_size=1, max_size=5).map(".".join)


@given(HOSTS)
def test_a_certificates_wildcard_stands_for_the_first_label_alone(host):
    labels = host.split(".")
    assert wildcard_above(host) == (".".join(["*", *labels[1:]]) if len(labels) > 1 else None)


@given(HOSTS)
def test_a_host_may_be_claimed_from_itself_down_to_any(host):
    found = list(claims(host))
    assert found[0] == host
    assert found[-1] == "*"
    assert found[1:-1] == ["*." + host.split(".", at)[at] for at in range(1, host.count(".") + 1)]


def test_names_are_compared_in_small_letters_without_a_dot_at_the_end():
    assert normal("WWW.Example.com.") == "www.example.com"
