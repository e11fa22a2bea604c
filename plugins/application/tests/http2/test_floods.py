"""What costs its sender nothing, a thousand times: GOAWAY with ENHANCE_YOUR_CALM (RFC 9113, section 10.5)."""

from __future__ import annotations

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    ExtensionFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from marchproxy_core.services import Http
from marchproxy_core.testing import waiting
from marchproxy_core.testing.laws.patience import in_time
from plugins.application.tests.http2.rig import GET

ENHANCE_YOUR_CALM = 11
TIMES = 2000
POST = ((b":method", b"POST"), *GET[1:])

CHEAP = {
    "CVE-2019-9512 ping flood": PingFrame(0, opaque_data=b"12345678"),
    "CVE-2019-9515 settings flood": SettingsFrame(0),
    "CVE-2019-9518 empty frames": DataFrame(1),
    "priority flood": PriorityFrame(1, depends_on=0),
    "window-update flood": WindowUpdateFrame(1, window_increment=1),
    "unknown frames": ExtensionFrame(0x99, 0, body=b""),
}


@pytest.mark.parametrize("frame", CHEAP.values(), ids=CHEAP.keys())
async def test_floods_of_one_frame(serving, frame):
    async with serving() as tier, tier.raw() as raw:
        with in_time("GOAWAY comes"):
            await raw.send(raw.head(1, POST, ends=False), frame.serialize() * TIMES)
            assert await goodbye(raw) == ENHANCE_YOUR_CALM
        assert (await tier.drops())["http2_flood"] == 1


async def goodbye(raw):
    """Return the code of GOAWAY, whatever else comes before it."""
    while (frame := await raw.next()) is not None:
        if frame.type == 7:
            return frame.error_code
    raise AssertionError("no GOAWAY came")


async def test_rapid_reset(serving):
    """CVE-2023-44487: streams that are opened and reset at once."""
    async with serving() as tier, tier.raw() as raw:
        with in_time("GOAWAY comes"):
            for number in range(1, 2 * TIMES, 2):
                await raw.send(raw.head(number), RstStreamFrame(number, error_code=8))
                if raw.has_ended:
                    break
            assert await goodbye(raw) == ENHANCE_YOUR_CALM
        assert (await tier.drops())["http2_flood"] == 1
        assert len(tier.requests) < 500


async def test_made_you_reset(serving):
    """CVE-2025-8671: streams that the proxy has to reset."""
    async with serving() as tier, tier.raw() as raw:
        with in_time("GOAWAY comes"):
            for number in range(1, 2 * TIMES, 2):
                await raw.send(raw.head(number, POST, ends=False))
                await raw.send(WindowUpdateFrame(number, window_increment=2**31 - 1))
                if raw.has_ended:
                    break
            assert await goodbye(raw) == ENHANCE_YOUR_CALM
        assert (await tier.drops())["http2_flood"] == 1


async def test_malformed_requests_one_after_the_other(serving):
    async with serving() as tier, tier.raw() as raw:
        with in_time("GOAWAY comes"):
            for number in range(1, 1000, 2):
                await raw.send(raw.head(number, [*GET, (b"te", b"x")]))
                frame = await raw.until((RstStreamFrame, GoAwayFrame))
                if isinstance(frame, GoAwayFrame):
                    break
            assert frame.error_code == ENHANCE_YOUR_CALM


@pytest.mark.parametrize("data", [b"", b"x", b"x" * 16384], ids=["empty", "small", "large"])
async def test_continuations(serving, data):
    """CVE-2024-24549 and its like: a header block without an end."""
    async with serving() as tier, tier.raw() as raw:
        with in_time("GOAWAY comes"):
            await raw.send(HeadersFrame(1, data=b"\x82"))
            await raw.send(ContinuationFrame(1, data=data).serialize() * 64)
            assert await goodbye(raw) == ENHANCE_YOUR_CALM
        assert (await tier.drops())["http2_flood"] == 1


async def test_a_header_bomb(serving):
    """CVE-2016-6581: one long field, then an index of a byte for it, many times."""
    async with serving() as tier, tier.raw() as raw:
        with in_time("GOAWAY comes"):
            await raw.send(
                raw.head(1, [*GET, (b"x", b"y" * 3900)]), raw.head(3, [*GET, *[(b"x", b"y" * 3900)] * 200])
            )
            assert await goodbye(raw) == ENHANCE_YOUR_CALM
        assert (await tier.drops())["http2_flood"] == 1


async def test_pings_whose_answers_nobody_reads(serving):
    """The answers must not pile up: what a client does not take, it cannot ask for more of."""
    ping = PingFrame(0, opaque_data=b"12345678").serialize()
    async with serving() as tier, tier.raw() as raw:
        with in_time("the connection ends"):
            while not raw.has_ended:
                await raw.send(ping * 1000)
        await waiting.until(lambda: is_flooded(tier))


async def is_flooded(tier):
    return "http2_flood" in await tier.drops()


async def test_others_are_served_on(serving):
    async with serving() as tier, tier.raw() as raw, tier.client() as client:
        with in_time("another client is served while one floods"):
            await raw.send(PingFrame(0, opaque_data=b"12345678").serialize() * TIMES)
            assert (await client.get()).status == 200
            assert await goodbye(raw) == ENHANCE_YOUR_CALM
            assert (await client.get()).status == 200


async def test_a_request_that_is_reset_in_the_same_breath_is_not_even_begun(serving):
    """What h2 has closed takes no answer, not even one that is there at once."""
    async with serving(http=Http(paths=("/here",))) as tier, tier.raw() as raw:
        with in_time("the next request is answered"):
            await raw.send(
                raw.head(1).serialize()
                + RstStreamFrame(1, error_code=8).serialize()
                + raw.head(3, POST, ends=False).serialize()
                + DataFrame(3, data=b"x").serialize()
                + RstStreamFrame(3, error_code=8).serialize()
                + raw.head(5).serialize()
            )
            assert await raw.status(5) == 404
        assert (await tier.drops())["no_route"] == 1


async def test_data_behind_an_early_answer_is_no_flood(serving):
    """A client may have much under way when its request is answered early."""
    async with serving(http=Http(max_body_bytes=10)) as tier, tier.raw() as raw:
        with in_time("the next request is answered"):
            await raw.send(raw.head(1, POST, ends=False), DataFrame(1, data=b"x" * 100))
            assert await raw.status(1) == 413
            await raw.until(DataFrame, flag="END_STREAM")
            await raw.send(DataFrame(1, data=b"x" * 100).serialize() * 1000)
            await raw.send(raw.head(3))
            while not isinstance(frame := await raw.next(), HeadersFrame):
                assert isinstance(frame, (RstStreamFrame, WindowUpdateFrame))
            assert frame.stream_id == 3
