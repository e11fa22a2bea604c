"""What became of a request is told by its id, and a cache is purged, while the daemon runs."""

from __future__ import annotations

import json

import httpx
from system_rig.client import LONGEST_S

from marchproxy_core.testing import until


async def get(service, path="/", host="a.test"):
    """Ask on a connection of its own, so that either worker may get it."""
    url = f"http://{service.ip}:{service.port}{path}"
    async with httpx.AsyncClient(trust_env=False, timeout=LONGEST_S, verify=False) as client:
        return await client.get(url, headers={"Host": host})


async def told(daemon, response):
    """Ask the daemon what became of a request."""
    done = await daemon.run("explain", "id", response.headers["x-request-id"], "--json")
    assert done.status == 0, done.errors
    return json.loads(done.output)


async def test_what_became_of_requests_is_told_though_none_is_logged(site):
    a = await site.server(status=200)
    web = site.service("web", a, http=True, hosts=["a.test"], paths=["/", "/api"], access_log=0)
    other = site.service("other", a, http=True, hosts=["b.test"], access_log=0)
    broken = site.service("broken", http=True, access_log=0, backends=[site.nobody()])
    other.port = web.port
    daemon = await site.start(web, other, broken)
    answers = [await get(web, "/api/x?y"), await get(web, host="b.test"), await get(web, host="c.test")]
    answers.append(await get(broken))
    whole, shared, nobodys, failed = [await told(daemon, answer) for answer in answers]
    assert (whole["service"], whole["route"], whole["path"]) == ("web", "a.test/api", "/api/x?y")
    assert (whole["status"], whole["origin"], whole["client"]) == (200, "backend", "127.0.0.1")
    assert whole["backend"] == f"127.0.0.1:{a.port}"
    assert (shared["service"], shared["auth"], shared["attempts"]) == ("other", "none", [])
    assert (nobodys["status"], nobodys["reason"], nobodys["path"]) == (404, "no_route", None)
    assert (failed["status"], failed["origin"], failed["reason"]) == (502, "proxy", "backend_refused")
    assert len(failed["attempts"]) == 2
    assert daemon.events("request.answered") == []
    unknown = await daemon.run("explain", "id", "0" * 20)
    assert (unknown.status, "no worker remembers" in unknown.errors) == (5, True)


async def test_what_would_become_of_requests_is_what_becomes_of_them(site):
    a = await site.server(status=200)
    web = site.service("web", a, http=True, hosts=["a.test"])
    await site.start(web)
    for host, status in (("a.test", 200), ("b.test", 404)):
        assert (await get(web, host=host)).status_code == status
        command = ("explain", "request", "GET", f"http://{host}:{web.port}/", "--json")
        done = await site.run(*command, "--config", str(site.config))
        explained = json.loads(done.output)
        assert (done.status, explained["status"]) == ((0, None) if status == 200 else (1, 404))


async def test_a_purge_reaches_every_worker(site):
    a = await site.server(status=200)
    web = site.service("web", a, http=True, cache_enabled=True, cache_ttl=3600)
    daemon = await site.start(web)
    seen = set()

    async def both_have_it():
        answer = await told(daemon, await get(web, "/a"))
        if answer["cache"] == "hit":
            seen.add(answer["process"])
        return len(seen) == 2

    await until(both_have_it, deadline_s=LONGEST_S, what="both workers answer from their caches")
    other = await daemon.run("purge", "web", "--url", "http://b.test/a")
    assert (other.status, other.output) == (0, "forgotten: 0 responses of web\n")
    done = await daemon.run("purge", "web", "--url", "http://a.test/a")
    assert (done.status, done.output) == (0, "forgotten: 2 responses of web\n"), done.errors
    assert (await told(daemon, await get(web, "/a")))["cache"] == "miss"
    again = await daemon.run("purge", "web", "--prefix", "a.test/")
    assert again.output == "forgotten: 1 response of web\n"
    assert daemon.events("cache.purged")[-1]["forgotten"] == 1
    refused = await daemon.run("purge", "wep")
    assert (refused.status, "did you mean web?" in refused.errors) == (5, True)
