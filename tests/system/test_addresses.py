"""IPv4 and IPv6 on either side."""

from __future__ import annotations

import pytest

BOTH = ("127.0.0.1", "::1")


@pytest.mark.parametrize("front", BOTH)
@pytest.mark.parametrize("back", BOTH)
async def test_a_service_and_its_backend_may_have_different_families(site, front, back):
    web = site.service("web", await site.server("a", back), ip=front)
    daemon = await site.start(web)
    client = await web.call()
    assert await client.echoes(b"x" * 500_000)
    assert await client.end() == "ended"
    (row,) = (await daemon.backends()).values()
    assert row["backend"].startswith("[::1]:" if back == "::1" else "127.0.0.1:")


@pytest.mark.parametrize(
    ("listen", "met"),
    [
        ("0.0.0.0:{port}", ["a", "refused"]),
        ("[::]:{port}", ["refused", "a"]),
        ("127.0.0.1:{port}", ["a", "refused"]),
        ("[::1]:{port}", ["refused", "a"]),
        ("{port}", ["a", "a"]),
    ],
)
async def test_a_service_is_open_on_the_families_it_names_alone(site, listen, met):
    web = site.service("web", await site.server())
    web.options["listen"] = listen.format(port=web.port)
    await site.start(web)
    assert [await web.visit(ip=ip) for ip in BOTH] == met


async def test_backends_of_both_families_take_turns(site):
    a, b = await site.server("a"), await site.server("b", "::1")
    web = site.service("web", a, b)
    await site.start(web)
    assert {await web.visit() for _ in range(20)} == {"a", "b"}


async def test_two_services_share_a_port_by_address(site):
    a, b, c = [await site.server(name) for name in "abc"]
    every, four, six = site.service("every", a), site.service("four", b), site.service("six", c)
    every.options["listen"] = str(every.port)
    four.options["listen"] = f"127.0.0.2:{every.port}"
    six.options["listen"] = f"[::1]:{every.port}"
    await site.start(every, four, six)
    assert [await every.visit(ip=ip) for ip in ("127.0.0.1", "127.0.0.2", "::1")] == ["a", "b", "c"]


async def test_maglev_keeps_an_ipv6_client_at_its_backend(site):
    web = site.service(
        "web", await site.server("a"), await site.server("b", "::1"), ip="::1", balance="maglev"
    )
    await site.start(web)
    assert len({await web.visit() for _ in range(10)}) == 1
