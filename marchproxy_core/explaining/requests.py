"""A request's whole way, step by step, until a backend would be asked or it is refused. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from marchproxy_core.explaining.asked import Asked, Refusal, Step
from marchproxy_core.explaining.caching import judge_cache
from marchproxy_core.explaining.finding import Found, find_listener, find_route
from marchproxy_core.explaining.limiting import judge_head, judge_limits
from marchproxy_core.explaining.passing import judge_head_sent
from marchproxy_core.explaining.picking import judge_backends, judge_retries
from marchproxy_core.explaining.tokens import judge_token
from marchproxy_core.model import Decision

if TYPE_CHECKING:
    from marchproxy_core.config import Config
    from marchproxy_core.model import Plan


@attrs.frozen(kw_only=True)
class RequestExplanation:
    """What ``marchproxy explain request --json`` writes."""

    method: str
    url: str
    """In normal form, with the host that the request names."""
    service: str | None
    asks_backend: bool
    """Whether a backend would be asked, unless the cache has the answer."""
    status: int | None
    """That a refused request is answered with; null: none, its client is cut off or not let in."""
    reason: str
    """What is counted for a refused one, a word of marchproxy_core/drops.py; may be empty."""
    outcome: str
    """All of it in a sentence."""
    decisions: tuple[Decision, ...]
    """In the order in which they are made; those after a refusal are left out."""
    sent: tuple[str, ...]
    """The lines of the head that a backend gets; what differs from request to request in angle brackets."""


def explain_request(
    asked: Asked, config: Config, plan: Plan, *, listen: str | None, now_s: float
) -> RequestExplanation:
    """Follow a request.

    Args:
        asked: It.
        config: Of the daemon.
        plan: Who carries what.
        listen: The listener, ``IP:PORT``; None: by the URL.
        now_s: Seconds since 1970, for tokens.
    """
    way = _Way()
    found = _find(way, asked, config, listen)
    if found is not None and way.refusal is None:
        way.take(_tier(found, plan))
        if way.refusal is None:
            _follow(way, asked, found, config, now_s)
    refusal = way.refusal
    return RequestExplanation(
        method=asked.method,
        url=f"{asked.scheme}://{asked.host}{asked.path}",
        service=found.service.name if found is not None else None,
        asks_backend=refusal is None,
        status=refusal.status if refusal is not None else None,
        reason=refusal.reason.value if refusal is not None and refusal.reason is not None else "",
        outcome=_outcome(refusal, found),
        decisions=tuple(way.decisions),
        sent=() if refusal is not None else way.sent,
    )


@attrs.define
class _Way:
    decisions: list[Decision] = attrs.field(factory=list)
    refusal: Refusal | None = None
    sent: tuple[str, ...] = ()

    def take(self, taken: Step) -> bool:
        """Take a step; false when the way ends with it."""
        self.decisions.append(taken.decision)
        self.refusal = taken.refusal
        return taken.refusal is None


def _find(way: _Way, asked: Asked, config: Config, listen: str | None) -> Found | None:
    taken, members = find_listener(asked, config.services, listen)
    if not way.take(taken):
        return None
    if any(service.http is not None for service in members) and not way.take(judge_head(asked, members)):
        return None
    taken, found = find_route(asked, members)
    way.take(taken)
    return found


def _tier(found: Found, plan: Plan) -> Step:
    planned = next(one for one in plan.services if one.service.name == found.service.name)
    refusal = None
    if planned.chosen is None:
        refusal = Refusal(None, None, "no tier can carry the service, so the daemon does not start")
    return Step(decision=planned.decision, refusal=refusal)


def _follow(way: _Way, asked: Asked, found: Found, config: Config, now_s: float) -> None:
    service = found.service
    if service.http is None:
        if way.take(judge_limits(asked, service, config.settings)):
            way.take(judge_backends(service))
        return
    # Rates come before the token, but the body's size after it; the one of them that can be told offline is the latter.
    if not way.take(judge_token(asked, service, now_s)):
        return
    if not way.take(judge_limits(asked, service, config.settings)):
        return
    way.take(judge_cache(asked, service))
    head, way.sent = judge_head_sent(asked, found)
    way.take(head)
    if way.take(judge_backends(service)):
        way.take(judge_retries(asked, service))


def _outcome(refusal: Refusal | None, found: Found | None) -> str:
    if refusal is not None:
        answer = f"answered {refusal.status}" if refusal.status is not None else "not answered"
        counted = f" ({refusal.reason.value})" if refusal.reason is not None else ""
        return f"{answer}{counted}: {refusal.why}"
    assert found is not None
    name = found.service.name
    if found.service.http is None:
        return f"a backend of {name} gets the bytes as they come"
    stored = ", unless the cache has the answer" if found.service.cache is not None else ""
    return f"a backend of {name} is asked{stored}"
