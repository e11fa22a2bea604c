"""Programs that others wrote: curl, nghttp, h2load."""

from __future__ import annotations

import os

import trio
import trustme

from marchproxy_core.services import Certificate, Tls
from marchproxy_core.testing.laws.patience import in_time


async def run(*command):
    with in_time(f"{command[0]} ends", times=6):
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    return done.returncode, done.stdout, done.stderr


def url_of(tier, path="/"):
    return f"http://{tier.service.listen[0]}{path}"


async def test_curl_gets_and_posts(serving, program, tmp_path):
    curl = program("curl", "curl")
    body = os.urandom(3 << 20)
    (tmp_path / "body").write_bytes(body)
    data = f"@{tmp_path / 'body'}"
    async with serving() as tier:
        asks = [curl, "-sS", "--http2-prior-knowledge", "-w", "%{stderr}%{http_version} %{http_code}"]
        assert await run(*asks, "--data-binary", data, url_of(tier)) == (0, body, b"2 200")
        code, out, err = await run(*asks, "-T", str(tmp_path / "body"), "-H", "Expect:", url_of(tier))
        assert (code, out, err) == (0, body, b"2 200")
        code, _, err = await run(*asks, "-I", url_of(tier))
        assert (code, err) == (0, b"2 200")


async def test_curl_picks_it_in_tls(serving, program, tmp_path):
    curl = program("curl", "curl")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "own.pem")
    tls = Tls(certificates=(Certificate(certificate=str(tmp_path / "own.pem")),))
    body = os.urandom(1 << 20)
    (tmp_path / "body").write_bytes(body)
    asks = [
        curl,
        "-sS",
        "--http2",
        "--cacert",
        str(tmp_path / "authority.pem"),
        "-w",
        "%{stderr}%{http_version}",
    ]
    async with serving(tls=tls) as tier:
        url = url_of(tier).replace("http:", "https:")
        assert await run(*asks, "--data-binary", f"@{tmp_path / 'body'}", url) == (0, body, b"2")
        assert tier.requests[0].get(b"x-forwarded-proto") == b"https"


async def test_nghttp_multiplexes(serving, program):
    nghttp = program("nghttp", "nghttp2-client")
    async with serving() as tier:
        code, out, _ = await run(nghttp, "-nv", *(url_of(tier, f"/{at}") for at in range(5)))
        assert code == 0
        assert out.count(b":status: 200") == 5
        assert {asked.target for asked in tier.requests} == {b"/%d" % at for at in range(5)}
        assert (await tier.running.stats_of(tier.service)).connections_opened == 1


async def test_h2load_loses_nothing(serving, program):
    h2load = program("h2load", "nghttp2-client")
    async with serving() as tier:
        code, out, _ = await run(h2load, "-n2000", "-c4", "-m50", url_of(tier))
        assert code == 0
        assert b"2000 succeeded, 0 failed, 0 errored" in out
