"""Keeps what any client can have CPython print out of a worker's standard error."""

from __future__ import annotations

import sys


def silence_bad_names() -> None:
    """Have server names that are not ASCII refused without a word; for a worker's start.

    ``_servername_callback`` of CPython 3.11's ``_ssl.c`` decodes the name before it calls ours. When it cannot it ends
    the handshake, and has a traceback printed as an unraisable exception, for each connection that a client opens.
    All other such exceptions are printed as before.
    """
    before = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs, /) -> None:
        if not (
            isinstance(unraisable.exc_value, UnicodeDecodeError) and isinstance(unraisable.object, bytes)
        ):
            before(unraisable)

    sys.unraisablehook = hook
