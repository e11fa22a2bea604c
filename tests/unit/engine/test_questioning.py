"""Tiers that can answer are asked all at once; one that raises or hangs has said nothing, and harms nobody."""

from __future__ import annotations

import structlog
import trio

from marchproxy_core.engine.questioning import purge, recall
from marchproxy_core.model import Attachment
from marchproxy_core.questions import Purge, Purged, Recall, Recalled

QUESTION = Recall(request_id="1")
PURGE = Purge(service="web")


def tier(name, *, recalled=None, purged=None):
    """Return what a tier holds that answers so."""

    async def says(answer):
        await trio.lowlevel.checkpoint()
        if isinstance(answer, Exception):
            raise answer
        return answer if answer != "hangs" else await trio.sleep_forever()

    return Attachment(
        tier=name,
        recall=(lambda question: says(recalled)) if recalled else None,
        purge=(lambda question: says(purged)) if purged else None,
    )


async def test_the_tier_that_knows_is_heard():
    knows = tier("a", recalled=Recalled(found={"id": "1"}))
    silent = tier("b", recalled=Recalled(found=None, silent=2))
    assert await recall([tier("c"), silent, knows], QUESTION) == Recalled(found={"id": "1"}, silent=2)


async def test_where_no_tier_remembers_there_is_no_answer():
    assert await recall([tier("a"), tier("b")], QUESTION) is None
    assert await recall([], QUESTION) is None


async def test_what_tiers_forget_is_summed_up():
    tiers = [
        tier("a", purged=Purged(forgotten=2, silent=1)),
        tier("b", purged=Purged(forgotten=3)),
        tier("c"),
    ]
    assert await purge(tiers, PURGE) == Purged(forgotten=5, silent=1)
    assert await purge([], PURGE) == Purged(forgotten=0)


async def test_a_tier_that_raises_or_hangs_has_said_nothing(autojump_clock):
    tiers = [
        tier("raises", recalled=RuntimeError("torn"), purged=RuntimeError("torn")),
        tier("hangs", recalled="hangs", purged="hangs"),
        tier("whole", recalled=Recalled(found={"id": "1"}), purged=Purged(forgotten=1)),
    ]
    with structlog.testing.capture_logs() as logs:
        assert await recall(tiers, QUESTION) == Recalled(found={"id": "1"}, silent=2)
        assert await purge(tiers, PURGE) == Purged(forgotten=1, silent=2)
    assert [(event["event"], event["tier"]) for event in logs] == [
        ("tier.gave_no_answer", "raises"),
        ("tier.gave_no_answer", "hangs"),
    ] * 2
    assert logs[0]["error"] == "RuntimeError: torn"
