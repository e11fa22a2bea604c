"""What is read out of files, and read anew when they change; the last good state stays while a new one is bad."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar, final

from marchproxy_application.tls.files import Mark, mark_of
from marchproxy_application.unusable import Unusable

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


@final
class Watched(Generic[T]):
    """One thing out of one or several files."""

    def __init__(
        self,
        paths: tuple[str, ...],
        read: Callable[[], T | Unusable],
        judge: Callable[[T, float], Unusable | None] = lambda value, now_s: None,
    ) -> None:
        """Remember how it is read; nothing is, before :meth:`look`.

        Args:
            paths: Of all its files.
            read: Reads it.
            judge: Says what time does to it, at a Unix time in seconds. What is out of date is better than nothing, and
                worse than what is not.
        """
        self._paths = paths
        self._read = read
        self._judge = judge
        self._mark: tuple[Mark, ...] | None = None
        self._told: Unusable | None = None
        self.value: T | None = None
        self.complaint: Unusable | None = None
        """What is wrong with what the files have now."""

    def look(self, now_s: float) -> tuple[bool, Unusable | None]:
        """Read the files if they changed, or had something wrong.

        Returns:
            Whether there is a new value, and a complaint that was not returned before. A file that changed since
            the last look may be half of a renewal: a complaint about it is kept back until the next look.
        """
        mark = tuple(map(mark_of, self._paths))
        is_first, is_settled = self._mark is None, mark == self._mark
        has_new = False
        if not is_settled or self.complaint is not None:
            self._mark = mark
            has_new = self._take(self._read(), now_s)
        elif self.value is not None:
            self.complaint = self._judge(self.value, now_s)
        if self.complaint is None:
            self._told = None
        return has_new, self._untold() if is_first or is_settled else None

    def _take(self, found: T | Unusable, now_s: float) -> bool:
        if isinstance(found, Unusable):
            self.complaint = found
            return False
        self.complaint = self._judge(found, now_s)
        had = self.value
        if self.complaint is not None and had is not None and self._judge(had, now_s) is None:
            return False
        self.value = found
        return had != found

    def _untold(self) -> Unusable | None:
        if self.complaint == self._told:
            return None
        self._told = self.complaint
        return self.complaint
