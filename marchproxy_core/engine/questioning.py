"""Asking tiers what only some of them can answer: what became of a request, and to forget what is cached."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

import structlog
import trio

from marchproxy_core.questions import Purged, Recalled

if TYPE_CHECKING:
    from marchproxy_core.model import Attachment
    from marchproxy_core.questions import Purge, Recall

log = structlog.get_logger()

Q = TypeVar("Q")
A = TypeVar("A")
_DEADLINE_S = 2.0
"""Twice what a pool gives its workers."""


async def recall(attachments: Iterable[Attachment], question: Recall) -> Recalled | None:
    """Ask what became of a request; None where no tier remembers any."""
    asks = {one.tier: one.recall for one in attachments if one.recall is not None}
    if not asks:
        return None
    answers = await _ask(asks, question, Recalled(found=None, silent=1))
    found = next((answer.found for answer in answers if answer.found is not None), None)
    return Recalled(found=found, silent=sum(answer.silent for answer in answers))


async def purge(attachments: Iterable[Attachment], question: Purge) -> Purged:
    """Have what is cached forgotten by every tier that has a cache."""
    asks = {one.tier: one.purge for one in attachments if one.purge is not None}
    answers = await _ask(asks, question, Purged(forgotten=0, silent=1))
    return Purged(
        forgotten=sum(answer.forgotten for answer in answers), silent=sum(answer.silent for answer in answers)
    )


async def _ask(asks: dict[str, Callable[[Q], Awaitable[A]]], question: Q, silence: A) -> list[A]:
    """Ask several tiers at once; one that raises or hangs has said nothing, and moves traffic on."""
    answers: list[A] = []

    async def ask(tier: str, call: Callable[[Q], Awaitable[A]]) -> None:
        try:
            with trio.fail_after(_DEADLINE_S):
                answers.append(await call(question))
        except Exception as error:  # noqa: BLE001 - a tier may raise anything
            log.warning("tier.gave_no_answer", tier=tier, error=f"{type(error).__name__}: {error}")
            answers.append(silence)

    async with trio.open_nursery() as nursery:
        for tier, call in asks.items():
            nursery.start_soon(ask, tier, call)
    return answers
