"""Backends that fail and come back: found by checks or by clients, and told the same everywhere."""

from __future__ import annotations

import json

from marchproxy_core.testing import until

CHECK = {"interval": 0.1, "timeout": 0.1, "rise": 2, "fall": 2}
STATES = {"up", "down", "ejected", "draining", "unchecked"}


async def met_by(service, count=20):
    """Return what so many new clients meet with."""
    return {await service.visit() for _ in range(count)}


async def meets(service, *wanted):
    """Wait until new clients meet with exactly these; workers hear of a change within moments."""

    async def reached():
        return await met_by(service) == set(wanted)

    await until(reached, deadline_s=30, what=f"new clients meet with {wanted}")


async def shown_states(daemon):
    """Return each backend's state, by port, as the command, the endpoint and the metrics have it."""
    command = await daemon.run("status", "--json")
    assert command.status == 0, command.errors
    of_command = {row["backend"]: row["state"] for row in json.loads(command.output)["backends"]}
    of_endpoint = {row["backend"]: row["state"] for row in (await daemon.backends()).values()}
    of_metrics = {
        backend: state
        for backend in of_endpoint
        for state in STATES
        if await daemon.metric("marchproxy_backend_health", backend=backend, state=state) == 1
    }
    assert of_command == of_endpoint == of_metrics
    return {int(backend.rpartition(":")[2]): state for backend, state in of_endpoint.items()}


async def test_a_tcp_check_takes_a_backend_out_and_back_and_all_say_so(site):
    a, b = await site.server("a"), await site.server("b")
    web = site.service("web", a, b, health_check={"type": "tcp", **CHECK})
    daemon = await site.start(web)
    await daemon.has_backend(a.port, "up")
    await daemon.has_backend(b.port, "up")
    established = [await web.call() for _ in range(8)]
    await b.stop()
    await daemon.has_backend(b.port, "down")
    assert await shown_states(daemon) == {a.port: "up", b.port: "down"}
    assert "b" not in await met_by(web)
    row = (await daemon.backends())[b.port]
    assert "refused" in row["reason"]
    assert row["failures_total"] >= 2
    for client in established:  # what is established goes on at a backend that is down
        assert await client.echoes()
        assert await client.end() == "ended"
    await b.start()
    await daemon.has_backend(b.port, "up")
    await meets(web, "a", "b")
    assert await shown_states(daemon) == {a.port: "up", b.port: "up"}
    await daemon.told("backend.went_down", service="web", backend=f"127.0.0.1:{b.port}")
    await daemon.told("backend.went_up", service="web", backend=f"127.0.0.1:{b.port}")


async def test_an_http_check_goes_by_the_status(site):
    a, b = await site.server("a"), await site.server("b")
    checked = await site.server("c", status=200)
    web = site.service("web", a, b)
    checks = {"type": "http", "port": checked.port, "path": "/health", "expect_status": "200-299"}
    web.options["health_check"] = CHECK | checks
    other = site.service("other", a)
    daemon = await site.start(web, other)
    await daemon.told("backend.went_up", 2, service="web")
    checked.status = 503
    await daemon.told("backend.went_down", 2, service="web")
    for row in (await daemon.ask("/admin/backends/health")).json()["backends"]:
        expected = ("down", "status 503") if row["service"] == "web" else ("unchecked", "")
        assert (row["state"], row["last_error"]) == expected
    assert await met_by(web) == {"a", "b"}  # all down by checks: what still works is used
    checked.status = 204
    await daemon.told("backend.went_up", 4, service="web")


async def test_a_backend_that_refuses_costs_no_client_and_is_ejected(site):
    a = await site.server("a")
    nobody = site.nobody()
    web = site.service("web", a)
    web.options["backends"].append(nobody)
    daemon = await site.start(web)
    for _ in range(40):
        assert await web.visit() == "a"
    await daemon.has_backend(nobody["port"], "ejected")
    assert await shown_states(daemon) == {a.port: "unchecked", nobody["port"]: "ejected"}
    row = (await daemon.backends())[nobody["port"]]
    assert "refused" in row["last_error"]
    failures = row["failures_total"]
    assert await met_by(web) == {"a"}
    assert (await daemon.backends())[nobody["port"]]["failures_total"] == failures  # no new client went there
    await daemon.told("backend.ejected", service="web")
    assert await daemon.metric("marchproxy_drops_total", service="web") == 0


async def test_an_ejected_backend_that_works_again_comes_back_after_its_pause(site):
    a, b = await site.server("a"), await site.server("b")
    await b.stop()
    web = site.service("web", a, b)
    daemon = await site.start(web)
    for _ in range(40):
        assert await web.visit() == "a"
    await daemon.has_backend(b.port, "ejected")
    await b.start()
    await daemon.has_backend(b.port, "unchecked")
    await daemon.told("backend.readmitted", service="web")
    await meets(web, "a", "b")


async def test_with_every_backend_down_clients_are_reset_and_counted_until_one_is_back(site):
    a, b = await site.server("a"), await site.server("b")
    web = site.service("web", a, b, health_check={"type": "tcp", **CHECK})
    daemon = await site.start(web)
    await a.stop()
    await b.stop()
    await daemon.has_backend(a.port, "down")
    await daemon.has_backend(b.port, "down")
    assert [await web.visit() for _ in range(10)] == ["reset"] * 10
    await daemon.counts("marchproxy_drops_total", 10, service="web", reason="backend_refused")
    await daemon.counts("marchproxy_connections_active", 0, service="web")
    await a.start()
    await daemon.has_backend(a.port, "up")
    await meets(web, "a")


async def test_each_way_of_balancing_tries_another_backend_when_one_refuses(site):
    a = await site.server("a")
    ways = ("round_robin", "least_connections", "random", "maglev")
    services = [site.service(way, a, balance=way) for way in ways]
    for service in services:
        service.options["backends"] += [site.nobody(), site.nobody()]
    await site.start(*services)
    for service in services:
        for last in range(2, 22):
            assert await service.visit(source=f"127.0.0.{last}") == "a"


async def test_a_backend_that_takes_no_connection_in_time_is_left_for_another(site):
    a = await site.server("a")
    web = site.service("web", a)
    with_full_queue = await site.black_hole()
    web.options["backends"].append(with_full_queue)
    daemon = await site.start(web, connect_timeout=0.3)
    clients = [await web.knock() for _ in range(12)]
    for client in clients:
        assert await client.hears() == b"a"
    await daemon.has_backend(with_full_queue["port"], "ejected")
    row = (await daemon.backends())[with_full_queue["port"]]
    assert row["last_error"] == "no answer within 0.3 s"


async def test_status_for_people_shows_what_the_endpoints_say(site):
    a, b = await site.server("a"), await site.server("b")
    web = site.service("web", a)
    web.options["backends"].append(b.backend(weight=0))
    daemon = await site.start(web)
    clients = [await web.call() for _ in range(3)]
    await daemon.counts("marchproxy_backend_connections_active", 3, backend=f"127.0.0.1:{a.port}")
    status = await daemon.run("status")
    assert status.status == 0
    lines = [line.split() for line in status.output.splitlines()]
    of_backends = {word: line for line in lines for word in line if word.startswith("127.0.0.1:")}
    assert {"unchecked", "3"} <= set(of_backends[f"127.0.0.1:{a.port}"])
    assert {"draining", "0"} <= set(of_backends[f"127.0.0.1:{b.port}"])
    for client in clients:
        assert await client.end() == "ended"
