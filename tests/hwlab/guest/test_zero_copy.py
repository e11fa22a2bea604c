"""AF_XDP sockets whose frames the drivers fill and send themselves."""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import struct
import subprocess
from contextlib import contextmanager

import pytest

# linux/if_xdp.h
_AF_XDP = 44
_SOL_XDP = 283
_RX_RING, _TX_RING, _UMEM_REG, _FILL_RING, _COMPLETION_RING = 2, 3, 4, 5, 6
_OPTIONS, _OPTIONS_ZEROCOPY = 8, 1
_ZEROCOPY = 1 << 2
_ADDRESS = struct.Struct("=2H3I")  # family, flags, interface, queue, shared umem's descriptor

_FRAME_BYTES = 4096
_FRAMES = 2048
_DESCRIPTORS = 512


@pytest.mark.parametrize("interface", ["eth0", "eth2"], ids=["igb", "virtio"])
def test_the_driver_takes_a_zero_copy_socket(interface):
    subprocess.run(["ip", "link", "set", interface, "up"], check=True)
    try:
        assert _binds_without_copying(socket.if_nametoindex(interface))
    finally:
        subprocess.run(["ip", "link", "set", interface, "down"], check=True)


def _binds_without_copying(index):
    with _socket_with_frames() as sock:
        address = _ADDRESS.pack(_AF_XDP, _ZEROCOPY, index, 0, 0)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.bind(sock.fileno(), address, len(address)) != 0:  # Python's own bind does not know the family
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), f"interface {index}")
        (options,) = struct.unpack("=I", sock.getsockopt(_SOL_XDP, _OPTIONS, 4))
        return bool(options & _OPTIONS_ZEROCOPY)


@contextmanager
def _socket_with_frames():
    """An AF_XDP socket with frames and all four rings, as binding wants them."""
    with mmap.mmap(-1, _FRAMES * _FRAME_BYTES) as frames, socket.socket(_AF_XDP, socket.SOCK_RAW) as sock:
        view = ctypes.c_char.from_buffer(frames)
        try:
            # addr, len, chunk_size, headroom, flags, and tx_metadata_len with its padding
            umem = struct.pack("=2Q4I", ctypes.addressof(view), len(frames), _FRAME_BYTES, 0, 0, 0)
            sock.setsockopt(_SOL_XDP, _UMEM_REG, umem)
            for ring in (_FILL_RING, _COMPLETION_RING, _RX_RING, _TX_RING):
                sock.setsockopt(_SOL_XDP, ring, _DESCRIPTORS)
            yield sock
        finally:
            del view
