"""What became of a request, and the cache's purge: as asked, as answered, and who may ask."""

from __future__ import annotations

import attrs
import jsonschema
import pytest
import structlog

from marchproxy_core.config import Settings
from marchproxy_core.questions import Purge
from marchproxy_core.services import Endpoint

ID = "0123456789ab00000001"
PURGE = "/admin/cache/purge"


async def check(client, endpoint, response):
    """Check an answer against the schema that the same server gives."""
    document = (await client.get("/admin/schema")).json()
    part = document["endpoints"][endpoint].get(
        str(response.status_code), document["endpoints"][endpoint]["default"]
    )
    jsonschema.Draft202012Validator({**part, "$defs": document["$defs"]}).validate(response.json())


async def test_a_request_is_told_as_the_log_has_it_with_what_its_service_asks(client):
    response = await client.get(f"/admin/requests/{ID}")
    assert response.status_code == 200
    await check(client, "GET /admin/requests/{id}", response)
    answer = response.json()
    assert (answer["id"], answer["service"], answer["status"], answer["origin"]) == (
        ID,
        "locked",
        502,
        "proxy",
    )
    assert answer["attempts"] == [{"backend": "10.0.0.4:80", "ms": 11.5, "error": "reset"}]
    assert (answer["auth"], answer["subject"], answer["detail"]) == ("jwt", "alice", None)


async def test_what_was_no_request_of_any_service_has_no_path(engine, client):
    engine.requests["f" * 20] = {
        "timestamp": "2026-01-02T03:04:05Z",
        "process": "application.1",
        "id": "f" * 20,
        "service": "gone",
        "client": "192.0.2.1",
        "status": 404,
        "origin": "proxy",
        "reason": "no_route",
    }
    answer = (await client.get("/admin/requests/" + "f" * 20)).json()
    assert (answer["path"], answer["duration_ms"], answer["auth"], answer["attempts"]) == (
        None,
        None,
        None,
        [],
    )


@pytest.mark.parametrize(
    ("silent", "status", "says"), [(0, 404, "older than the last 4096"), (2, 503, "2 workers did not answer")]
)
async def test_what_nobody_remembers(engine, client, silent, status, says):
    engine.silent = silent
    response = await client.get("/admin/requests/none")
    assert (response.status_code, says in response.json()["detail"]) == (status, True)
    await check(client, "GET /admin/requests/{id}", response)


async def test_where_no_tier_remembers(engine, client):
    engine.requests = None
    response = await client.get(f"/admin/requests/{ID}")
    assert (response.status_code, response.json()["detail"]) == (404, "no tier that runs remembers requests")


async def test_a_worker_that_talks_nonsense_is_a_fault_inside(engine, client):
    engine.requests["x"] = {"id": "x"}
    with structlog.testing.capture_logs():
        response = await client.get("/admin/requests/x")
    assert response.status_code == 500
    assert response.json()["detail"] == "a fault inside the daemon; its log has the details"


@pytest.mark.parametrize(
    ("more", "purge"),
    [
        ({}, Purge(service="locked")),
        (
            {"url": "HTTPS://Example.com:8443/a/../%41?x=%41"},
            Purge(service="locked", url=(b"https", b"example.com:8443", b"/A?x=%41")),
        ),
        ({"url": "http://example.com"}, Purge(service="locked", url=(b"http", b"example.com", b"/"))),
        ({"prefix": "/static/"}, Purge(service="locked", prefix=b"/static/")),
        ({"prefix": "Example.com/a"}, Purge(service="locked", host=b"example.com", prefix=b"/a")),
    ],
)
async def test_a_purge_says_what_was_forgotten(engine, client, more, purge):
    response = await client.post(PURGE, json={"service": "locked", **more})
    assert response.status_code == 200
    await check(client, f"POST {PURGE}", response)
    assert response.json() == {"service": "locked", "forgotten": 3, "silent_workers": 0}
    assert engine.purges == [purge]


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"service": "lockd"}, 422, "did you mean locked?"),
        ({"service": "web"}, 422, "no service 'web' that has a cache; there are: locked"),
        ({"service": "locked", "url": "/a"}, 422, "url: got '/a', want a URL"),
        ({"service": "locked", "url": "http://user@example.com/"}, 422, "want a URL"),
        ({"service": "locked", "prefix": "static"}, 422, "prefix: got 'static', want a path"),
        ({"service": "locked", "prefix": "/a b"}, 422, "want a path"),
        ({"service": "locked", "prefix": "/", "url": "http://a/"}, 422, "want one of them"),
        ({"url": "http://a/"}, 400, "service"),
        ([], 400, "not a JSON object"),
    ],
)
async def test_what_cannot_be_forgotten(engine, client, body, status, says):
    response = await client.post(PURGE, json=body)
    assert (response.status_code, says in response.json()["detail"]) == (status, True)
    assert engine.purges == []


async def test_both_need_the_token_where_there_is_one(make_engine, serving):
    anywhere = attrs.evolve(Endpoint.parse("127.0.0.1:1"), port=0)
    async with serving(make_engine(Settings(admin_listen=anywhere, admin_token="secret"))) as client:
        assert (await client.get(f"/admin/requests/{ID}")).status_code == 401
        assert (await client.post(PURGE, json={"service": "locked"})).status_code == 401
        client.headers["Authorization"] = "Bearer secret"
        assert (await client.get(f"/admin/requests/{ID}")).status_code == 200
        assert (await client.post(PURGE, json={"service": "locked"})).status_code == 200
