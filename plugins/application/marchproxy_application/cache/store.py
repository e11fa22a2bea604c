"""Stored responses by their URLs and variants, in bounded memory.

Room is made in the order of coming, but who was used since its last turn gets another one (second chance): a hit costs
no more than a mark, and a crawler's thousand pages push out nothing that others read.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, final

from marchproxy_application.cache.stored import Stored
from marchproxy_application.cache.vary import Names, Values, values_of

if TYPE_CHECKING:
    from marchproxy_application.cache.messages import UrlKey
    from marchproxy_application.http1.fields import Field

MOST_GROUPS = 4
"""Sets of names that the variants of one URL may vary by; a backend seldom has two."""

_Group = dict[Values, Stored]


@final
class Store:
    """Holds them.

    Args:
        max_bytes: Of all of them together, as ``Stored.size_bytes`` counts.
    """

    def __init__(self, max_bytes: int) -> None:
        """Begin empty."""
        self.max_bytes = max_bytes
        self.size_bytes = 0
        self.evicted = 0
        self._urls: dict[UrlKey, dict[Names, _Group]] = {}
        self._turns: OrderedDict[Stored, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._turns)

    def find(self, url: UrlKey, fields: Sequence[Field]) -> Stored | None:
        """Return the newest response for a request (RFC 9111, section 4.1)."""
        groups = self._urls.get(url)
        if groups is None:
            return None
        best = None
        for names, group in groups.items():
            found = group.get(values_of(names, fields) if names else ())
            if found is not None and (best is None or found.date_s >= best.date_s):
                best = found
        return best

    def names_of(self, url: UrlKey) -> Names | None:
        """Return what the latest response of a URL varies by, None when there is none."""
        groups = self._urls.get(url)
        return next(reversed(groups)) if groups else None

    def has(self, stored: Stored) -> bool:
        """Whether it is still there."""
        return stored in self._turns

    def put(self, stored: Stored) -> None:
        """Store a response in place of the same variant's; room is made."""
        url, names, values = stored.variant
        groups = self._urls.get(url, {})
        old = groups.get(names, {}).get(values)
        if old is not None:
            self.drop(old)
        if names not in groups and len(groups) >= MOST_GROUPS:
            for each in list(groups[next(iter(groups))].values()):
                self.drop(each)
        self._urls.setdefault(url, {}).setdefault(names, {})[values] = stored
        self._turns[stored] = None
        self.size_bytes += stored.size_bytes
        while self.size_bytes > self.max_bytes:
            self._evict()

    def drop(self, stored: Stored) -> bool:
        """Remove a response; returns whether it was there."""
        if stored not in self._turns:
            return False
        del self._turns[stored]
        self.size_bytes -= stored.size_bytes
        url, names, values = stored.variant
        groups = self._urls[url]
        group = groups[names]
        del group[values]
        if not group:
            del groups[names]
        if not groups:
            del self._urls[url]
        return True

    def drop_url(self, url: UrlKey) -> int:
        """Remove all variants of a URL; returns how many."""
        return sum(self.drop(each) for each in self.variants(url))

    def drop_where(self, chosen: Callable[[UrlKey], bool]) -> int:
        """Remove all responses of some URLs; returns how many. Looks at each URL."""
        return sum(self.drop_url(url) for url in [each for each in self._urls if chosen(each)])

    def variants(self, url: UrlKey) -> list[Stored]:
        """Return all variants of a URL."""
        return [stored for group in self._urls.get(url, {}).values() for stored in group.values()]

    def _evict(self) -> None:
        oldest = next(iter(self._turns))
        if oldest.is_used:
            oldest.is_used = False
            self._turns.move_to_end(oldest)
        else:
            self.drop(oldest)
            self.evicted += 1
