"""``explain request``, ``explain id`` and ``purge``; and ``explain NAME`` as it ever was."""

from __future__ import annotations

import json

import pluggy
import pytest

from marchproxy_core import hookspecs
from marchproxy_core.cli import looking
from marchproxy_core.model import Carries, Path, ProbeReport, Requirement, Verdict
from marchproxy_core.plugins import Tiers
from marchproxy_core.questions import Purge

hookimpl = pluggy.HookimplMarker(hookspecs.PROJECT)
FILE = """\
services:
  - {name: web, listen: "127.0.0.1:8002", http: true, hosts: [a.test], ip: 127.0.0.1, port: 8001}
  - {name: request, listen: "127.0.0.1:8003", ip: 127.0.0.1, port: 8001}
"""
ID = "0123456789ab00000001"


class Reader:
    """A tier that carries everything."""

    @hookimpl
    def probe(self, host, settings):
        met = Requirement(need="Linux", have=host.kernel_release, met=True)
        return ProbeReport(order=600, carries=Carries.CONNECTIONS, requirements=(met,))

    @hookimpl
    def classify(self, service, report):
        return Verdict(accept=True, path=Path.SLOW, reason="reads HTTP")


@pytest.fixture
def file(tmp_path, monkeypatch, only_explained):
    monkeypatch.setattr(looking, "discover", lambda: Tiers.of({"reader": only_explained(Reader)}))
    path = tmp_path / "rules.yaml"
    path.write_text(FILE)
    return path


def test_a_request_that_a_backend_would_get(invoke, file):
    result = invoke(
        "explain", "request", "GET", "http://a.test:8002/x", "-H", "Accept: */*", "--config", file
    )
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "GET http://a.test:8002/x"
    assert "tier of service web: reader" in lines
    assert any(line.split() == ["*", "Accept:", "*/*", "passed", "on"] for line in lines)
    assert lines[-1] == "a backend of web is asked"


def test_a_request_that_is_refused_is_status_1(invoke, file):
    result = invoke("explain", "--config", file, "request", "GET", "http://b.test:8002/", "--json")
    assert result.exit_code == 1
    explained = json.loads(result.stdout)
    assert (explained["asks_backend"], explained["status"], explained["reason"]) == (False, 404, "no_route")
    assert explained["decisions"][-1] == {
        "subject": "route",
        "chosen": None,
        "candidates": [{"name": "web a.test/", "taken": False, "reason": "host: b.test:8002 is not a.test"}],
    }
    text = invoke("explain", "request", "GET", "http://b.test:8002/", "--config", file)
    assert (text.exit_code, "route: refused" in text.stdout) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("GET", "a.test"), "want one as http://example.com/path"),
        (("GET", "http://a.test/", "-H", "nothing"), "'Name: value'"),
        (("GET", "http://a.test/", "--listen", "80"), "want IP:PORT"),
        (("GET",), "Missing argument 'URL'"),
    ],
)
def test_what_cannot_be_asked_is_status_2(invoke, file, arguments, says):
    result = invoke("explain", "request", *arguments, "--config", file)
    assert (result.exit_code, says in result.stderr) == (2, True)


@pytest.mark.parametrize("arguments", [("web",), ("request",), ("--json", "web"), ()])
def test_services_are_explained_by_their_names_as_ever(invoke, file, arguments):
    result = invoke("explain", *arguments, "--config", file)
    assert (result.exit_code, "reads HTTP" in result.stdout) == (0, True)
    assert ("rules.yaml:3" in result.stdout) is (arguments in (("request",), ()))


def test_help_names_both_ways(invoke):
    text = invoke("explain", "--help").stdout
    assert "explain [SERVICE] [--config FILE]" in " ".join(text.split())
    assert "  request  " in text
    assert "REQUEST_ID" in invoke("explain", "id", "--help").stdout


async def test_what_became_of_a_request_is_told_in_words(engine, ask):
    result = await ask("explain", "id", ID, "--admin", engine.address)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [
        f"request {ID}, over at 2026-01-02 03:04:05.678901Z, in application.0",
        "client    192.0.2.7, HTTP/1.1",
        "asked     GET /a?b=\\x1b[2J of host example.com",
        "route     example.com/ of service locked",
        "auth      let in as alice",
        "cache     did not have the answer",
        "try       10.0.0.4:80: reset, after 11.5 ms",
        "backend   none had an answer",
        "status    502: the proxy made it",
        "reason    backend_reset",
        "took      12.345 ms; 0 bytes of its body came, 42 of the answer's went",
    ]
    as_json = await ask("explain", "id", ID, "--json", "--admin", engine.address)
    assert json.loads(as_json.stdout)["attempts"][0]["error"] == "reset"


async def test_what_was_no_request_is_told_too(engine, ask):
    engine.requests["f0"] = {
        "timestamp": "2026-01-02T03:04:05Z",
        "process": "application.1",
        "id": "f0",
        "service": "web",
        "client": "192.0.2.1",
        "status": 404,
        "origin": "proxy",
        "reason": "no_route",
    }
    lines = (await ask("explain", "id", "f0", "--admin", engine.address)).stdout.splitlines()
    assert lines[2:] == [
        "route     none: it was no request of any service; its listener counts for web",
        "status    404: the proxy made it",
        "reason    no_route",
    ]


async def test_an_id_that_nobody_knows_is_status_5(engine, ask):
    result = await ask("explain", "id", "abc", "--admin", engine.address)
    assert (result.exit_code, "no worker remembers" in result.stderr) == (5, True)
    wrong = await ask("explain", "id", "../healthz", "--admin", engine.address)
    assert (wrong.exit_code, "want letters and digits" in wrong.stderr) == (2, True)


async def test_purge(engine, ask):
    result = await ask("purge", "locked", "--prefix", "/a/", "--admin", engine.address)
    assert (result.exit_code, result.stdout) == (0, "forgotten: 3 responses of locked\n")
    as_json = await ask("purge", "locked", "--json", "--admin", engine.address)
    assert json.loads(as_json.stdout) == {"service": "locked", "forgotten": 3, "silent_workers": 0}
    assert engine.purges == [Purge(service="locked", prefix=b"/a/"), Purge(service="locked")]


async def test_a_purge_that_a_worker_did_not_hear_is_status_1(engine, ask):
    engine.silent = 1
    result = await ask("purge", "locked", "--admin", engine.address)
    assert (result.exit_code, "workers that did not answer: 1" in result.stderr) == (1, True)


async def test_purges_that_cannot_be(engine, ask):
    for arguments, status, says in (
        (("web",), 5, "no service 'web' that has a cache"),
        (("locked", "--url", "/a"), 2, "want a URL"),
        (("locked", "--prefix", "a"), 2, "want a path"),
        (("locked", "--prefix", "/", "--url", "http://a/"), 2, "or neither"),
    ):
        result = await ask("purge", *arguments, "--admin", engine.address)
        assert (result.exit_code, says in result.stderr) == (status, True)
    assert engine.purges == []
