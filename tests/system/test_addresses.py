"""IPv4 and IPv6 on either side."""

from __future__ import annotations

BOTH = ("127.0.0.1", "::1")


async def test_a_service_and_its_backend_may_have_different_families(site):
    pairs = [(front, await site.server("a", back)) for front in BOTH for back in BOTH]
    services = [
        site.service(f"from{number}", server, ip=front) for number, (front, server) in enumerate(pairs)
    ]
    await site.start(*services)
    for service in services:
        client = await service.call()
        assert await client.echoes(b"x" * 500_000)
        assert await client.end() == "ended"


async def test_a_service_is_open_on_the_families_it_names_alone(site):
    a = await site.server()
    expected = {
        "0.0.0.0:{port}": ["a", "refused"],
        "[::]:{port}": ["refused", "a"],
        "127.0.0.1:{port}": ["a", "refused"],
        "[::1]:{port}": ["refused", "a"],
        "{port}": ["a", "a"],
    }
    services = [site.service(f"web{number}", a) for number in range(len(expected))]
    for service, listen in zip(services, expected, strict=True):
        service.options["listen"] = listen.format(port=service.port)
    await site.start(*services)
    met = [[await service.visit(ip=ip) for ip in BOTH] for service in services]
    assert dict(zip(expected, met, strict=True)) == expected


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
