"""What is wrong with what was read from files, as a value: whoever reads them raises nothing for it."""

from __future__ import annotations

import attrs


@attrs.frozen
class Unusable:
    """What is wrong with a file, with something in it, or with several files that go together."""

    where: str
    """The path, or whose files they are."""
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what} - fix: {self.fix}"
