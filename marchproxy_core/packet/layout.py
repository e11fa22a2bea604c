"""The engine's own declarations (``c/types.h``), read: sizes, places of fields, packing, enumerations.

The C file is the only place where a layout is written down. It is parsed, not compiled: this needs no compiler.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, final

import cffi

if TYPE_CHECKING:
    from marchproxy_core.services import IPAddress

SOURCES = Path(__file__).with_name("c")
"""The engine's C files."""

Value = int | bytes | tuple[int, ...]
"""What a field holds; an address is 16 bytes in network order, a port two."""

_MAPPED = bytes(10) + b"\xff\xff"


def declarations(name: str) -> str:
    """Return a C header of the engine without comments and directives that only a compiler understands."""
    text = re.sub(r"/\*.*?\*/", "", (SOURCES / name).read_text(encoding="ascii"), flags=re.DOTALL)
    return "\n".join(line for line in text.splitlines() if not line.startswith(("#pragma", "#include")))


@lru_cache(maxsize=1)
def types() -> cffi.FFI:
    """Return the parsed declarations; do not add to them."""
    ffi = cffi.FFI()
    ffi.cdef(declarations("types.h"))
    return ffi


def enumeration(name: str) -> Mapping[str, int]:
    """Return an ``enum`` of the header: its names without ``MP_``, and their values."""
    return {key.removeprefix("MP_"): value for key, value in types().typeof(f"enum {name}").relements.items()}


@final
class Struct:
    """One ``struct`` of the header, as bytes in user space's hands."""

    def __init__(self, name: str) -> None:
        """Look a structure up, as ``mp_flow``."""
        self._name = f"struct {name}"
        self._type = types().typeof(self._name)
        self.size = types().sizeof(self._name)
        """In bytes."""

    def offset(self, field: str) -> int:
        """Return where a field begins, in bytes."""
        return int(types().offsetof(self._name, field))

    def pack(self, **fields: Value) -> bytes:
        """Return the structure's bytes; what is not named is zero.

        Raises:
            OverflowError: A number does not fit its field.
            KeyError, AttributeError: There is no such field.
        """
        value = types().new(f"{self._name} *")
        known = dict(self._type.fields)
        for name, given in fields.items():
            kind = known[name].type
            if isinstance(given, bytes):
                types().buffer(value)[known[name].offset : known[name].offset + types().sizeof(kind)] = given
            else:
                setattr(value, name, given)
        return bytes(types().buffer(value))

    def unpack(self, raw: bytes) -> Mapping[str, Value]:
        """Return the fields of a structure: numbers as they are, arrays of them as tuples, all else as bytes."""
        value = types().from_buffer(f"{self._name} *", raw)
        return {name: self._value(field.type, getattr(value[0], name)) for name, field in self._type.fields}

    def _value(self, kind: cffi.FFI.CType, value: object) -> Value:
        if kind.kind == "primitive":
            assert isinstance(value, int)
            return value
        if kind.kind == "struct":
            return bytes(types().buffer(types().addressof(value)))
        if kind.item.kind == "struct":
            return bytes(types().buffer(value))  # its elements would point into memory that goes away
        return tuple(types().unpack(value, kind.length))


def address_bytes(ip: IPAddress) -> bytes:
    """Return an address as ``struct mp_address`` has it: 16 bytes, IPv4 as ``::ffff:a.b.c.d``."""
    return _MAPPED + ip.packed if ip.version == 4 else ip.packed


def address_of(raw: bytes) -> IPAddress:
    """Return the address that 16 bytes stand for."""
    if raw.startswith(_MAPPED):
        return ipaddress.IPv4Address(raw[12:])
    return ipaddress.IPv6Address(raw)


def port_bytes(port: int) -> bytes:
    """Return a port in network order."""
    return port.to_bytes(2, "big")


FLOW_KEY = Struct("mp_flow_key")
FLOW_REF = Struct("mp_flow_ref")
FLOW = Struct("mp_flow")
HINTS = Struct("mp_hints")
SERVICE_KEY = Struct("mp_service_key")
SERVICE = Struct("mp_service")
PICKS = Struct("mp_picks")
BACKEND = Struct("mp_backend")
ADDRESS = Struct("mp_address")
LOAD = Struct("mp_load")
COUNTERS = Struct("mp_counters")
SETTINGS = Struct("mp_settings")
PREFIX_KEY = Struct("mp_prefix_key")
PREFIX = Struct("mp_prefix")
PACE = Struct("mp_pace")
SAMPLE = Struct("mp_sample")
