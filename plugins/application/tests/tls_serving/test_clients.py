"""Clients whose TLS ends here: what they are shown, what they speak, what they are told when it fails."""

from __future__ import annotations


def lines_of(request):
    return dict(request.fields)


async def test_a_request_comes_through_and_its_origin_is_told(
    serving, origin, workshop, tls_client, ended_here
):
    async with origin() as backend, serving(backend, **ended_here()) as site:
        async with tls_client(site, workshop.client()) as peer:
            assert [(await peer.ask()).body for _ in range(3)] == [b"ok"] * 3
        fields = lines_of(backend.requests[0])
        assert fields[b"x-forwarded-proto"] == b"https"
        assert fields[b"x-forwarded-port"] == str(site.service.listen[0].port).encode()
        await site.counts("connections_active", 0)
        assert (await site.stats()).connections_opened == 1
