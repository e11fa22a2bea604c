"""PEM files: read without ever blocking, noticed when they change, and given to OpenSSL from memory.

What was judged is what is loaded, although the files may be replaced meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

# Under its own name once more: backends/ and serving/ take it from here.
from marchproxy_application.unusable import Unusable as Unusable

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

MOST_BYTES = 4 * 1024 * 1024
"""Of one file; the bundle of all public authorities has 220 KiB."""

Mark = tuple[int, ...]
"""What tells one state of a file from another; empty: it is not there."""


def mark_of(path: str) -> Mark:
    """Return the state of a file, its contents, rights and place; of what a symbolic link leads to."""
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev


def read(path: str) -> bytes | Unusable:
    """Read a file, unless it is none: a pipe would block."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return Unusable(path, "is no file", "name a PEM file")
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        why = getattr(error, "strerror", None) or str(error)
        return Unusable(path, f"cannot be read: {why}", "correct the path, or let the daemon's user read it")
    if len(data) > MOST_BYTES:
        return Unusable(path, f"is larger than {MOST_BYTES} bytes", "name a PEM file")
    return data


def load_chain(context: ssl.SSLContext, chain_pem: bytes, key_pem: bytes) -> None:
    """Load a certificate and its key from memory.

    Raises:
        ssl.SSLError: OpenSSL does not take them.
    """
    with _as_file(chain_pem) as chain, _as_file(key_pem) as key:
        # Without a password of ours OpenSSL asks for one at the terminal, and waits.
        context.load_cert_chain(chain, key, password=lambda: "")


def load_authorities(context: ssl.SSLContext, pem: bytes) -> None:
    """Load authorities from memory, with the revocation lists among them; ``cadata`` would leave those out.

    Raises:
        ssl.SSLError: OpenSSL does not take them.
    """
    with _as_file(pem) as path:
        context.load_verify_locations(path)


@contextlib.contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """Make memory a file: ``load_cert_chain`` takes paths alone."""
    descriptor = os.memfd_create("marchproxy-tls", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
