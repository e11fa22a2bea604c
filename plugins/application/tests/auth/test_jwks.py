"""Key sets over real HTTP and HTTPS servers: rotation, outages, and answers that nobody should believe."""

from __future__ import annotations

import http.server
import queue
import socket
import ssl
import threading
import time

import pytest
import trustme
from structlog.testing import capture_logs

from marchproxy_application.auth.causes import Cause
from marchproxy_application.auth.fetching import MOST_BYTES, Fetcher, FetchFailed, Patience
from marchproxy_application.auth.jwks import JwksSource
from marchproxy_application.auth.keys import KeySet
from marchproxy_application.auth.schedule import Limits
from marchproxy_application.auth.verifying import Accepted, Verifier
from marchproxy_core.services import Auth, AuthType
from plugins.application.tests.auth.tokens import NOW_S, OTHER_RSA, RSA, bearer, jwk, jwks

PATIENCE_S = 20.0
EAGER = Limits(least_fresh_s=0.01, want_pause_s=0.0, first_retry_s=0.01, most_retry_s=0.02)
OLD, NEW = jwks(jwk(RSA, kid="old")), jwks(jwk(RSA, kid="old"), jwk(OTHER_RSA, kid="new"))


class Issuer:
    """A server that answers with what it is told, and counts."""

    def __init__(self, tls=None):
        self.status, self.body, self.headers = 200, OLD, {}
        self.asked = []
        self.gate = None
        issuer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                issuer.asked.append(self.path)
                if issuer.gate is not None:
                    assert issuer.gate.wait(PATIENCE_S)
                self.send_response(issuer.status)
                for name, value in ({"Content-Length": str(len(issuer.body))} | issuer.headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(issuer.body)

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, *_):
                pass  # a client that hangs up on purpose

        self.server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://localhost:{self.server.server_port}/keys?secret=1"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def issuer():
    made = Issuer()
    yield made
    made.close()


@pytest.fixture
def source_of():
    sources = []

    def make(url, refresh_s=3600.0, limits=EAGER, **more):
        woken = queue.Queue()
        source = JwksSource(url, refresh_s, lambda: woken.put(None), limits=limits, **more)
        sources.append(source)
        return source, woken

    yield make
    for source in sources:
        source.close(wait_s=PATIENCE_S)
        assert not source._thread.is_alive()


def wait(woken, until=lambda: True):
    """Wait for wakes until something holds."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        woken.get(timeout=max(0.0, deadline_s - time.monotonic()))
        if until():
            return


def kids(source):
    return None if source.current is None else [key.kid for key in source.current.keys]


def test_a_rotated_key_is_fetched_when_a_token_names_it(issuer, source_of):
    source, woken = source_of(issuer.url)
    verifier = Verifier(Auth(type=AuthType.JWT, jwks_url=issuer.url), KeySet())
    wait(woken)
    verifier.keys = source.current
    token = bearer({"sub": "ada"}, key=OTHER_RSA, kid="new")
    refused = verifier.check(token, NOW_S)
    assert (refused.cause, refused.may_change) == (Cause.UNKNOWN_KEY, True)
    issuer.body = NEW
    assert source.want(refused.kid)
    wait(woken)
    verifier.keys = source.current
    assert isinstance(verifier.check(token, NOW_S), Accepted)
    assert source.want("new")
    assert issuer.asked == ["/keys?secret=1"] * 2


def test_many_who_want_a_key_share_one_fetch(issuer, source_of):
    source, woken = source_of(issuer.url)
    wait(woken)
    issuer.gate = threading.Event()
    assert all(source.want(str(number)) for number in range(50))
    issuer.gate.set()
    wait(woken)
    assert source.fetches == 2
    assert len(issuer.asked) == 2


def test_unknown_kids_do_not_make_it_fetch_often(issuer, source_of):
    source, woken = source_of(issuer.url, limits=Limits())
    wait(woken)
    assert [source.want(str(number)) for number in range(100)] == [False] * 100
    for _ in range(20):  # time enough for fetches that should not be
        Fetcher(issuer.url).fetch()
    assert len(issuer.asked) == 21


def test_it_is_refreshed_by_itself_as_often_as_the_issuer_says(issuer, source_of):
    issuer.headers = {"Cache-Control": "max-age=0"}
    source, woken = source_of(issuer.url)
    wait(woken)
    assert kids(source) == ["old"]
    issuer.body = NEW
    wait(woken, lambda: kids(source) == ["old", "new"])
    same = source.current
    wait(woken)
    assert source.current is same


def test_without_word_of_the_issuer_it_is_refreshed_as_configured(issuer, source_of):
    source, woken = source_of(issuer.url, refresh_s=0.01)
    issuer.body = NEW
    wait(woken, lambda: kids(source) == ["old", "new"])


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, OLD),
        (404, b""),
        (204, b""),
        (200, b"<html>"),
        (200, b'{"keys": []}'),
        (200, jwks({"kty": "EC"})),
    ],
)
def test_the_last_good_set_is_kept_while_fetches_fail(issuer, source_of, status, body):
    source, woken = source_of(issuer.url, refresh_s=0.01)
    wait(woken)
    issuer.status, issuer.body = status, body
    wait(woken, lambda: source.failures >= 3)
    assert kids(source) == ["old"]
    issuer.status, issuer.body = 200, NEW
    wait(woken, lambda: source.failures == 0)
    assert kids(source) == ["old", "new"]


def test_an_issuer_that_comes_later_is_found(source_of):
    issuer = Issuer()
    port = issuer.server.server_port
    issuer.close()
    source, woken = source_of(f"http://127.0.0.1:{port}/keys")
    wait(woken, lambda: source.failures >= 2)
    assert source.current is None
    with socket.create_server(("127.0.0.1", port)) as late:
        client, _ = late.accept()
        with client:
            client.recv(4096)
            client.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + OLD)
    wait(woken, lambda: kids(source) == ["old"])


def test_what_happened_is_logged(issuer, source_of):
    with capture_logs() as lines:
        source, woken = source_of(issuer.url)
        wait(woken)
        issuer.status = 500
        source.want("x")
        wait(woken, lambda: source.failures >= 1)
        source.close(wait_s=PATIENCE_S)
    shown = issuer.url.partition("?")[0]
    assert lines[0]["event"] == "jwks.fetched"
    assert (lines[0]["url"], lines[0]["keys"], lines[0]["log_level"]) == (shown, 1, "info")
    assert lines[1]["event"] == "jwks.failed"
    assert (lines[1]["url"], lines[1]["failures"], lines[1]["has_keys"]) == (shown, 1, True)
    assert "500" in lines[1]["error"]


def test_nobody_is_woken_after_it_is_closed(issuer, source_of):
    issuer.gate = threading.Event()
    source, woken = source_of(issuer.url)
    source.close(wait_s=PATIENCE_S)
    issuer.gate.set()
    assert woken.empty()
    assert not source.want("x")


def test_https_is_verified():
    authority = trustme.CA()
    server, client, stranger = (
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
        ssl.create_default_context(),
        ssl.create_default_context(),
    )
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    issuer = Issuer(server)
    try:
        assert Fetcher(issuer.url, context=client).fetch().body == OLD
        for url, context in ((issuer.url, stranger), (issuer.url.replace("localhost", "127.0.0.1"), client)):
            with pytest.raises(FetchFailed, match="CERTIFICATE_VERIFY_FAILED"):
                Fetcher(url, context=context).fetch()
        plain = Issuer()
        try:
            issuer.status, issuer.headers = 302, {"Location": plain.url}
            with pytest.raises(FetchFailed, match="from https"):
                Fetcher(issuer.url, context=client).fetch()
            assert plain.asked == []
        finally:
            plain.close()
    finally:
        issuer.close()


def test_redirects_are_followed_a_few_times(issuer):
    other = Issuer()
    try:
        issuer.status, issuer.headers = 307, {"Location": other.url}
        assert Fetcher(issuer.url).fetch().body == OLD
        issuer.headers = {"Location": "/again"}
        with pytest.raises(FetchFailed, match="redirects"):
            Fetcher(issuer.url).fetch()
        assert len(issuer.asked) == 5
        for bad in (
            "ftp://localhost/keys",
            "http://user:word@localhost/",
            "file:///etc/passwd",
            "http://[x/",
            "http://h:99999/",
        ):
            issuer.headers = {"Location": bad}
            with pytest.raises(FetchFailed):
                Fetcher(issuer.url).fetch()
    finally:
        other.close()


def test_proxies_of_the_environment_are_ignored(issuer, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1/")
    assert Fetcher(issuer.url).fetch().body == OLD


def test_an_answer_that_is_too_large_or_cut_short_or_encoded_is_refused(issuer):
    issuer.body = b" " * (MOST_BYTES + 1)
    with pytest.raises(FetchFailed, match="larger"):
        Fetcher(issuer.url).fetch()
    issuer.body = b" " * MOST_BYTES
    assert len(Fetcher(issuer.url).fetch().body) == MOST_BYTES
    issuer.body, issuer.headers = OLD, {"Content-Length": str(len(OLD) + 5)}
    with pytest.raises(FetchFailed, match="5 bytes did not come"):
        Fetcher(issuer.url).fetch()
    issuer.headers = {"Content-Encoding": "gzip"}
    with pytest.raises(FetchFailed, match="encoded"):
        Fetcher(issuer.url).fetch()


def drip(listener, first):
    """Send a byte now and then, until the client has had enough."""
    client, _ = listener.accept()
    with client:
        client.recv(4096)
        client.sendall(first)
        gone = threading.Event()
        while not gone.wait(0.02):
            try:
                client.sendall(b"x")
            except OSError:
                gone.set()


@pytest.mark.parametrize("first", [b"HTTP/1.0 200 OK\r\nX-A: ", b"HTTP/1.0 200 OK\r\n\r\n", b""])
def test_a_server_that_drips_is_cut_off(first):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener, first))
        thread.start()
        fetcher = Fetcher(
            f"http://127.0.0.1:{listener.getsockname()[1]}/", patience=Patience(step_s=10.0, whole_s=0.3)
        )
        with pytest.raises(FetchFailed, match="took longer than"):
            fetcher.fetch()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "keys",
        "ftp://host/",
        "file:///keys",
        "http://",
        "http://user@host/",
        "https://a:b@host/",
        "http://h:0/",
        "http://h:x/",
    ],
)
def test_a_url_that_cannot_be_fetched_is_refused_at_once(url):
    with pytest.raises(ValueError, match=r"."):
        JwksSource(url, 1.0, lambda: None)
