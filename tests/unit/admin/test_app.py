import json
import socket

import attrs
import jsonschema
import pytest
import structlog
import trio

from marchproxy_core.admin.view import ReloadResult
from marchproxy_core.config import Settings, UnixAddress
from marchproxy_core.errors import ConfigError, ConfigProblem, ListenError
from marchproxy_core.model import ServiceStats, TierStats
from marchproxy_core.services import Endpoint

GETS = ("/admin/acceleration", "/admin/rules/classification", "/admin/backends/health", "/healthz", "/readyz")
POSTS = ("/admin/reload", "/admin/drain")
TOKEN = "correct-horse"
PROBLEMS = (
    ConfigProblem("a.yaml:2", "services[0].port", '"http"', "an integer from 1 to 65535"),
    ConfigProblem("env DRIAN_TIMEOUT", "DRIAN_TIMEOUT", "", "a known setting", nearest="DRAIN_TIMEOUT"),
)


async def validate(client, response):
    """Check the answer against the schema that the same server gives."""
    document = (await client.get("/admin/schema")).json()
    endpoint = document["endpoints"][f"{response.request.method} {response.request.url.path}"]
    part = endpoint.get(str(response.status_code), endpoint["default"])
    jsonschema.Draft202012Validator(
        {**part, "$defs": document["$defs"]}, format_checker=jsonschema.FormatChecker()
    ).validate(response.json())


def state_of(engine):
    return (engine.reloads, engine.drained.is_set(), engine.plan, engine.config)


async def test_schema_is_itself_a_valid_schema(client):
    document = (await client.get("/admin/schema")).json()
    jsonschema.Draft202012Validator.check_schema(document)
    reading = (*GETS, "/admin/door", "/admin/requests/{id}")
    acting = (*POSTS, "/admin/door", "/admin/cache/purge")
    assert set(document["endpoints"]) == {f"GET {path}" for path in reading} | {
        f"POST {path}" for path in acting
    }


@pytest.mark.parametrize("path", GETS)
async def test_every_get_matches_its_schema_and_changes_nothing(engine, client, path):
    before = state_of(engine)
    response = await client.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    await validate(client, response)
    assert state_of(engine) == before


async def test_schema_check_would_catch_a_wrong_answer(client):
    response = await client.get("/readyz")
    wrong = {**response.json(), "ready": "yes"}
    response._content = json.dumps(wrong).encode()
    with pytest.raises(jsonschema.ValidationError):
        await validate(client, response)


async def test_acceleration_says_need_have_and_fix_of_each_tier(client):
    tiers = {tier["name"]: tier for tier in (await client.get("/admin/acceleration")).json()["tiers"]}
    assert tiers["xdp"]["state"] == "refused"
    assert tiers["xdp"]["requirements"][0] == {
        "need": "CAP_BPF",
        "have": "none",
        "fix": "run as root",
        "met": False,
        "source": "capabilities(7)",
    }
    assert tiers["xdp"]["requirements"][1]["met"] is None
    assert (tiers["sockets"]["carries"], tiers["sockets"]["connections_active"]) == (["web", "dns"], 3)
    assert (tiers["torn"]["fix"], tiers["torn"]["version"]) == ("reinstall torn", "9")


async def test_classification_says_path_chain_decision_and_traffic(client):
    services = (await client.get("/admin/rules/classification")).json()["services"]
    web, _, locked = services
    assert (web["path"], web["chosen"], web["chain"]) == ("fast", "sockets", ["sockets"])
    assert web["decision"]["candidates"][0]["reason"] == "refused: need CAP_BPF, have none"
    assert web["traffic"][0]["connections_opened"] == 12
    assert (locked["path"], locked["chosen"]) == ("slow", None)
    assert locked["slow_path_reasons"] == ["auth_type is jwt", "cache_enabled"]


async def test_traffic_says_of_http_services_what_became_of_their_requests(engine, client, some_requests):
    engine.counters |= some_requests
    response = await client.get("/admin/rules/classification")
    await validate(client, response)
    web, _, locked = response.json()["services"]
    assert web["traffic"][0]["requests"] is None
    requests = locked["traffic"][0]["requests"]
    assert requests["answers"] == {"1xx": 0, "2xx": 5, "3xx": 0, "4xx": 2, "5xx": 0}
    assert (requests["durations"]["0.001"], requests["durations"]["+Inf"]) == (3, 2)
    assert sum(requests["durations"].values()) == sum(requests["answers"].values())
    assert (requests["cache"]["hit"], requests["duration_sum_s"]) == (2, 31.5)
    assert (requests["retries"], requests["reused"], requests["websockets_active"]) == (1, 4, 3)


async def test_backends_have_state_weight_and_connections(client):
    backends = (await client.get("/admin/backends/health")).json()["backends"]
    by_name = {(row["service"], row["backend"]): row for row in backends}
    assert len(backends) == 4
    assert by_name["web", "10.0.0.1:80"]["connections_active"] == 2
    assert by_name["web", "10.0.0.1:80"]["state"] == "unchecked"
    assert (by_name["dns", "10.0.0.3:53"]["state"], by_name["dns", "10.0.0.3:53"]["weight"]) == (
        "draining",
        0,
    )
    assert not any(row["flush"] for row in backends)


async def test_not_ready_is_503_and_says_which_service_has_no_tier(engine, client):
    engine.ready = False
    response = await client.get("/readyz")
    assert response.status_code == 503
    assert response.json() == {"ready": False, "without_tier": ["locked"]}
    await validate(client, response)


@pytest.mark.parametrize("path", [*GETS, "/metrics", "/admin/schema"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_reading_endpoints_take_only_get(client, method, path):
    response = await client.request(method, path)
    assert response.status_code == 405
    assert response.headers["allow"] == "GET, HEAD"
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
async def test_acting_endpoints_take_only_post(engine, client, method, path):
    before = state_of(engine)
    response = await client.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert state_of(engine) == before


async def test_head_has_no_body(client):
    response = await client.head("/healthz")
    assert (response.status_code, response.content) == (200, b"")


@pytest.mark.parametrize(
    "path", ["/", "/admin", "/admin/acceleration/", "/metrics/x", "/admin/%2e%2e/healthz"]
)
async def test_unknown_path_is_a_problem_not_a_redirect(client, path):
    response = await client.get(path)
    assert response.status_code == 404
    assert response.json()["status"] == 404


async def test_reload_answers_the_difference(engine, client):
    engine.on_reload = lambda: ReloadResult(
        added=("new",),
        removed=("old",),
        unchanged=("web",),
        needs_restart=("ADMIN_LISTEN",),
        notes=("a note",),
    )
    response = await client.post("/admin/reload")
    assert response.status_code == 200
    assert response.json()["added"] == ["new"]
    assert response.json()["needs_restart"] == ["ADMIN_LISTEN"]
    await validate(client, response)


async def test_refused_reload_answers_every_problem(engine, client):
    def refuse():
        raise ConfigError(PROBLEMS)

    engine.on_reload = refuse
    response = await client.post("/admin/reload")
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert [problem["where"] for problem in response.json()["problems"]] == ["a.yaml:2", "env DRIAN_TIMEOUT"]
    assert response.json()["problems"][1]["nearest"] == "DRAIN_TIMEOUT"
    await validate(client, response)


async def test_reload_that_cannot_listen_is_refused_with_its_reason(engine, client):
    def refuse():
        raise ListenError("0.0.0.0:80: in use already - fix: stop what listens there")

    engine.on_reload = refuse
    response = await client.post("/admin/reload")
    assert response.status_code == 422
    assert "in use already" in response.json()["detail"]


async def test_fault_in_the_engine_is_a_500_without_details_and_the_api_lives_on(engine, client):
    engine.on_reload = lambda: 1 // 0
    with structlog.testing.capture_logs() as lines:
        response = await client.post("/admin/reload")
        assert response.status_code == 500
        assert "division" not in response.text
        assert (await client.get("/healthz")).status_code == 200
    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["admin.request_failed"]


async def change_door(client, **body):
    """Ask for a change that fits the schema of requests."""
    document = (await client.get("/admin/schema")).json()
    part = {**document["requests"]["POST /admin/door"], "$defs": document["$defs"]}
    jsonschema.Draft202012Validator(part).validate(body)
    return await client.post("/admin/door", json=body)


async def test_rules_at_the_door_come_are_listed_and_go(client):
    added = await change_door(client, action="add", prefix="198.51.100.0/24")
    await change_door(client, action="add", prefix="2001:db8::7", service="web", door="allow", lasts_s=60)
    listed = await client.get("/admin/door")
    for response in (added, listed):
        assert response.status_code == 200
        await validate(client, response)
    block, allow = listed.json()["rules"]
    assert block == {
        "prefix": "198.51.100.0/24",
        "door": "block",
        "service": None,
        "origin": "command",
        "ends_in_s": None,
    }
    assert (allow["prefix"], allow["door"], allow["service"]) == ("2001:db8::7/128", "allow", "web")
    assert 50 < allow["ends_in_s"] <= 60
    assert (listed.json()["kept_by"], listed.json()["not_kept_by"]) == (["ebpf"], ["sockets"])
    left = await change_door(client, action="remove", prefix="198.51.100.0/24")
    assert [rule["prefix"] for rule in left.json()["rules"]] == ["2001:db8::7/128"]


@pytest.mark.parametrize(
    ("body", "status", "wants"),
    [
        (b"", 400, "not a JSON object"),
        (b"[1]", 400, "not a JSON object"),
        (b'{"prefix": "10.0.0.0/8"}', 400, "action"),
        (b'{"action": "burn", "prefix": "10.0.0.0/8"}', 400, "action"),
        (b'{"action": "add", "prefix": "10.0.0.0/8", "port": 80}', 400, "port"),
        (b'{"action": "add", "prefix": "10.0.0.1/8"}', 422, "did you mean 10.0.0.0/8?"),
        (b'{"action": "add", "prefix": "::ffff:10.0.0.1"}', 422, "did you mean 10.0.0.1/32?"),
        (b'{"action": "add", "prefix": "10.0.0.0/8", "lasts_s": -1}', 422, "want seconds above 0"),
        (b'{"action": "add", "prefix": "10.0.0.0/8", "lasts_s": NaN}', 422, "want seconds above 0"),
        (b'{"action": "add", "prefix": "10.0.0.0/8", "service": "wep"}', 422, "did you mean web?"),
        (b'{"action": "remove", "prefix": "10.0.0.0/8"}', 422, "no rule for 10.0.0.0/8"),
    ],
)
async def test_what_the_door_does_not_take_is_told_and_changes_nothing(engine, client, body, status, wants):
    response = await client.post("/admin/door", content=body)
    assert response.status_code == status
    assert wants in response.json()["detail"]
    assert engine.door() == ()
    await validate(client, response)


async def test_the_door_takes_nothing_but_get_and_post(client):
    response = await client.put("/admin/door", json={})
    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD, POST")


async def test_drain_is_accepted_and_begins(engine, client):
    response = await client.post("/admin/drain")
    assert response.status_code == 202
    assert response.json() == {"draining": True, "drain_timeout_s": 30.0}
    await validate(client, response)
    with trio.fail_after(5):
        await engine.drained.wait()


async def test_drain_is_answered_even_when_it_ends_the_daemon_at_once(make_engine, serving):
    engine = make_engine()
    async with serving(engine) as client, trio.open_nursery() as nursery:

        async def end_daemon():
            await engine.drained.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(end_daemon)
        answers = []
        with trio.CancelScope(shield=True), trio.fail_after(5):
            answers.append((await client.post("/admin/drain")).status_code)
    assert answers == [202]


async def test_body_over_the_bound_is_refused_and_nothing_is_reloaded(engine, client):
    response = await client.post("/admin/reload", content=b"x" * 70_000)
    assert response.status_code == 413
    assert engine.reloads == 0


async def test_small_body_is_ignored(engine, client):
    assert (await client.post("/admin/reload", content=b"{}")).status_code == 200
    assert engine.reloads == 1


async def test_token_is_asked_for_posts_only(make_engine, serving):
    engine = make_engine(
        Settings(admin_listen=attrs.evolve(Endpoint.parse("127.0.0.1:1"), port=0), admin_token=TOKEN)
    )
    async with serving(engine) as client:
        for given in (None, "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xe9"):
            headers = {"Authorization": given.encode("latin-1")} if given else {}
            for path in POSTS:
                response = await client.post(path, headers=headers)
                assert response.status_code == 401
                assert response.headers["www-authenticate"].startswith("Bearer")
                assert response.json()["title"] == "Unauthorized"
                assert TOKEN not in response.text
        assert (engine.reloads, engine.drained.is_set()) == (0, False)
        assert (await client.get("/admin/acceleration")).status_code == 200
        good = await client.post("/admin/reload", headers={"Authorization": f"bearer {TOKEN}"})
        assert (good.status_code, engine.reloads) == (200, 1)


async def test_off_loopback_all_but_the_probes_ask_for_the_token(make_engine, serving):
    everywhere = attrs.evolve(Endpoint.parse("0.0.0.0:1"), port=0)
    async with serving(make_engine(Settings(admin_listen=everywhere, admin_token=TOKEN))) as client:
        for path in ("/healthz", "/readyz"):
            assert (await client.get(path)).status_code == 200
        told = [path for path in (*GETS, "/metrics", "/admin/schema") if path not in ("/healthz", "/readyz")]
        for path in (*told, "/nowhere", "//healthz", "/healthz/", "/HEALTHZ", "/admin/%2e%2e/healthz"):
            for method in ("GET", "HEAD"):
                assert (await client.request(method, path)).status_code == 401
            wrong = await client.get(path, headers={"Authorization": f"Bearer {TOKEN}x"})
            assert (wrong.status_code, "need" in wrong.text) == (401, True)
        for path in told:
            right = await client.get(path, headers={"Authorization": f"Bearer {TOKEN}"})
            assert right.status_code == 200
        assert (await client.post("/healthz")).status_code == 401


async def test_metrics_show_the_counters_as_they_are_now(engine, client):
    engine.not_read_yet = {"sockets": TierStats(services={"web": ServiceStats(connections_opened=13)})}
    page = (await client.get("/metrics")).text
    assert 'marchproxy_connections_opened_total{service="web",tier="sockets"} 13.0' in page


async def test_a_unix_socket_needs_no_token_to_be_read(make_engine, serving, socket_path):
    settings = Settings(admin_listen=UnixAddress(str(socket_path)), admin_token=TOKEN)
    async with serving(make_engine(settings)) as client:
        assert (await client.get("/metrics")).status_code == 200
        assert (await client.post("/admin/reload")).status_code == 401


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost@evil", "[::2]", "10.0.0.1"],
)
async def test_rebound_name_is_refused(engine, client, host):
    for method, path in (("GET", "/admin/acceleration"), ("GET", "/metrics"), ("POST", "/admin/reload")):
        response = await client.request(method, path, headers={"Host": host})
        assert response.status_code == 421
        assert response.json()["status"] == 421
    assert engine.reloads == 0


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:9", "[::1]:8080"])
async def test_names_of_loopback_are_served(client, host):
    assert (await client.get("/healthz", headers={"Host": host})).status_code == 200


async def test_request_without_host_is_refused(client):
    with socket.create_connection((client.base_url.host, client.base_url.port)) as raw:
        trio_socket = trio.socket.from_stdlib_socket(raw.dup())
        await trio_socket.send(b"GET /healthz HTTP/1.0\r\n\r\n")
        answer = await trio_socket.recv(65536)
        trio_socket.close()
    assert answer.split(b" ")[1] in (b"400", b"421")


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://evil.example", 403),
        ("null", 403),
        ("http://localhost:1", 403),
        ("http://localhost", 200),
        ("https://localhost", 200),
    ],
)
async def test_posts_from_another_origin_are_refused(engine, client, origin, status):
    response = await client.post("/admin/reload", headers={"Host": "localhost", "Origin": origin})
    assert response.status_code == status
    assert engine.reloads == (status == 200)


async def test_nothing_asks_a_browser_to_share_answers(client):
    response = await client.get("/healthz", headers={"Origin": "http://evil.example"})
    assert not [name for name in response.headers if name.startswith("access-control")]
