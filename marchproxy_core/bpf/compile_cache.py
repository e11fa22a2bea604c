"""Compiled programs on disk, one file each. What is in there gets loaded into the kernel as root.

So a file counts only when its owner is the user that asks, nobody else may write to it, and its checksum fits; all
else is as if there were nothing. A cache that cannot be written is no error: the program has been compiled.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

import attrs

_MOST_BYTES = 16 << 20


@attrs.frozen(kw_only=True)
class Entry:
    """One compiled source."""

    functions: Mapping[str, bytes]
    """Instructions by the function's name."""
    made_with: Mapping[str, str]
    """Versions of what compiled it, by name."""


def default_directory() -> Path:
    """Where the cache of the user is that this process runs as.

    ``$XDG_CACHE_HOME/marchproxy/bpf`` where that is set, else ``/var/cache/marchproxy/bpf`` for root and
    ``~/.cache/marchproxy/bpf`` for others.
    """
    named = os.environ.get("XDG_CACHE_HOME", "")
    if named.startswith("/"):
        return Path(named, "marchproxy/bpf")
    if os.geteuid() == 0:
        return Path("/var/cache/marchproxy/bpf")
    return Path("~/.cache/marchproxy/bpf").expanduser()


def read(directory: Path, key: str) -> Entry | None:
    """Return what is kept under the key; None when there is nothing that can be trusted and read."""
    try:
        descriptor = os.open(directory / key, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        found = os.fstat(descriptor)
        if not (stat.S_ISREG(found.st_mode) and _is_ours(found) and found.st_size <= _MOST_BYTES):
            return None
        with open(descriptor, "rb", closefd=False) as file:
            return _parse(file.read())
    except OSError:
        return None
    finally:
        os.close(descriptor)


def write(directory: Path, key: str, entry: Entry) -> None:
    """Keep the entry under the key, all of it or nothing."""
    with contextlib.suppress(OSError):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours(directory.stat(follow_symlinks=False)):
            return
        descriptor, name = tempfile.mkstemp(dir=directory)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(_format(entry))
            Path(name).replace(directory / key)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _is_ours(found: os.stat_result) -> bool:
    return found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _format(entry: Entry) -> bytes:
    functions = {name: base64.b64encode(code).decode() for name, code in entry.functions.items()}
    body = json.dumps({"made_with": dict(entry.made_with), "functions": functions}).encode()
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def _parse(content: bytes) -> Entry | None:
    checksum, _, body = content.partition(b"\n")
    if checksum != hashlib.sha256(body).hexdigest().encode():
        return None
    try:
        found = json.loads(body)
        functions = {
            str(name): base64.b64decode(code, validate=True) for name, code in found["functions"].items()
        }
        made_with = {str(name): str(version) for name, version in found["made_with"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        return None
    return Entry(functions=functions, made_with=made_with)
