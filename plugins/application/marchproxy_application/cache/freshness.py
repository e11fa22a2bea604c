"""How old a response is, and how long it may be used (RFC 9111, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from marchproxy_application.cache.dates import parse_date
from marchproxy_application.cache.directives import LONGEST_S, Policy
from marchproxy_application.cache.messages import first_of

if TYPE_CHECKING:
    from marchproxy_application.http1.fields import Field

NEVER_S = float("-inf")
"""A time that is always past."""
HEURISTIC_STATUSES = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501})
"""Those that may be stored though they say nothing of it (RFC 9110, section 15.1); we do not store 206."""
_HEURISTIC_FRACTION = 0.1
"""Of the time since Last-Modified (RFC 9111, section 4.2.2)."""
_LONGEST_HEURISTIC_S = 86_400.0


@attrs.frozen(kw_only=True)
class Defaults:
    """What holds for responses that do not say so themselves.

    Args:
        ttl_s: For how long they are fresh; 0 estimates it by Last-Modified, as RFC 9111 suggests.
        unreachable_s: For how long after that they are used while their backend cannot be reached.
    """

    ttl_s: float = 0.0
    unreachable_s: float = 3600.0


@attrs.frozen(kw_only=True)
class Life:
    """The times of a response, in seconds since 1970.

    Args:
        born_s: When its age was 0, as far as this can be known.
        fresh_until_s: NEVER_S when it must be validated before each use.
        stale_until_s: Until when it may be used while it is being validated.
        error_until_s: Until when it may be used when its backend answers with an error.
        unreachable_until_s: Until when it may be used when its backend does not answer.
        must_validate: It must not be used stale, whatever a client says.
        is_shared: It says that it is for others, or others ask the backend each time; if not, how long it is used is a
            guess, and only those who say the same about themselves share it.
    """

    born_s: float
    fresh_until_s: float
    stale_until_s: float
    error_until_s: float
    unreachable_until_s: float
    must_validate: bool
    is_shared: bool

    @property
    def usable_until_s(self) -> float:
        """Until when it is used without waiting for its backend."""
        return max(self.fresh_until_s, self.stale_until_s)


def life_of(
    status: int,
    fields: Sequence[Field],
    policy: Policy,
    defaults: Defaults,
    *,
    request_time_s: float,
    response_time_s: float,
) -> Life:
    """Return the times of a response.

    Args:
        status: Of the response; of a 304, that of the response that it renews.
        fields: Its fields.
        policy: What they say.
        defaults: What holds where they say nothing.
        request_time_s: When its request was sent.
        response_time_s: When it came.
    """
    date_s = parse_date(first_of(fields, b"date"), response_time_s)
    age_s = _age_field_s(fields)
    apparent_s = 0.0 if date_s is None else max(0.0, int(response_time_s) - date_s)
    born_s = response_time_s - max(apparent_s, (age_s or 0.0) + max(0.0, response_time_s - request_time_s))
    explicit = _explicit_lifetime_s(fields, policy, date_s, response_time_s)
    lifetime_s = _guessed_lifetime_s(status, fields, policy, defaults, date_s, response_time_s)
    if explicit is not None:
        lifetime_s = explicit
    # Of an age that cannot be read nobody knows how great it is, so nothing of the lifetime is believed to be left.
    fresh_until_s = born_s if age_s is None else born_s + lifetime_s
    bars_stale = policy.no_cache or policy.must_validate
    stale_s, error_s, unreachable_s = _stale_times_s(policy, defaults)
    return Life(
        born_s=born_s,
        fresh_until_s=NEVER_S if policy.no_cache else fresh_until_s,
        stale_until_s=NEVER_S if bars_stale else fresh_until_s + stale_s,
        error_until_s=NEVER_S if bars_stale else fresh_until_s + error_s,
        unreachable_until_s=NEVER_S if bars_stale else fresh_until_s + unreachable_s,
        must_validate=bars_stale,
        is_shared=explicit is not None or policy.public or policy.no_cache,
    )


def _stale_times_s(policy: Policy, defaults: Defaults) -> tuple[float, float, float]:
    """Return for how long after it was fresh it may be used: being validated, after an error, unreachable."""
    error_s = policy.stale_if_error_s
    unreachable_s = defaults.unreachable_s if error_s is None else error_s
    return policy.stale_while_revalidate_s, error_s or 0, unreachable_s


def _age_field_s(fields: Sequence[Field]) -> float | None:
    """Return what Age says, None when it is no one number.

    RFC 9111, section 5.1, would have a bad Age ignored, and the first of several believed; to take such a response for
    stale is safe where that is not, and what http-cache-tests asks for.
    """
    values = [field[1] for field in fields if field[0] == b"age"]
    if not values:
        return 0.0
    if len(values) > 1 or not values[0].isdigit():
        return None
    return float(min(int(values[0]), LONGEST_S)) if len(values[0]) <= 10 else float(LONGEST_S)


def _explicit_lifetime_s(
    fields: Sequence[Field], policy: Policy, date_s: float | None, response_time_s: float
) -> float | None:
    if policy.lifetime_s is not None:
        return float(policy.lifetime_s)
    expires = first_of(fields, b"expires") if policy.expires else None
    if expires is None:
        return None
    expires_s = parse_date(expires, response_time_s)
    if expires_s is None:
        return 0.0  # section 5.3: such as "0" is in the past
    return max(0.0, expires_s - (int(response_time_s) if date_s is None else date_s))


def _guessed_lifetime_s(
    status: int,
    fields: Sequence[Field],
    policy: Policy,
    defaults: Defaults,
    date_s: float | None,
    response_time_s: float,
) -> float:
    if status not in HEURISTIC_STATUSES and not policy.public:
        return 0.0
    if first_of(fields, b"set-cookie") is not None:
        return 0.0  # one client's own, unless the backend says expressly that others may have it
    if defaults.ttl_s:
        return defaults.ttl_s
    modified_s = parse_date(first_of(fields, b"last-modified"), response_time_s)
    if modified_s is None:
        return 0.0
    since_s = (response_time_s if date_s is None else date_s) - modified_s
    return min(max(0.0, since_s * _HEURISTIC_FRACTION), _LONGEST_HEURISTIC_S)
