"""Whatever is wrong with an installed plugin, it is one row that says what, where and what to do; the rest works."""

from __future__ import annotations

import re

import attrs
import pytest


@attrs.frozen(kw_only=True)
class Broken:
    """A plugin that is wrong in one way, and what an operator reads of it."""

    tier: str
    source: str
    module: str = "plugin"
    stage: str
    what: str
    """A pattern."""
    fix: str


def replaced(function, by):
    """Put one hook in place of another."""

    def change(hooks):
        start = hooks.index(f"@hookimpl\ndef {function}(")
        end = hooks.find("@hookimpl", start + 1)
        return hooks[:start] + by + "\n\n" + (hooks[end:] if end > 0 else "")

    return change


def after(text):
    """Begin the module so."""
    return lambda hooks: text + hooks


FAULTS = (
    Broken(
        tier="no-module",
        source=after("import a_library_that_nobody_has\n"),
        stage="import",
        what="ModuleNotFoundError: .*'a_library_that_nobody_has'",
        fix="install what provides the module 'a_library_that_nobody_has'",
    ),
    Broken(
        tier="no-library",
        source=after("import ctypes\nctypes.CDLL('libnobodyhas.so.7')\n"),
        stage="import",
        what=r"OSError: libnobodyhas\.so\.7: cannot open shared object file",
        fix="install the system package with that library",
    ),
    Broken(
        tier="exits",
        source=after("raise SystemExit('this tier wants a licence')\n"),
        stage="import",
        what="SystemExit: this tier wants a licence",
        fix="update or uninstall broken-exits",
    ),
    Broken(
        tier="syntax",
        source=after("def probe(:\n"),
        stage="import",
        what="SyntaxError: ",
        fix="update or uninstall broken-syntax",
    ),
    Broken(
        tier="nowhere",
        source=after(""),
        module="plugins",
        stage="import",
        what="ModuleNotFoundError: .*broken_nowhere.plugins",
        fix="reinstall broken-nowhere",
    ),
    Broken(
        tier="misspelt",
        source=replaced("probe", "@hookimpl\ndef prob(host, settings):\n    return None"),
        stage="register",
        what="unknown hook prob; the hooks are probe, classify, attach, forward, stats",
        fix="implement the five hooks",
    ),
    Broken(
        tier="too-few",
        source=replaced("stats", ""),
        stage="register",
        what="lacks the hook stats",
        fix="implement the five hooks",
    ),
    Broken(
        tier="async",
        source=replaced("probe", "@hookimpl\nasync def probe(host, settings):\n    return None"),
        stage="register",
        what="hook 'probe' is async",
        fix="implement the five hooks",
    ),
)

MISBEHAVIOURS = (
    Broken(
        tier="raises",
        source=replaced("probe", "@hookimpl\ndef probe():\n    raise RuntimeError('no idea')"),
        stage="probe",
        what="RuntimeError: no idea",
        fix="update or uninstall the plugin",
    ),
    Broken(
        tier="hangs",
        source=replaced(
            "probe", "@hookimpl\ndef probe():\n    import threading\n    threading.Event().wait()"
        ),
        stage="probe",
        what="hung: no answer within 1 s",
        fix="update the plugin",
    ),
    Broken(
        tier="talks-rubbish",
        source=replaced("probe", "@hookimpl\ndef probe():\n    return {'usable': True}"),
        stage="probe",
        what="returned dict, want ProbeReport",
        fix="see docs/writing_a_tier.md",
    ),
)

REFUSERS = (
    Broken(
        tier="cannot-judge",
        source=replaced("classify", "@hookimpl\ndef classify(service):\n    raise KeyError('backends')"),
        stage="classify",
        what="KeyError: 'backends'",
        fix="update or uninstall the plugin",
    ),
    Broken(
        tier="judges-for-ever",
        source=replaced(
            "classify", "@hookimpl\ndef classify():\n    import threading\n    threading.Event().wait()"
        ),
        stage="classify",
        what="hung: no answer within 1 s",
        fix="update the plugin",
    ),
)

CONFIG = """
services:
  - {name: web, listen: "127.0.0.1:18080", backends: [{ip: 127.0.0.1, port: 18081}]}
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory, write_distribution, copy_template, hooks, pip):
    """The template and every broken plugin side by side."""
    sources = tmp_path_factory.mktemp("sources")
    written = [copy_template(sources / "template")]
    for broken in (*FAULTS, *MISBEHAVIOURS, *REFUSERS):
        name = f"broken-{broken.tier}"
        source = broken.source(hooks)
        written.append(write_distribution(sources / name, name, broken.tier, source, broken.module))
    twins = ("twin-one", "twin-two")
    written += [write_distribution(sources / name, name, "twin", hooks) for name in twins]
    target = tmp_path_factory.mktemp("installed")
    pip("install", "--no-deps", "--no-build-isolation", "--target", target, *written)
    return target


@pytest.fixture(scope="module")
def listed(installed, marchproxy):
    """What ``marchproxy plugins`` says."""
    return marchproxy(installed, "plugins", "--json")


@pytest.fixture(scope="module")
def explained(installed, marchproxy, tmp_path_factory):
    """What ``marchproxy explain`` says."""
    config = tmp_path_factory.mktemp("config") / "marchproxy.yaml"
    config.write_text(CONFIG)
    first = {"TIER_ORDER": "my-tier"}  # above whatever else is installed
    return marchproxy(installed, "explain", "--config", config, "--json", environ=first)


def the_row(rows, name):
    (row,) = [row for row in rows if row["name"] == name]
    return row


@pytest.mark.parametrize("broken", FAULTS, ids=lambda broken: broken.tier)
def test_a_plugin_that_cannot_be_loaded_is_a_row_with_what_where_and_what_to_do(broken, listed):
    row = the_row(listed["plugins"], broken.tier)
    package = f"broken_{broken.tier}".replace("-", "_")
    assert (row["distribution"], row["version"]) == (f"broken-{broken.tier}", "1.0")
    assert row["value"] == f"{package}.{broken.module}"
    assert re.match(f"{broken.stage}: .*{broken.what}", row["fault"])
    assert broken.fix in row["fix"]
    assert_broken(the_row(listed["tiers"], broken.tier), broken)


@pytest.mark.parametrize("broken", MISBEHAVIOURS, ids=lambda broken: broken.tier)
def test_a_plugin_that_loads_and_misbehaves_is_a_broken_tier(broken, listed):
    assert the_row(listed["plugins"], broken.tier)["fault"] == ""
    assert_broken(the_row(listed["tiers"], broken.tier), broken)


def assert_broken(row, broken):
    assert row["state"] == "broken"
    assert re.match(f"tier '{broken.tier}' failed at {broken.stage}: .*{broken.what}", row["reason"])
    assert broken.fix in row["fix"] + row["reason"]


def test_of_two_plugins_with_one_name_neither_is_used_and_each_row_names_both(listed):
    rows = [row for row in listed["plugins"] if row["name"] == "twin"]
    assert {row["distribution"] for row in rows} == {"twin-one", "twin-two"}
    for row in rows:
        assert row["fault"] == (
            "register: two plugins have this name: twin-one (twin_one.plugin) and twin-two (twin_two.plugin)"
        )
        assert row["fix"] == "uninstall one of them"
    assert the_row(listed["tiers"], "twin")["state"] == "broken"


@pytest.mark.parametrize("broken", [*FAULTS, *MISBEHAVIOURS, *REFUSERS], ids=lambda broken: broken.tier)
def test_explain_names_each_of_them_as_not_taken_with_its_reason(broken, explained):
    (service,) = explained["services"]
    candidate = the_row(service["decision"]["candidates"], broken.tier)
    assert candidate["taken"] is False
    assert re.search(
        f"failed at {broken.stage}: .*{broken.what}.* - fix: .*{broken.fix}", candidate["reason"]
    )


def test_the_good_tier_beside_them_carries_the_service(listed, explained):
    row = the_row(listed["plugins"], "my-tier")
    assert (row["fault"], row["fix"]) == ("", "")
    assert the_row(listed["tiers"], "my-tier")["state"] == "idle"
    assert explained["services"][0]["chosen"] == "my-tier"
    assert the_row(explained["tiers"], "my-tier")["state"] == "chosen"


def test_the_table_for_people_names_every_one_too(installed, marchproxy, listed):
    shown = marchproxy(installed, "plugins")
    for row in listed["plugins"]:
        assert row["name"] in shown
    _, tiers = shown.split("\nTiers")
    for row in listed["tiers"]:
        (line,) = [line for line in tiers.splitlines() if line.startswith(f"{row['name']} ")]
        assert line.count("fix:") == (row["state"] == "broken"), line
