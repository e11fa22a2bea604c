"""TLS to backends: who is believed, what is asked for, and what is kept."""

import contextlib
import ssl

import pytest
import structlog
import trustme

from marchproxy_application.tls.backends import BackendContexts
from marchproxy_application.unusable import Unusable
from marchproxy_core.services import BackendTls, HttpVersion


@pytest.fixture
def backend(workshop):
    """Make a backend's context, which remembers the names that it was asked for."""

    def make(*names, ca=None, alpn=("h2", "http/1.1")):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        (ca or workshop.ca).issue_cert(*names).configure_cert(context)
        context.set_alpn_protocols(alpn)
        context.asked = []
        context.sni_callback = lambda connection, name, first: context.asked.append(name)
        return context

    return make


def test_a_backend_of_the_given_authority(workshop, shake, backend, now_s):
    contexts = BackendContexts()
    tls = BackendTls(ca=workshop.authorities())
    context = contexts.get(tls, HttpVersion.HTTP1, now_s)
    assert context.check_hostname
    good = backend("b.test")
    shaken = shake(context, good, "b.test")
    assert (shaken.errors, good.asked) == ({}, ["b.test"])
    assert isinstance(
        shake(context, backend("b.test", ca=trustme.CA()), "b.test").errors["client"],
        ssl.SSLCertVerificationError,
    )


@pytest.mark.parametrize(("names", "asked"), [(["b.test"], "c.test"), (["b.test"], "10.0.0.1")])
def test_a_backend_of_another_name(workshop, backend, now_s, names, asked):
    context = BackendContexts().get(BackendTls(ca=workshop.authorities()), HttpVersion.HTTP1, now_s)
    with pytest.raises(ssl.SSLCertVerificationError):
        talk(context, backend(*names), asked)
    talk(context, backend(asked), asked)


def talk(client_context, server_context, name):
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=name)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        for side in (client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()


def test_the_systems_authorities_do_not_know_ours(shake, backend, now_s):
    context = BackendContexts().get(BackendTls(), HttpVersion.HTTP1, now_s)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert "client" in shake(context, backend("b.test"), "b.test").errors


def test_no_verification_still_asks_for_the_name(shake, backend, now_s):
    context = BackendContexts().get(BackendTls(verify=False), HttpVersion.HTTP1, now_s)
    other = backend("other.test", ca=trustme.CA())
    assert shake(context, other, "b.test").errors == {}
    assert other.asked == ["b.test"]


@pytest.mark.parametrize(("version", "picked"), [(HttpVersion.HTTP1, "http/1.1"), (HttpVersion.HTTP2, "h2")])
def test_alpn(workshop, shake, backend, now_s, version, picked):
    context = BackendContexts().get(BackendTls(ca=workshop.authorities()), version, now_s)
    assert shake(context, backend("b.test"), "b.test").client.selected_alpn_protocol() == picked


def test_a_certificate_of_our_own(workshop, shake, backend, now_s):
    mine = workshop.issue("proxy.test", file="mine")
    tls = BackendTls(ca=workshop.authorities(), certificate=mine.certificate, key=mine.key)
    asking = backend("b.test")
    workshop.ca.configure_trust(asking)
    asking.verify_mode = ssl.CERT_REQUIRED
    context = BackendContexts().get(tls, HttpVersion.HTTP1, now_s)
    assert shake(context, asking, "b.test").server.getpeercert()["subjectAltName"] == (("DNS", "proxy.test"),)


def test_one_context_for_each_configuration_until_its_files_change(workshop, shake, backend, now_s):
    contexts = BackendContexts()
    tls = BackendTls(ca=workshop.authorities())
    first = contexts.get(tls, HttpVersion.HTTP1, now_s)
    assert contexts.get(BackendTls(ca=tls.ca), HttpVersion.HTTP1, now_s) is first
    assert contexts.get(tls, HttpVersion.HTTP2, now_s) is not first
    assert not contexts.look(now_s)

    other = trustme.CA()
    other.cert_pem.write_to_path(tls.ca)
    assert contexts.look(now_s)
    second = contexts.get(tls, HttpVersion.HTTP1, now_s)
    assert second is not first
    assert shake(second, backend("b.test", ca=other), "b.test").errors == {}

    (workshop.folder / "ca.pem").write_bytes(b"")
    with structlog.testing.capture_logs() as said:
        assert not contexts.look(now_s)
        assert said == []
        assert not contexts.look(now_s)
    assert {line["event"] for line in said} == {"certificate.refused"}
    assert contexts.get(tls, HttpVersion.HTTP1, now_s) is second

    contexts.keep({(tls, HttpVersion.HTTP2)})
    assert isinstance(contexts.get(tls, HttpVersion.HTTP1, now_s), Unusable)


def test_what_cannot_be_used_is_a_value(workshop, now_s):
    contexts = BackendContexts()
    with structlog.testing.capture_logs() as said:
        found = contexts.get(BackendTls(ca="/nowhere.pem"), HttpVersion.HTTP1, now_s)
    assert (found.where, [line["event"] for line in said]) == ("/nowhere.pem", ["certificate.refused"])
    mine = workshop.issue("proxy.test")
    found = contexts.get(BackendTls(certificate=mine.certificate), HttpVersion.HTTP1, now_s)
    assert found.what == "has no private key"
