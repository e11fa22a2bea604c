import json
import socket
import threading

import attrs
import pytest
import structlog

from marchproxy_core.admin.view import ReloadResult
from marchproxy_core.cli.client import AdminClient
from marchproxy_core.config import Settings, UnixAddress
from marchproxy_core.errors import ConfigError, ConfigProblem
from marchproxy_core.services import Endpoint


async def test_status_shows_tiers_services_and_backends(engine, ask):
    result = await ask("status", "--admin", engine.address)
    assert result.exit_code == 0
    for expected in (
        "ready, without a tier: locked",
        "refused",
        "carries 2 of 3",
        "reinstall torn",
        "10.0.0.3:53",
        "draining",
    ):
        assert expected in result.stdout
    web = next(line for line in result.stdout.splitlines() if line.startswith("web "))
    assert web.split()[-5:] == ["3", "12", "1000", "2000", "3"]


async def test_status_as_json(engine, ask):
    result = await ask("status", "--json", "--admin", engine.address)
    report = json.loads(result.stdout)
    assert set(report) == {"daemon", "ready", "tiers", "services", "backends"}
    assert [tier["name"] for tier in report["tiers"]] == ["xdp", "ebpf", "sockets", "torn"]


async def test_status_of_a_daemon_that_is_not_ready_is_shown(engine, ask):
    engine.ready = False
    result = await ask("status", "--admin", engine.address)
    assert (result.exit_code, "not ready" in result.stdout) == (0, True)


async def test_explain_says_why_for_each_tier(engine, ask):
    result = await ask("explain", "web", "--admin", engine.address)
    assert result.exit_code == 0
    assert "web (tcp, fast path, rules.yaml:3) -> sockets" in result.stdout
    assert "- xdp      refused: need CAP_BPF, have none" in result.stdout
    assert "locked" not in result.stdout
    assert "(could not tell)" in result.stdout


async def test_explain_as_json_has_the_decision(engine, ask):
    report = json.loads((await ask("explain", "locked", "--json", "--admin", engine.address)).stdout)
    assert [service["name"] for service in report["services"]] == ["locked"]
    assert report["services"][0]["chosen"] is None


async def test_explain_of_an_unknown_service_names_the_nearest(engine, ask):
    result = await ask("explain", "wep", "--admin", engine.address)
    assert result.exit_code == 2
    assert "did you mean web?" in result.stderr


async def test_reload_shows_the_difference(engine, ask):
    engine.on_reload = lambda: ReloadResult(added=("new",), needs_restart=("ADMIN_LISTEN",))
    result = await ask("reload", "--admin", engine.address)
    assert result.exit_code == 0
    assert result.stdout == "added: new\nneeds restart: ADMIN_LISTEN\n"
    as_json = await ask("reload", "--json", "--admin", engine.address)
    assert json.loads(as_json.stdout)["added"] == ["new"]
    assert engine.reloads == 2


async def test_refused_reload_gives_a_line_for_each_problem_and_status_2(engine, ask):
    def refuse():
        raise ConfigError((ConfigProblem("a:1", "x", "1", "2"), ConfigProblem("a:2", "y", "1", "\x1b[2J")))

    engine.on_reload = refuse
    result = await ask("reload", "--admin", engine.address)
    assert result.exit_code == 2
    assert result.stderr == "error: a:1: x: got 1, want 2\nerror: a:2: y: got 1, want \\x1b[2J\n"


async def test_block_adds_lists_and_removes(engine, ask):
    added = await ask("block", "add", "198.51.100.0/24", "--admin", engine.address)
    assert (added.exit_code, added.stdout) == (
        0,
        "blocked: 198.51.100.0/24\nkept by: ebpf\nnot kept by: sockets\n",
    )
    more = ("--service", "web", "--allow", "--for", "10m", "--admin", engine.address)
    allowed = await ask("block", "add", "2001:db8::7", *more)
    assert allowed.stdout.splitlines()[0] == "let in: 2001:db8::7/128 to service web"
    listed = (await ask("block", "list", "--admin", engine.address)).stdout.splitlines()
    rows = [line.split() for line in listed]
    assert ["198.51.100.0/24", "block", "all", "command", "-"] in rows
    assert any(row[:4] == ["2001:db8::7/128", "allow", "web", "command"] for row in rows)
    removed = await ask("block", "remove", "198.51.100.0/24", "--json", "--admin", engine.address)
    assert [rule["prefix"] for rule in json.loads(removed.stdout)["rules"]] == ["2001:db8::7/128"]


async def test_block_that_the_daemon_refuses_is_status_5_and_what_is_no_prefix_status_2(engine, ask):
    refused = await ask("block", "add", "10.0.0.0/8", "--service", "wep", "--admin", engine.address)
    assert (refused.exit_code, "did you mean web?" in refused.stderr) == (5, True)
    wrong = await ask("block", "add", "10.0.0.1/8", "--admin", engine.address)
    assert (wrong.exit_code, "did you mean 10.0.0.0/8?" in wrong.stderr) == (2, True)
    assert engine.door() == ()


async def test_drain(engine, ask):
    result = await ask("drain", "--admin", engine.address)
    assert (result.exit_code, result.stdout) == (
        0,
        "draining: connections have 30 s to end, then the daemon exits\n",
    )
    await engine.drained.wait()


async def test_address_and_token_from_the_environment(make_engine, serving, ask, socket_path, monkeypatch):
    settings = Settings(admin_listen=UnixAddress(str(socket_path)), admin_token="secret")
    with structlog.testing.capture_logs():
        async with serving(make_engine(settings)):
            monkeypatch.setenv("ADMIN_LISTEN", f"unix:{socket_path}")
            refused = await ask("reload")
            assert refused.exit_code == 5
            assert "refused: this needs the header" in refused.stderr
            assert "fix: set ADMIN_TOKEN" in refused.stderr
            monkeypatch.setenv("ADMIN_TOKEN", "secret")
            assert (await ask("reload")).exit_code == 0


@pytest.mark.parametrize("command", ["status", "explain"])
async def test_what_only_reads_sends_the_token_too(make_engine, serving, ask, monkeypatch, command):
    everywhere = attrs.evolve(Endpoint.parse("0.0.0.0:1"), port=0)
    settings = Settings(admin_listen=everywhere, admin_token="secret")
    with structlog.testing.capture_logs():
        async with serving(make_engine(settings)) as client:
            address = f"127.0.0.1:{client.base_url.port}"
            refused = await ask(command, "--admin", address)
            assert (refused.exit_code, "fix: set ADMIN_TOKEN" in refused.stderr) == (5, True)
            monkeypatch.setenv("ADMIN_TOKEN", "secret")
            assert (await ask(command, "--admin", address)).exit_code == 0


@pytest.mark.parametrize("command", ["status", "explain", "reload", "drain"])
def test_no_daemon_is_one_line_and_status_5(invoke, command, tmp_path):
    result = invoke(command, "--admin", f"unix:{tmp_path}/none.sock")
    assert result.exit_code == 5
    assert result.stderr.startswith(f"error: no daemon answers at unix:{tmp_path}/none.sock: No such file")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("address", ["nowhere", "1.2.3.4", "host:port", ":80", "host:99999", ""])
def test_wrong_address_is_status_5(invoke, address, monkeypatch):
    monkeypatch.setenv("ADMIN_LISTEN", "nowhere")
    result = invoke("status", "--admin", address)
    assert result.exit_code == 5
    assert "want HOST:PORT, [IPV6]:PORT or unix:/path" in result.stderr


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{",
        b"",
    ],
)
def test_what_is_no_daemon_is_told_so(invoke, answer):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        result = invoke("drain", "--admin", f"127.0.0.1:{listener.getsockname()[1]}")
        thread.join()
    assert result.exit_code == 5
    assert result.stderr.startswith("error: ")
    assert "--admin" in result.stderr
    assert result.stderr.count("\n") == 1


def test_daemon_on_every_address_is_reached_over_loopback():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = AdminClient(address=f"0.0.0.0:{listener.getsockname()[1]}")
        connection = client._connect(5)
        connection.connect()
        connection.close()
