"""Clients that have to prove who they are, or may."""

import datetime
import ssl

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from marchproxy_application.tls.picking import Tenant
from marchproxy_application.tls.store import CertificateStore
from marchproxy_core.services import Tls

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def store_of(workshop, now_s, *, ca=None, optional=False):
    tls = Tls(
        certificates=(workshop.issue("a.test"),),
        client_ca=ca or workshop.authorities(),
        client_optional=optional,
    )
    store = CertificateStore([Tenant(service="web", tls=tls)])
    store.look(now_s)
    return store


def stranger(workshop):
    other = trustme.CA().issue_cert("me")
    context = workshop.client()
    other.configure_cert(context)
    return context


@pytest.mark.parametrize("most", VERSIONS)
def test_required(workshop, shake, now_s, most):
    store = store_of(workshop, now_s)
    mine = workshop.issue("me", file="me")
    shaken = shake(workshop.client(certificate=mine, most=most), store.context, "a.test")
    assert shaken.errors == {}
    assert shaken.server.getpeercert()["subjectAltName"] == (("DNS", "me"),)
    without = shake(workshop.client(most=most), store.context, "a.test")
    assert without.errors["server"].reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE"
    assert isinstance(
        shake(stranger(workshop), store.context, "a.test").errors["server"], ssl.SSLCertVerificationError
    )


def test_optional(workshop, shake, now_s):
    store = store_of(workshop, now_s, optional=True)
    without = shake(workshop.client(), store.context, "a.test")
    assert (without.errors, without.server.getpeercert()) == ({}, None)
    mine = workshop.issue("me", file="me")
    assert shake(workshop.client(certificate=mine), store.context, "a.test").server.getpeercert()
    assert "server" in shake(stranger(workshop), store.context, "a.test").errors


def test_an_authority_that_is_no_root_is_enough(workshop, shake, now_s):
    between = workshop.ca.create_child_ca()
    between.cert_pem.write_to_path(str(workshop.folder / "between.pem"))
    store = store_of(workshop, now_s, ca=str(workshop.folder / "between.pem"))
    context = workshop.client()
    between.issue_cert("me").configure_cert(context)
    assert shake(context, store.context, "a.test").errors == {}
    beside = workshop.issue("me", file="me")
    assert "server" in shake(workshop.client(certificate=beside), store.context, "a.test").errors


def revocations(ca, *revoked):
    key = serialization.load_pem_private_key(ca.private_key_pem.bytes(), None)
    issuer = x509.load_pem_x509_certificate(ca.cert_pem.bytes()).subject
    start = datetime.datetime(2020, 1, 1)
    crl = x509.CertificateRevocationListBuilder(issuer, start, datetime.datetime(2100, 1, 1))
    for path in revoked:
        with open(path, "rb") as file:
            serial = x509.load_pem_x509_certificate(file.read()).serial_number
        one = x509.RevokedCertificateBuilder(serial, start).build()
        crl = crl.add_revoked_certificate(one)
    return crl.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_a_revoked_one_is_refused_and_its_session_too(workshop, shake, now_s):
    store = store_of(workshop, now_s)
    mine, other = workshop.issue("me", file="me"), workshop.issue("other", file="other")
    client = workshop.client(certificate=mine)
    first = shake(client, store.context, "a.test")
    assert shake(client, store.context, "a.test", session=first.client.session).client.session_reused

    with open(workshop.folder / "ca.pem", "ab") as file:
        file.write(revocations(workshop.ca, mine.certificate))
    assert store.look(now_s)
    again = shake(client, store.context, "a.test", session=first.client.session)
    assert again.errors["server"].verify_message == "certificate revoked"
    assert shake(workshop.client(certificate=other), store.context, "a.test").errors == {}


def test_authorities_that_are_replaced(workshop, shake, now_s):
    store = store_of(workshop, now_s)
    mine = workshop.client(certificate=workshop.issue("me", file="me"))
    (workshop.folder / "ca.pem").write_bytes(b"not yet")
    assert not store.look(now_s)
    assert shake(mine, store.context, "a.test").errors == {}
    trustme.CA().cert_pem.write_to_path(str(workshop.folder / "ca.pem"))
    assert store.look(now_s)
    assert "server" in shake(mine, store.context, "a.test").errors


def test_without_authorities_nobody_comes_in(workshop, now_s):
    store = store_of(workshop, now_s, ca=str(workshop.folder / "none.pem"))
    assert store.context is None
    assert store.problems[0].where.endswith("none.pem")
    workshop.authorities("none.pem")
    assert store.look(now_s)
    assert store.context.verify_mode is ssl.CERT_REQUIRED


def test_services_that_share_a_listener_ask_the_same(workshop, now_s):
    files, ca = workshop.issue("a.test"), workshop.authorities()
    store = CertificateStore(
        [
            Tenant(service="open", hosts=("a.test",), tls=Tls(certificates=(files,))),
            Tenant(service="shut", hosts=("b.test",), tls=Tls(certificates=(files,), client_ca=ca)),
        ]
    )
    store.look(now_s)
    assert store.context is None
    assert "services open and shut: share a listener" in str(store.problems[0])
