"""Many datagrams in one system call: recvmmsg(2) and sendmmsg(2), which Python does not have, through ctypes.

A batch is a row of slots, each with room for one datagram, its address and its control messages; all memory is
laid out once. A datagram that was received into a slot can be sent from it, without being copied.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
from typing import Final, final

SLOT_BYTES: Final = 1 << 16
"""More than the largest UDP payload, 65,527 bytes: no datagram is ever cut."""
_NAME_BYTES: Final = 32
_CONTROL_BYTES: Final = 64
_TRY_LATER: Final = frozenset({errno.EAGAIN, errno.EINTR, errno.ENOMEM, errno.ENOBUFS})


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _MsgHdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _MMsgHdr(ctypes.Structure):
    _fields_ = (("header", _MsgHdr), ("length", ctypes.c_uint32))


_libc = ctypes.CDLL(None, use_errno=True)
_recvmmsg = _libc.recvmmsg
_recvmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
_sendmmsg = _libc.sendmmsg
_sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
_HEADER_BYTES: Final = ctypes.sizeof(_MMsgHdr)
_IOVEC_BYTES: Final = ctypes.sizeof(_IoVec)
# Places of fields, in the units of the views through which they are read and written: 32 bits, or a size_t, which on
# Linux is an unsigned long.
_SIZE: Final = ctypes.sizeof(ctypes.c_size_t)
_HEADER_WORDS: Final = _HEADER_BYTES // 4
_HEADER_SIZES: Final = _HEADER_BYTES // _SIZE
_VECTOR_SIZES: Final = _IOVEC_BYTES // _SIZE
_NAME_LENGTH: Final = _MsgHdr.name_length.offset // 4
_LENGTH: Final = _MMsgHdr.length.offset // 4
_CONTROL_LENGTH: Final = _MsgHdr.control_length.offset // _SIZE
_VECTOR_LENGTH: Final = _IoVec.length.offset // _SIZE


@final
class Batch:
    """A row of slots; for one thread."""

    def __init__(self, slots: int) -> None:
        """Lay the memory out; pages are taken when a datagram first comes into them. :meth:`close` gives all back."""
        self.slots = slots
        self._memory = mmap.mmap(-1, slots * SLOT_BYTES)
        self._anchor = ctypes.c_char.from_buffer(self._memory)
        self._names = bytearray(slots * _NAME_BYTES)
        self._controls = bytearray(slots * _CONTROL_BYTES)
        self._vectors = (_IoVec * slots)()
        self._headers = (_MMsgHdr * slots)()
        self._data = memoryview(self._memory)
        self._lay_out()
        self._vector_bytes = memoryview(self._vectors).cast("B")
        self._header_bytes = memoryview(self._headers).cast("B")
        self._header_words = self._header_bytes.cast("I")
        self._header_sizes = self._header_bytes.cast("L")
        self._vector_sizes = self._vector_bytes.cast("L")
        self._empty_vectors = bytes(self._vector_bytes)
        self._empty_headers = bytes(self._header_bytes)
        self._start = ctypes.addressof(self._headers)

    def receive(self, descriptor: int, first: int = 0) -> int:
        """Receive datagrams into the slots from ``first`` on, as many as there are, without waiting.

        Returns:
            How many; 0 when there are none, or the kernel has no memory just now.

        Raises:
            OSError: An error that the socket had waiting, as ECONNREFUSED.
        """
        at, vector_at = first * _HEADER_BYTES, first * _IOVEC_BYTES
        self._header_bytes[at:] = self._empty_headers[at:]
        self._vector_bytes[vector_at:] = self._empty_vectors[vector_at:]
        count: int = _recvmmsg(descriptor, self._start + at, self.slots - first, socket.MSG_DONTWAIT, None)
        if count >= 0:
            return count
        error = ctypes.get_errno()
        if error in _TRY_LATER:
            return 0
        raise OSError(error, os.strerror(error))

    def length(self, slot: int) -> int:
        """Return how many bytes of payload were received into a slot, or sent from it."""
        return self._header_words[slot * _HEADER_WORDS + _LENGTH]

    def name(self, slot: int) -> bytes:
        """Return the sender's address as the kernel wrote it: a struct sockaddr_in or sockaddr_in6."""
        start = slot * _NAME_BYTES
        return bytes(self._names[start : start + self._header_words[slot * _HEADER_WORDS + _NAME_LENGTH]])

    def control(self, slot: int) -> bytes:
        """Return the control messages as the kernel wrote them."""
        start = slot * _CONTROL_BYTES
        length = self._header_sizes[slot * _HEADER_SIZES + _CONTROL_LENGTH]
        return bytes(self._controls[start : start + length])

    def payload(self, slot: int) -> memoryview:
        """Return the payload that was received into a slot; it changes with the next call."""
        start = slot * SLOT_BYTES
        return self._data[start : start + self._header_words[slot * _HEADER_WORDS + _LENGTH]]

    def address(self, slot: int, name: bytes, control: bytes) -> None:
        """Have what was received into a slot go to an address, with control messages."""
        self._vector_sizes[slot * _VECTOR_SIZES + _VECTOR_LENGTH] = self.length(slot)
        self._header_words[slot * _HEADER_WORDS + _NAME_LENGTH] = len(name)
        start = slot * _NAME_BYTES
        self._names[start : start + len(name)] = name
        self._header_sizes[slot * _HEADER_SIZES + _CONTROL_LENGTH] = len(control)
        if control:
            start = slot * _CONTROL_BYTES
            self._controls[start : start + len(control)] = control

    def send(self, descriptor: int, first: int, count: int) -> int:
        """Send from slots, without waiting.

        Returns:
            How many were sent, from the first one on. Fewer than asked for: the next one cannot be sent now.
        """
        sent: int = _sendmmsg(
            descriptor, self._start + first * _HEADER_BYTES, count, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        )
        return max(sent, 0)

    def close(self) -> None:
        """Unmap the memory."""
        self._data.release()
        del self._anchor
        self._memory.close()

    def _lay_out(self) -> None:
        payloads = ctypes.addressof(self._anchor)
        names = ctypes.addressof((ctypes.c_char * len(self._names)).from_buffer(self._names))
        controls = ctypes.addressof((ctypes.c_char * len(self._controls)).from_buffer(self._controls))
        vectors = ctypes.addressof(self._vectors)
        for slot in range(self.slots):
            self._vectors[slot].base = payloads + slot * SLOT_BYTES
            self._vectors[slot].length = SLOT_BYTES
            header = self._headers[slot].header
            header.name = names + slot * _NAME_BYTES
            header.name_length = _NAME_BYTES
            header.vectors = vectors + slot * _IOVEC_BYTES
            header.vector_count = 1
            header.control = controls + slot * _CONTROL_BYTES
            header.control_length = _CONTROL_BYTES
