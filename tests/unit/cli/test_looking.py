import json

import pluggy
import pytest

from marchproxy_core import hookspecs
from marchproxy_core.cli import looking
from marchproxy_core.errors import TierFault
from marchproxy_core.model import Carries, Path, ProbeReport, Requirement, Verdict
from marchproxy_core.plugins import PluginRow, Tiers

hookimpl = pluggy.HookimplMarker(hookspecs.PROJECT)
FILE = """\
services:
  - name: web
    ip: 127.0.0.1
    port: 8001
    listen: 127.0.0.1:8002
settings:
  DRAIN_TIMEOUT: 7
"""


class Low:
    """A tier that carries every fast-path service."""

    @hookimpl
    def probe(self, host, settings):
        met = Requirement(need="Linux", have=host.kernel_release, met=True)
        return ProbeReport(order=700, carries=Carries.CONNECTIONS, requirements=(met,))

    @hookimpl
    def classify(self, service, report):
        return Verdict(accept=not service.slow_path_reasons, path=Path.FAST, reason="a plain relay")


class High(Low):
    """A tier that this host cannot run."""

    @hookimpl
    def probe(self, host, settings):
        unmet = Requirement(need="a NIC of gold", have="none", fix="buy one", met=False)
        return ProbeReport(order=100, carries=Carries.PACKETS, requirements=(unmet,))


@pytest.fixture
def two_tiers(monkeypatch, only_explained):
    whole = Tiers.of({"high": only_explained(High), "low": only_explained(Low)})
    torn = TierFault("torn", "import", "OSError: no such\x1b[2J library", "apt install it")
    row = PluginRow(name="torn", dist="torn-dist", version="9.1", value="torn.plugin", fault=torn)
    monkeypatch.setattr(looking, "discover", lambda: Tiers(whole._relay, (*whole.rows, row)))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text(FILE)
    return path


def test_good_file(invoke, file):
    result = invoke("check", "--config", file)
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "ok: 1 service")


def test_environment_alone_can_be_checked(invoke, monkeypatch):
    monkeypatch.setenv("DRAIN_TIMEOUT", "-1")
    result = invoke("check")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: env DRAIN_TIMEOUT")


def test_every_problem_has_its_line(invoke, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("services:\n  - name: web\n    ip: nowhere\n    port: http\n")
    result = invoke("check", "--config", path)
    assert (result.exit_code, result.stdout) == (2, "")
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"error: {path}:") for line in lines)


def test_print_shows_settings_with_their_origin(invoke, file, monkeypatch):
    monkeypatch.setenv("IDLE_TIMEOUT", "9")
    monkeypatch.setenv("ADMIN_TOKEN", "very-secret")
    result = invoke("check", "--print", "--config", file)
    rows = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line.strip()}
    assert rows["DRAIN_TIMEOUT"][1:] == ["7", f"{file}:7"]
    assert rows["IDLE_TIMEOUT"][1:] == ["9", "env", "IDLE_TIMEOUT"]
    assert rows["READ_TIMEOUT"][-1] == "default"
    assert rows["listen"] == ["listen", "127.0.0.1:8002"]
    assert "very-secret" not in result.stdout


def test_check_as_json(invoke, file, tmp_path):
    report = json.loads(invoke("check", "--json", "--config", file).stdout)
    assert report["ok"] is True
    assert report["services"][0]["name"] == "web"
    assert {"name": "DRAIN_TIMEOUT", "value": "7", "origin": f"{file}:7", "unset": ""} in report["settings"]
    refused = invoke("check", "--json", "--config", tmp_path / "none.yaml")
    assert refused.exit_code == 2
    assert json.loads(refused.stdout)["problems"][0]["what"] == "file"


def test_explain_offline_decides_on_this_host(two_tiers, invoke, file):
    result = invoke("explain", "--config", file)
    assert result.exit_code == 0
    assert f"web (tcp, fast path, {file}:2) -> low" in result.stdout
    assert "* low   a plain relay" in result.stdout
    assert "- high  refused: need a NIC of gold, have none" in result.stdout
    assert "buy one" in result.stdout


def test_explain_offline_as_json(two_tiers, invoke, file):
    report = json.loads(invoke("explain", "web", "--json", "--config", file).stdout)
    assert report["services"][0]["chosen"] == "low"
    assert {tier["name"]: tier["state"] for tier in report["tiers"]} == {
        "high": "refused",
        "low": "chosen",
        "torn": "broken",
    }


def test_plugins_say_version_fault_and_what_to_do(two_tiers, invoke):
    result = invoke("plugins")
    assert result.exit_code == 0
    torn = next(line for line in result.stdout.splitlines() if "torn-dist" in line)
    for expected in ("9.1", "torn.plugin", "import: OSError: no such\\x1b[2J library", "apt install it"):
        assert expected in torn
    assert "a NIC of gold" in result.stdout


def test_plugins_as_json(two_tiers, invoke):
    report = json.loads(invoke("plugins", "--json").stdout)
    assert [row["name"] for row in report["plugins"]] == ["high", "low", "torn"]
    assert report["plugins"][2]["fix"] == "apt install it"
    assert {tier["name"]: tier["state"] for tier in report["tiers"]}["low"] == "idle"


def test_no_plugin_at_all_says_what_to_install(monkeypatch, invoke):
    monkeypatch.setattr(looking, "discover", lambda: Tiers.of({}))
    assert "pip install marchproxy-sockets" in invoke("plugins").stdout


def test_markup_and_controls_in_names_are_shown_as_they_are(two_tiers, invoke, tmp_path):
    path = tmp_path / "[bold]x.yaml"
    path.write_text(FILE)
    assert "[bold]x.yaml:2" in invoke("explain", "--config", path).stdout
