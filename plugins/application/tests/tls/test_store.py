"""Certificates replaced while a listener runs: what new connections get, and what the log says."""

import datetime
import os

import pytest
import structlog

from marchproxy_application.tls.picking import Tenant
from marchproxy_application.tls.store import DAY_S, CertificateStore
from marchproxy_core.services import Certificate, Tls

EVENTS = ("certificate.loaded", "certificate.refused", "certificate.expiry_neared")


def store_of(*certificates, **tls):
    return CertificateStore([Tenant(service="web", tls=Tls(certificates=certificates, **tls))])


def day(unix_s):
    return datetime.datetime.fromtimestamp(unix_s, datetime.UTC).replace(tzinfo=None)


@pytest.fixture
def said():
    """Gather what is logged, as pairs of event and the rest."""
    with structlog.testing.capture_logs() as lines:
        yield lines


def events(said):
    names = [line["event"] for line in said]
    said.clear()
    assert set(names) <= set(EVENTS)
    return names


def test_a_new_certificate_is_for_new_connections(workshop, shake, said, now_s):
    store = store_of(workshop.issue("a.test"))
    assert store.look(now_s)
    before = shake(workshop.client(), store.context, "a.test")
    assert events(said) == ["certificate.loaded"]

    assert not store.look(now_s)
    workshop.issue("a.test", "new.test")
    assert store.look(now_s)
    assert said[0]["names"] == ["a.test", "new.test"]
    assert events(said) == ["certificate.loaded"]
    after = shake(workshop.client(), store.context, "a.test")
    assert (before.names, after.names) == (["a.test"], ["a.test", "new.test"])

    assert before.server.write(b"still here") == len(b"still here")


def test_a_session_outlives_a_renewal(workshop, shake, now_s):
    store = store_of(workshop.issue("a.test"))
    store.look(now_s)
    client = workshop.client()
    first = shake(client, store.context, "a.test")
    workshop.issue("a.test")
    assert store.look(now_s)
    assert shake(client, store.context, "a.test", session=first.client.session).client.session_reused


def test_a_bad_renewal_leaves_the_old_one(workshop, shake, said, now_s):
    store = store_of(files := workshop.issue("a.test"))
    store.look(now_s)
    events(said)
    other = workshop.issue("a.test", file="other")
    os.replace(other.certificate, files.certificate)

    assert not store.look(now_s)
    assert events(said) == [], "its key may be on its way"
    assert not store.look(now_s)
    assert said[0] == {
        "event": "certificate.refused",
        "log_level": "warning",
        "certificate": files.certificate,
        "reason": f"{files.certificate} is not the certificate of the key in {files.key}",
        "fix": "install both files of one renewal",
        "kept": True,
    }
    assert events(said) == ["certificate.refused"]
    assert not store.look(now_s)
    assert events(said) == [], "said once"
    assert [problem.where for problem in store.problems] == [files.certificate]
    assert shake(workshop.client(), store.context, "a.test").errors == {}

    os.replace(other.key, files.key)
    assert store.look(now_s)
    assert events(said) == ["certificate.loaded"]
    assert store.problems == ()


def test_one_that_is_mended_in_between_is_not_spoken_of(workshop, said, now_s):
    store = store_of(files := workshop.issue("a.test"))
    store.look(now_s)
    events(said)
    other = workshop.issue("a.test", file="other")
    os.replace(other.certificate, files.certificate)
    store.look(now_s)
    os.replace(other.key, files.key)
    assert store.look(now_s)
    assert events(said) == ["certificate.loaded"]


def test_files_that_come_back_as_they_were_change_nothing(workshop, said, now_s):
    store = store_of(files := workshop.issue("a.test"))
    store.look(now_s)
    os.rename(files.certificate, files.certificate + ".away")
    assert not store.look(now_s)
    assert not store.look(now_s)
    os.rename(files.certificate + ".away", files.certificate)
    assert not store.look(now_s)
    assert events(said) == ["certificate.loaded", "certificate.refused"]


def test_a_link_that_leads_elsewhere(workshop, shake, now_s):
    live = workshop.folder / "live.pem"
    for number, names in enumerate((["a.test"], ["b.test"])):
        files = workshop.issue(*names, file=str(number))
        with open(files.certificate, "ab") as both, open(files.key, "rb") as key:
            both.write(key.read())
    live.symlink_to("0.pem")
    store = store_of(Certificate(certificate=str(live)))
    store.look(now_s)
    (workshop.folder / "new").symlink_to("1.pem")
    os.replace(workshop.folder / "new", live)
    assert store.look(now_s)
    assert shake(workshop.client(), store.context, None).names == ["b.test"]


def test_the_same_size_and_time_do_not_hide_a_change(workshop, now_s):
    store = store_of(files := workshop.issue("a.test"))
    store.look(now_s)
    times = os.stat(files.certificate)
    with open(files.certificate, "r+b") as file:
        file.write(b"#" * 27)
    os.utime(files.certificate, ns=(times.st_atime_ns, times.st_mtime_ns))
    store.look(now_s)
    assert len(store.problems) == 1


def test_without_a_certificate_there_is_no_context_until_there_is_one(workshop, said, now_s):
    files = workshop.issue("a.test")
    os.rename(files.certificate, files.certificate + ".away")
    store = store_of(files)
    assert not store.look(now_s)
    assert store.context is None
    assert said[0]["kept"] is False
    os.rename(files.certificate + ".away", files.certificate)
    assert store.look(now_s)
    assert store.context is not None
    assert events(said) == ["certificate.refused", "certificate.loaded"]


def test_one_bad_certificate_does_not_take_the_others_along(workshop, shake, now_s):
    good = workshop.issue("a.test")
    store = store_of(Certificate(certificate="/nowhere.pem"), good)
    store.look(now_s)
    assert shake(workshop.client(), store.context, "b.test").names == ["a.test"]


def test_only_one_of_the_workers_speaks(workshop, said, now_s):
    files = workshop.issue("a.test")
    tenants = [Tenant(service="web", tls=Tls(certificates=(files, Certificate(certificate="/nowhere.pem"))))]
    store = CertificateStore(tenants, speaks=False)
    assert store.look(now_s)
    assert events(said) == []


def test_its_end_is_warned_about_once_a_day(workshop, said, now_s):
    files = workshop.issue("a.test", not_before=day(now_s - 60 * DAY_S), not_after=day(now_s + 30 * DAY_S))
    store = store_of(files)
    store.look(now_s)
    assert events(said) == ["certificate.loaded"]
    store.look(now_s + 9 * DAY_S - 1)
    assert events(said) == []
    store.look(now_s + 9.5 * DAY_S)
    assert (said[0]["left_days"], said[0]["names"]) == (20.5, ["a.test"])
    assert events(said) == ["certificate.expiry_neared"]
    store.look(now_s + 9.6 * DAY_S)
    assert events(said) == []
    store.look(now_s + 10.5 * DAY_S)
    assert events(said) == ["certificate.expiry_neared"]
    store.look(now_s + 30.1 * DAY_S)
    assert "expired at" in said[0]["reason"]
    assert events(said) == ["certificate.refused"]
    store.look(now_s + 30.2 * DAY_S)
    assert events(said) == []
    assert store.context is not None


def test_a_short_life_is_warned_about_late(workshop, said, now_s):
    files = workshop.issue("a.test", not_before=day(now_s), not_after=day(now_s + 6 * DAY_S))
    store = store_of(files)
    store.look(now_s + 3 * DAY_S)
    assert events(said) == ["certificate.loaded"]
    store.look(now_s + 4.1 * DAY_S)
    assert events(said) == ["certificate.expiry_neared"]


def test_an_expired_one_is_used_where_there_is_nothing_better(workshop, shake, said, now_s):
    old = workshop.issue("a.test", not_before=day(now_s - 9 * DAY_S), not_after=day(now_s - DAY_S))
    store = store_of(old)
    assert store.look(now_s)
    assert events(said) == ["certificate.loaded", "certificate.refused"]
    client = workshop.client()
    assert "client" in shake(client, store.context, "a.test").errors, "clients who look will not have it"
    workshop.issue("a.test", "good.test")
    assert store.look(now_s)
    workshop.issue("a.test", not_before=day(now_s - 9 * DAY_S), not_after=day(now_s - DAY_S))
    assert not store.look(now_s)
    assert not store.look(now_s)
    assert events(said) == ["certificate.loaded", "certificate.refused"]
    assert "good.test" in shake(client, store.context, "a.test").names


def test_what_is_passed_through_is_none_of_ours(workshop, now_s):
    passed = Tenant(service="raw", tls=Tls(passthrough=True, hosts=("raw.test",)))
    store = CertificateStore([passed])
    assert not store.look(now_s)
    assert store.context is None
    assert store.problems == ()
