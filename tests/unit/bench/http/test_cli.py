"""What the command lines ask for."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from bench import cli
from bench.http import cli as http
from bench.http.workloads import WITH_ONE, WITH_TWO
from bench.starting import TurnFailed


@pytest.fixture
def asked(monkeypatch):
    """What a run was asked for, in place of the run."""
    found = []
    monkeypatch.setattr(http, "run", lambda **asks: found.append(asks))
    monkeypatch.setattr(cli, "refuse_what_is_missing", lambda _tools: None)
    return found


def test_a_run_of_everything_has_few_rounds_of_http(asked, tmp_path):
    done = CliRunner().invoke(cli.main, ["--only", "http", "--rounds", "5", "--results", str(tmp_path)])

    assert done.exit_code == 0, done.output
    assert asked == [{"how": http.How(3, 3, True), "directory": tmp_path}]


def test_a_whole_run_is_recorded_and_a_part_is_not(asked):
    CliRunner().invoke(http.main, [])
    CliRunner().invoke(http.main, ["--only", "small"])
    CliRunner().invoke(http.main, ["--rounds", "1"])

    assert [one["directory"].name for one in asked] == ["results", "partial", "partial"]
    assert (asked[0]["workers"], asked[1]["only"]) == (("1", "2"), ("small",))


def test_a_peer_that_there_is_not_is_refused_with_those_that_there_are(asked):
    done = CliRunner().invoke(http.main, ["--peers", "apache"])

    assert done.exit_code == 2
    assert "'apache' is none of marchproxy-application, haproxy" in done.output
    assert asked == []


def test_a_host_that_lacks_a_generator_is_told_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0, 1})
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(TurnFailed, match="apt-get install nghttp2-client nginx-light openssl util-linux wrk"):
        http.run(how=http.How(1, 1, False), directory=tmp_path)


def test_workloads_have_names_of_their_own():
    names = [workload.name for workload in (*WITH_ONE, *WITH_TWO)]

    assert len(set(names)) == len(names)
