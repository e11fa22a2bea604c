"""What ``marchproxy explain request`` says that a backend gets is what this tier sends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy_application.auth.forwarding import Forwarding
from marchproxy_application.http1.request import read_request
from marchproxy_application.http1.writing import origin_lines
from marchproxy_application.serving.preparing import prepare_request
from marchproxy_core.explaining.asked import asked_of
from marchproxy_core.explaining.finding import Found
from marchproxy_core.explaining.passing import judge_head_sent
from marchproxy_core.routing.router import Route
from marchproxy_core.services import Auth, AuthType, Backend, Endpoint, HeaderRules, Http, Service

RULES = HeaderRules(set=(("X-Set", "ours"),), add=(("X-Added", "too"),), remove=("X-Gone",))
CLAIMS = (("sub", "X-User"),)
CLIENT = b"192.0.2.7"
LATER = ("X-Request-Id", "X-User")


def sent_by_the_tier(method: str, path: str, fields: list[str], service: Service) -> list[str]:
    lines = [f"{method} {path} HTTP/1.1", "Host: a.test:8080", *fields, "", ""]
    head = read_request("\r\n".join(lines).encode("latin-1"))
    assert service.http is not None
    owned = Forwarding(service.auth.forward_claims).taken_for(field.name for field in head.fields)
    prepared = prepare_request(head, service.http, prefix=b"/api", websocket=service.websocket, owned=owned)
    whole = prepared.start + origin_lines(client=CLIENT, scheme=b"http", port=8080, host=head.host)
    return whole.decode("latin-1").removesuffix("\r\n").split("\r\n")


def said(method: str, path: str, fields: list[str], service: Service) -> list[str]:
    asked = asked_of(method, f"http://a.test:8080{path}", fields)
    _, lines = judge_head_sent(asked, Found(service=service, route=Route(service="web", path=b"/api")))
    told = [line.replace("<the client's address>", CLIENT.decode()) for line in lines]
    return [line for line in told if line.partition(":")[0] not in LATER]


def service(*, strips: bool, ruled: bool, locked: bool, websocket: bool) -> Service:
    endpoint = Endpoint.parse("192.0.2.1:80")
    return Service(
        name="web",
        listen=(endpoint,),
        backends=(Backend(endpoint=endpoint),),
        websocket=websocket,
        auth=Auth(type=AuthType.JWT, forward_claims=CLAIMS) if locked else Auth(),
        http=Http(
            strip_path=strips,
            request_headers=RULES if ruled else HeaderRules(),
            host_header="b.test" if ruled else None,
        ),
    )


FIELDS = st.lists(
    st.sampled_from(
        [
            "Accept: text/html",
            "accept: */*",
            "Cookie: a=b",
            "Via: 1.0 other",
            "Via:",
            "X-Gone: 1",
            "X-Set: theirs",
            "X_User: root",
            "X-Hop: 1",
            "Connection: X-Hop, upgrade",
            "Connection: close",
            "Upgrade: websocket",
            "Upgrade: h2c",
            "Keep-Alive: 5",
            "TE: trailers",
            "Forwarded: for=me",
            "X-Forwarded-For: 192.0.2.99",
            "X-Real-IP: 192.0.2.99",
            "Proxy-Authorization: Basic YTpi",
            "Empty:",
        ]
    ),
    unique=True,
    max_size=8,
)
BODY = st.sampled_from([[], ["Content-Length: 3"], ["Content-Length: 0"], ["Transfer-Encoding: chunked"]])
WAITS = st.sampled_from([[], ["Expect: 100-continue"]])


@given(
    st.sampled_from(["GET", "POST"]),
    st.sampled_from(["/api", "/api/x?y=%41", "/api/../api/%7e", "/api//", "/api?"]),
    FIELDS,
    BODY,
    WAITS,
    st.builds(
        service, strips=st.booleans(), ruled=st.booleans(), locked=st.booleans(), websocket=st.booleans()
    ),
)
def test_it_is_what_is_sent(method, path, fields, body, waits, of):
    given_fields = [*fields, *body, *waits]
    assert said(method, path, given_fields, of) == sent_by_the_tier(method, path, given_fields, of)


@pytest.mark.parametrize("path", ["/api/x", "/api"])
def test_the_oracle_strips(path):
    of = service(strips=True, ruled=False, locked=False, websocket=False)
    start = sent_by_the_tier("GET", path, [], of)[0]
    assert start == f"GET {path.removeprefix('/api') or '/'} HTTP/1.1"
