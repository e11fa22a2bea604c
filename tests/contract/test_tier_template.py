"""The tier template does what docs/writing_a_tier.md says: it builds, is found, keeps the laws, carries clients."""

from __future__ import annotations

import ast
import signal
import subprocess
import sys

import pytest
import trio

from marchproxy_core.testing import open_loopback_wire, until
from marchproxy_core.testing.servers import tcp_server


@pytest.fixture(scope="module")
def template(tmp_path_factory, copy_template):
    """A copy of the template, as an author makes one."""
    return copy_template(tmp_path_factory.mktemp("author") / "my_tier")


@pytest.fixture(scope="module")
def installed(tmp_path_factory, template, pip):
    """The template's wheel, built and installed."""
    wheels, target = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("installed")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, template)
    pip("install", "--no-deps", "--no-index", "--target", target, *wheels.iterdir())
    return target


def test_its_wheel_is_found_and_usable(installed, marchproxy):
    report = marchproxy(installed, "plugins", "--json")
    (plugin,) = [row for row in report["plugins"] if row["name"] == "my-tier"]
    assert (plugin["distribution"], plugin["value"], plugin["fault"]) == (
        "marchproxy-my-tier",
        "my_tier.plugin",
        "",
    )
    (tier,) = [row for row in report["tiers"] if row["name"] == "my-tier"]
    assert (tier["state"], tier["order"]) == ("idle", 650)
    (need,) = tier["requirements"]
    assert need["met"] is True


def test_it_is_switched_off_by_a_variable_with_its_name(installed, marchproxy):
    report = marchproxy(installed, "plugins", "--json", environ={"ENABLE_MY_TIER": "false"})
    (tier,) = [row for row in report["tiers"] if row["name"] == "my-tier"]
    assert tier["state"] == "disabled"


async def test_a_daemon_with_it_serves_clients_and_drains(installed, start_marchproxy, tmp_path):
    async with open_loopback_wire() as wire, tcp_server(wire, name=b"hello ") as server:
        front = wire.free_port("tcp", 4)
        config = tmp_path / "marchproxy.yaml"
        config.write_text(
            f"services: [{{name: web, listen: '{front}', backends: [{{ip: {server.endpoint.ip}, "
            f"port: {server.endpoint.port}}}]}}]\n"
        )
        environ = {"TIER_ORDER": "my-tier", "ADMIN_LISTEN": f"unix:{tmp_path / 'admin.sock'}"}
        with start_marchproxy(installed, "run", "--config", config, environ=environ) as daemon:
            try:

                async def answers():
                    assert daemon.poll() is None, daemon.stderr.read()
                    try:
                        async with await wire.connect(front) as client:
                            await client.send_all(b"world")
                            await client.send_eof()
                            return await client.receive_some() == b"hello world"
                    except (OSError, trio.BrokenResourceError):
                        return False

                await until(answers, what="a client that is served")
                daemon.send_signal(signal.SIGTERM)
                assert await trio.to_thread.run_sync(daemon.wait, 30) == 0
            finally:
                daemon.kill()


def test_it_keeps_the_laws_in_its_own_tree(template, installed):
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"],
        cwd=template,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(installed), "CI": "true"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    assert "it relays TCP only" in result.stdout


def test_its_product_code_does_without_the_kit(template):
    for file in (template / "my_tier").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [name for name in names if name.startswith("marchproxy_core.testing")]
