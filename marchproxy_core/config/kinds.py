"""Kinds of value: how each is written, read and shown. Pure; knows neither files nor variables.

A kind reads text, whether it came from a YAML scalar or a variable, so both say the same thing. What it
shows, it reads back to the same value.
"""

from __future__ import annotations

import enum
import ipaddress
import math
import re
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import attrs

from marchproxy_core import door
from marchproxy_core.services import Endpoint, IPAddress

T = TypeVar("T")
E = TypeVar("E", bound=enum.StrEnum)

TRUE_WORDS = ("true", "on", "yes", "1")
FALSE_WORDS = ("false", "off", "no", "0")
MAX_CPU = 8191
"""Highest CPU number: the kernel's own limit, CONFIG_NR_CPUS on x86-64."""

_INTEGER = re.compile(r"-?[0-9]{1,20}")
_NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,9})?")
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)?")
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MASK = re.compile(r"0[xX]([0-9a-fA-F]{1,16})")
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


class Kind(Protocol[T]):
    """How values of one type are written."""

    @property
    def want(self) -> str:
        """What is accepted, as the end of a sentence: ``an integer from 1 to 8``."""

    def parse(self, text: str) -> T:
        """Read a value.

        Raises:
            ValueError: The text is not such a value; ``want`` says what would be.
        """

    def show(self, value: T) -> str:
        """Text that :meth:`parse` reads back."""


def _limits(low: float, high: float, unit: str) -> str:
    return f"from {show_decimal(low)} to {show_decimal(high)}" + (f" {unit}" if unit else "")


@attrs.frozen
class Integer:
    """A decimal integer in a range, both ends included."""

    low: int
    high: int
    unit: str = ""

    @property
    def want(self) -> str:
        """What is accepted."""
        return f"an integer {_limits(self.low, self.high, self.unit)}"

    def parse(self, text: str) -> int:
        """Read a value."""
        if not _INTEGER.fullmatch(text) or not self.low <= int(text) <= self.high:
            raise ValueError(text)
        return int(text)

    def show(self, value: int) -> str:
        """Text that reads back."""
        return str(value)


@attrs.frozen
class PowerOfTwo:
    """A power of two in a range: sizes of rings, whose indexes wrap by masking."""

    low: int
    high: int
    unit: str = ""

    @property
    def want(self) -> str:
        """What is accepted."""
        return f"a power of two {_limits(self.low, self.high, self.unit)}"

    def parse(self, text: str) -> int:
        """Read a value."""
        value = Integer(self.low, self.high).parse(text)
        if value & (value - 1):
            raise ValueError(text)
        return value

    def show(self, value: int) -> str:
        """Text that reads back."""
        return str(value)


@attrs.frozen
class Number:
    """A decimal number in a range."""

    low: float
    high: float
    unit: str = ""

    @property
    def want(self) -> str:
        """What is accepted."""
        return f"a number {_limits(self.low, self.high, self.unit)}"

    def parse(self, text: str) -> float:
        """Read a value."""
        if not _NUMBER.fullmatch(text) or not self.low <= float(text) <= self.high:
            raise ValueError(text)
        return float(text)

    def show(self, value: float) -> str:
        """Text that reads back."""
        return show_decimal(value)


@attrs.frozen
class Duration:
    """A time span: seconds, or a number with ms, s, m, h or d behind it."""

    low: float
    high: float

    @property
    def want(self) -> str:
        """What is accepted."""
        return f"seconds (or a number with ms, s, m, h or d) {_limits(self.low, self.high, '')}"

    def parse(self, text: str) -> float:
        """Read a value, in seconds."""
        match = _DURATION.fullmatch(text)
        if match is None:
            raise ValueError(text)
        value = float(match[1]) * _DURATION_UNITS[match[2] or "s"]
        if not self.low <= value <= self.high:
            raise ValueError(text)
        return value

    def show(self, value: float) -> str:
        """Seconds that read back."""
        return show_decimal(value)


@attrs.frozen
class Flag:
    """True or false."""

    want: str = "true or false (or on, off, yes, no, 1, 0)"

    def parse(self, text: str) -> bool:
        """Read a value."""
        word = text.lower()
        if word not in TRUE_WORDS + FALSE_WORDS:
            raise ValueError(text)
        return word in TRUE_WORDS

    def show(self, value: bool) -> str:
        """Text that reads back."""
        return "true" if value else "false"


@attrs.frozen
class OneOf(Generic[E]):
    """One word of an enumeration; ``also`` maps further spellings to its words."""

    words: type[E]
    also: dict[str, str] = attrs.field(factory=dict)

    @property
    def want(self) -> str:
        """What is accepted."""
        return "one of " + ", ".join(word.value for word in self.words)

    def parse(self, text: str) -> E:
        """Read a value."""
        word = text.lower()
        return self.words(self.also.get(word, word))

    def show(self, value: E) -> str:
        """Text that reads back."""
        return value.value


@attrs.frozen
class Text:
    """Text of a given form."""

    want: str
    pattern: str

    def parse(self, text: str) -> str:
        """Read a value."""
        if not re.fullmatch(self.pattern, text):
            raise ValueError(text)
        return text

    def show(self, value: str) -> str:
        """Text that reads back."""
        return value


@attrs.frozen
class ListOf(Generic[T]):
    """Values separated by ``separator``, or a YAML list; no value twice where ``once``."""

    item: Kind[T]
    plural: str
    separator: str = ","
    once: bool = True

    @property
    def want(self) -> str:
        """What is accepted."""
        mark = {",": "commas", ";": "semicolons", "\n": "line breaks"}[self.separator]
        each = ", each once," if self.once else ""
        return f"{self.plural}{each} separated by {mark} or as a YAML list"

    def parse(self, text: str) -> tuple[T, ...]:
        """Read the values; empty text is an empty list."""
        if not text.strip():
            return ()
        items = tuple(self.item.parse(part.strip()) for part in text.strip().split(self.separator))
        if self.once and len(set(items)) != len(items):
            raise ValueError(text)
        return items

    def show(self, value: tuple[T, ...]) -> str:
        """Text that reads back."""
        return self.separator.join(self.item.show(item) for item in value)


@attrs.frozen
class CpuList:
    """CPU numbers and ranges as the kernel's own lists, ``4-7,9``; read into ascending numbers."""

    want: str = f"CPU numbers and ranges as 4-7,9, from 0 to {MAX_CPU}"
    separator: str = ","

    def parse(self, text: str) -> tuple[int, ...]:
        """Read the CPUs; empty text is none."""
        cpus: set[int] = set()
        for part in text.split(",") if text.strip() else ():
            match = _RANGE.fullmatch(part.strip())
            if match is None:
                raise ValueError(text)
            first, last = int(match[1]), int(match[2] or match[1])
            if not first <= last <= MAX_CPU:
                raise ValueError(text)
            cpus.update(range(first, last + 1))
        return tuple(sorted(cpus))

    def show(self, value: tuple[int, ...]) -> str:
        """Ranges that read back."""
        spans: list[list[int]] = []
        for cpu in value:
            if spans and spans[-1][1] == cpu - 1:
                spans[-1][1] = cpu
            else:
                spans.append([cpu, cpu])
        return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


@attrs.frozen
class HexMask:
    """A mask of up to 64 bits, at least one set, ``0x3``."""

    want: str = "a hexadecimal mask of 1 to 64 bits as 0x3"

    def parse(self, text: str) -> int:
        """Read the mask."""
        match = _MASK.fullmatch(text)
        if match is None or int(match[1], 16) == 0:
            raise ValueError(text)
        return int(match[1], 16)

    def show(self, value: int) -> str:
        """Text that reads back."""
        return f"{value:#x}"


@attrs.frozen
class PortRange:
    """First and last port, ``FIRST-LAST``."""

    want: str = "ports as FIRST-LAST, from 1 to 65535, first not above last"

    def parse(self, text: str) -> tuple[int, int]:
        """Read both ends."""
        match = _RANGE.fullmatch(text)
        if match is None or match[2] is None or not 1 <= int(match[1]) <= int(match[2]) <= 65535:
            raise ValueError(text)
        return int(match[1]), int(match[2])

    def show(self, value: tuple[int, int]) -> str:
        """Text that reads back."""
        return f"{value[0]}-{value[1]}"


@attrs.frozen
class Address:
    """An IPv4 or IPv6 address; ``accepts`` narrows it."""

    want: str = "an IPv4 or IPv6 address"
    accepts: Callable[[IPAddress], bool] = attrs.field(default=lambda _: True, repr=False)

    def parse(self, text: str) -> IPAddress:
        """Read the address."""
        bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
        address = ipaddress.ip_address(bare)
        if "%" in bare or not self.accepts(address):
            raise ValueError(text)
        return address

    def show(self, value: IPAddress) -> str:
        """Text that reads back."""
        return str(value)


@attrs.frozen
class ClientPrefix:
    """A prefix of clients' addresses."""

    want: str = door.WANT

    def parse(self, text: str) -> door.Prefix:
        """Read the prefix."""
        return door.read_prefix(text)

    def show(self, value: door.Prefix) -> str:
        """Text that reads back."""
        return str(value)


@attrs.frozen
class UnixAddress:
    """A unix socket in the file system."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@attrs.frozen
class AdminAddress:
    """Where the admin API listens: an address and port, or a unix socket."""

    want: str = "IP:PORT, [IPV6]:PORT or unix:/absolute/path of at most 107 bytes"

    def parse(self, text: str) -> Endpoint | UnixAddress:
        """Read the address."""
        if not text.startswith("unix:"):
            endpoint = Endpoint.parse(text)
            if "%" in text or endpoint.ip.is_multicast:
                raise ValueError(text)
            return endpoint
        path = text.removeprefix("unix:")
        # sun_path has 108 bytes and ends in a zero (unix(7)).
        if not path.startswith("/") or path.endswith("/") or "\0" in path or len(path.encode()) > 107:
            raise ValueError(text)
        return UnixAddress(path)

    def show(self, value: Endpoint | UnixAddress) -> str:
        """Text that reads back."""
        return str(value)


def show_decimal(value: float) -> str:
    """A number without exponent or needless zeros; at most nine places, as :class:`Number` reads them."""
    if not math.isfinite(value):
        raise ValueError(f"not a finite number: {value}")
    return f"{value:.9f}".rstrip("0").rstrip(".")
