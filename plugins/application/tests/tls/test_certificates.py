"""Certificates and authorities out of files, and what is said of those that cannot be used."""

import datetime
import os
import stat

import pytest
import trustme

from marchproxy_application.tls.certificates import KeyPair, authorities_from, key_pair_from
from marchproxy_application.unusable import Unusable
from marchproxy_core.services import Certificate


def bad(files):
    found = key_pair_from(files)
    assert isinstance(found, Unusable)
    assert found.fix
    return found


def test_a_certificate_with_its_key(workshop):
    until = datetime.datetime(2030, 1, 2, 3, 4, 5)
    files = workshop.issue("A.test", "*.b.test", not_after=until)
    pair = key_pair_from(files)
    assert isinstance(pair, KeyPair)
    assert (pair.names, pair.key_type, pair.files) == ({"a.test", "*.b.test"}, "ec", files)
    assert pair.not_after_s == until.replace(tzinfo=datetime.UTC).timestamp()
    assert len(pair.fingerprint) == 64
    assert "PRIVATE KEY" not in repr(pair)


@pytest.mark.parametrize("key_first", [True, False])
def test_both_in_one_file(workshop, key_first):
    files = workshop.issue("a.test", key_type=trustme.KeyType.RSA)
    with open(files.certificate, "rb") as chain, open(files.key, "rb") as key:
        parts = [chain.read(), key.read()]
    both = workshop.folder / "both.pem"
    both.write_bytes(b"".join(parts[::-1] if key_first else parts))
    pair = key_pair_from(Certificate(certificate=str(both)))
    assert isinstance(pair, KeyPair)
    assert (pair.names, pair.key_type) == ({"a.test"}, "rsa")


def test_parameters_before_an_ec_key_do_no_harm(workshop):
    files = workshop.issue("a.test")
    key = workshop.folder / "cert.key"
    # prime256v1, as `openssl ecparam -genkey` writes it
    key.write_bytes(
        b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" + key.read_bytes()
    )
    assert isinstance(key_pair_from(files), KeyPair)


def test_a_certificate_without_names_has_none(workshop):
    assert key_pair_from(workshop.issue(common_name="a.test")).names == frozenset()


def test_a_file_that_is_not_there(workshop):
    found = bad(Certificate(certificate=str(workshop.folder / "none.pem")))
    assert "none.pem: cannot be read: No such file or directory - fix:" in str(found)
    files = workshop.issue("a.test")
    os.unlink(files.key)
    assert bad(files).where == files.key


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_waited_for(workshop, make):
    path = str(workshop.folder / "odd")
    make(path)
    assert bad(Certificate(certificate=path)).where == path


def test_a_file_of_another_user(workshop):
    files = workshop.issue("a.test")
    if os.geteuid() == 0:
        os.chown(files.key, 12345, 12345)
        os.chmod(files.key, stat.S_IRUSR)
        child = os.fork()
        if child == 0:
            os.chmod(workshop.folder, 0o755)
            os.seteuid(54321)
            found = key_pair_from(files)
            os._exit(0 if isinstance(found, Unusable) and "ermission" in found.what else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    else:
        os.chmod(files.key, 0)
        assert "ermission" in bad(files).what


@pytest.mark.parametrize(
    "contents", [b"", b"hello", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_certificate(workshop, contents):
    files = workshop.issue("a.test")
    (workshop.folder / "cert.pem").write_bytes(contents)
    assert "no certificate that can be read" in bad(files).what


def test_half_a_file(workshop):
    files = workshop.issue("a.test")
    path = workshop.folder / "cert.pem"
    path.write_bytes(path.read_bytes()[:300])
    assert bad(files).where == files.certificate
    files = workshop.issue("a.test")
    path = workshop.folder / "cert.key"
    path.write_bytes(path.read_bytes()[:100])
    assert "no private key" in bad(files).what


def test_a_key_of_another_certificate(workshop):
    files = workshop.issue("a.test")
    other = workshop.issue("a.test", file="other")
    found = bad(Certificate(certificate=files.certificate, key=other.key))
    assert "is not the certificate of the key in " in found.what
    assert other.key in found.what


def test_a_chain_in_the_wrong_order(workshop):
    files = workshop.issue("a.test")
    path = workshop.folder / "cert.pem"
    path.write_bytes(workshop.ca.cert_pem.bytes() + path.read_bytes())
    assert "not the first one" in bad(files).what


def test_an_encrypted_key_is_not_asked_about_at_the_terminal(workshop, encrypted):
    files = workshop.issue("a.test")
    path = workshop.folder / "cert.key"
    path.write_bytes(encrypted(path.read_bytes(), b"secret"))
    found = bad(files)
    assert (found.where, found.what) == (files.key, "is encrypted")


def test_a_key_that_is_too_small_for_openssl(workshop):
    # Made here: trustme makes none that is so small.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 1024)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a.test")])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, start, start + datetime.timedelta(9999))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    path = workshop.folder / "small.pem"
    path.write_bytes(
        made
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    assert "ee key too small" in bad(Certificate(certificate=str(path))).what


def test_what_time_does_to_it(workshop):
    start, end = datetime.datetime(2026, 1, 1), datetime.datetime(2026, 4, 1)
    pair = key_pair_from(workshop.issue("a.test", not_before=start, not_after=end))
    assert pair.out_of_date(pair.not_before_s) is None
    assert pair.out_of_date(pair.not_after_s) is None
    assert "expired at 2026-04-01" in pair.out_of_date(pair.not_after_s + 1).what
    assert "not valid before 2026-01-01" in pair.out_of_date(pair.not_before_s - 1).what


def test_authorities(workshop):
    found = authorities_from(workshop.authorities())
    assert not isinstance(found, Unusable)
    assert not found.has_revocations


@pytest.mark.parametrize("contents", [b"", b"nothing", b"\xff\xfe"])
def test_what_has_no_authorities(workshop, contents):
    path = workshop.folder / "ca.pem"
    path.write_bytes(contents)
    found = authorities_from(str(path))
    assert isinstance(found, Unusable)
    assert found.where == str(path)
