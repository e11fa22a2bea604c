"""What is found out about one service while it is put together: problems, and notes that stop nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from marchproxy_core.config.problems import Problems
    from marchproxy_core.config.reading import Keys
    from marchproxy_core.config.service_keys import ServiceKeys


class Findings:
    """The keys of one service, and where to tell what is wrong with them."""

    def __init__(self, keys: Keys[ServiceKeys], problems: Problems, notes: list[str]) -> None:
        """Add to ``problems`` and ``notes``, which are those of the whole file."""
        self.keys = keys
        self.value = keys.value
        self.problems = problems
        self._notes = notes

    def given(self, key: str) -> bool:
        """Whether the service has the key, right or wrong."""
        return key in self.keys.nodes

    def asked(self, key: str) -> bool:
        """Whether the service has the key, and not to say that it is off or empty."""
        value: object = getattr(self.value, key)
        return self.given(key) and value is not False and value != ()

    def problem(self, key: str, got: str, want: str, *lines: str) -> None:
        """Note what is wrong with a key, at the line of the first of ``lines`` that was given, else its own."""
        line = self.keys.line_of(*(lines or (key,)))
        self.problems.add(line, f"{self.keys.path}.{key}", got, want)

    def note(self, text: str) -> None:
        """Note what the operator should know."""
        where = self.problems.where(self.keys.line)
        self._notes.append(f"{where}: service {self.value.name or '?'}: {text}")
