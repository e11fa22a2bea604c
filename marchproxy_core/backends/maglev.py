"""Maglev tables: consistent hashing by look-up, shared by the relays and the packet engine.

The algorithm is that of Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI
2016, section 3.4, with weights. Pure; the same arguments give the same table in every process and on every
host.
"""

from __future__ import annotations

import hashlib
import itertools
from array import array
from collections.abc import Sequence
from functools import lru_cache

import attrs

SMALL_TABLE = 16381
"""Slots for up to 163 backends: at least 100 for each, as the paper advises; built in 5 to 10 ms."""
LARGE_TABLE = 65537
"""Slots beyond that: good for 655 backends at 100 each; built in 20 to 50 ms."""

_WORD = (1 << 64) - 1
# 2^64 / golden ratio; then the multipliers of MurmurHash3's 64-bit finalizer.
_FOLD, _MIX, _MIX_AGAIN = 0x9E3779B97F4A7C15, 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53


def table_size(backends: int) -> int:
    """Return the number of slots, a prime, for a service of so many backends.

    It depends on how many are *configured*, not on how many are up: a table of another size is another table,
    and would move nearly every client.
    """
    return SMALL_TABLE if backends * 100 <= SMALL_TABLE else LARGE_TABLE


def maglev_slot(key: bytes, size: int) -> int:
    """Return the slot of a key of up to 16 bytes in a table of ``size`` slots.

    With ``high`` and ``low`` the two 64-bit halves of the key as one big-endian number, all modulo 2^64:
    ``m = (low ^ high * _FOLD) * _MIX``, ``m = (m ^ m >> 32) * _MIX_AGAIN``, and the slot is ``(m >> 32) % size``.
    Plain arithmetic so that a packet tier finds the same slot in C (packet/c/flows.h), and a client keeps its backend
    when its service changes tiers. The hash has no secret: who picks his own address may pick his backend.
    """
    number = int.from_bytes(key)
    mixed = ((number & _WORD) ^ ((number >> 64) * _FOLD & _WORD)) * _MIX & _WORD
    mixed = (mixed ^ mixed >> 32) * _MIX_AGAIN & _WORD
    return (mixed >> 32) % size


def maglev_table(keys: Sequence[bytes], weights: Sequence[int], size: int) -> array[int]:
    """Build a look-up table from slots to backends.

    Every backend walks the slots in an order of its own, derived from its key, and the backends take turns to
    claim the next slot that is free on their walk. With weights, the heaviest backend has every turn and the
    others so many as their weight is of the heaviest's, at least one. The table does not depend on the order
    of the backends.

    Args:
        keys: What identifies each backend, the same for ever: ``str(endpoint).encode()``. At most 65,536.
        weights: As many; 0 leaves a backend out. Shares of slots follow them to within a slot
            or two; every backend with a weight has at least one.
        size: Number of slots: a prime, greater than the number of backends with a weight; 100 times it is
            good.

    Returns:
        ``size`` unsigned 16-bit indexes into ``keys``, in the host's byte order.

    Raises:
        ValueError: No backend has a weight, or there are more than slots, or the lengths differ.
    """
    turns = [
        _Turn(*_walk(key, size), weight, at) for at, (key, weight) in _ordered(keys, weights) if weight > 0
    ]
    if not turns:
        raise ValueError("no backend has a weight")
    if len(turns) > size or len(keys) > 0x10000:
        raise ValueError(f"{len(turns)} backends do not fit a table of {size} slots")
    return _fill(turns, size)


def _fill(turns: list[_Turn], size: int) -> array[int]:
    heaviest = max(turn.weight for turn in turns)
    table = array("H", bytes(2 * size))
    free = bytearray(b"\1") * size
    left = size
    for round_ in itertools.count(1):
        for turn in turns:
            if round_ * turn.weight < turn.due:
                continue
            turn.due += heaviest
            slot, skip = turn.slot, turn.skip
            while not free[slot]:
                slot += skip
                if slot >= size:
                    slot -= size
            free[slot] = 0
            table[slot] = turn.index
            turn.slot = slot
            left -= 1
            if not left:
                return table
    raise AssertionError("unreachable")


@attrs.define(eq=False)
class _Turn:
    """One backend's place on its walk."""

    slot: int
    skip: int
    weight: int
    index: int
    due: int = 0


def _ordered(keys: Sequence[bytes], weights: Sequence[int]) -> list[tuple[int, tuple[bytes, int]]]:
    return sorted(enumerate(zip(keys, weights, strict=True)), key=lambda item: item[1][0])


def _walk(key: bytes, size: int) -> tuple[int, int]:
    """First slot and step; any step from 1 to size - 1 visits every slot, since the size is prime."""
    digest = hashlib.blake2b(key, digest_size=16, person=b"marchproxymaglev").digest()
    offset, skip = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
    return offset % size, skip % (size - 1) + 1


@lru_cache(maxsize=32)
def cached_table(keys: tuple[bytes, ...], weights: tuple[int, ...], size: int) -> array[int]:
    """Return :func:`maglev_table`, remembered: a backend that flaps brings back a table already built.

    The array is shared; nobody writes to it.
    """
    return maglev_table(keys, weights, size)
