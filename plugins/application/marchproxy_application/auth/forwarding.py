"""Claims as request headers for the backend, and which of a client's own fields could be taken for them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import final

from marchproxy_application.http1.fields import is_token

MOST_VALUE_BYTES = 4096
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Controls, and halves of characters that UTF-8 cannot write."""
_AS_CGI = bytes(each if chr(each).isascii() and chr(each).isalnum() else 0x5F for each in range(256))
"""CGI and what is like it call X-User and X_User the same (RFC 3875, section 4.1.18); some so call X.User as well."""


@final
class Forwarding:
    """Which claims go into which headers."""

    def __init__(self, chosen: Iterable[tuple[str, str]]) -> None:
        """Prepare the names.

        Args:
            chosen: Claims and the headers that bring them. Of several for one header the first counts that a token has.

        Raises:
            ValueError: A header's name is no token.
        """
        self._chosen: list[tuple[str, bytes, bytes]] = []
        for claim, header in chosen:
            name = header.encode("latin-1", "replace")
            if not is_token(name):
                raise ValueError(f"auth_forward_claims: {header!r} is no name of a header")
            self._chosen.append((claim, name.lower(), name + b": "))
        self.headers = frozenset(name for _, name, _ in self._chosen)
        """Their names, in small letters."""
        self._as_cgi = frozenset(name.translate(_AS_CGI) for name in self.headers)

    def lines(self, claims: Mapping[str, object]) -> tuple[bytes, ...]:
        """Return the header lines of a token's claims, each with its CR LF; what is unsafe or too long has none."""
        lines: dict[bytes, bytes] = {}
        for claim, name, start in self._chosen:
            if name not in lines and (value := _value(claims.get(claim))) is not None:
                lines[name] = b"%b%b\r\n" % (start, value)
        return tuple(lines.values())

    def taken_for(self, names: Iterable[bytes]) -> frozenset[bytes]:
        """Return which of a client's fields a backend could take for ours.

        Args:
            names: In small letters.
        """
        as_cgi = self._as_cgi
        return frozenset([name for name in names if name.translate(_AS_CGI) in as_cgi])


def _value(claim: object) -> bytes | None:
    if claim is None:
        return None
    text = claim if isinstance(claim, str) else json.dumps(claim, separators=(",", ":"))
    # White space around a value is not part of it (RFC 9110, section 5.5): " admin" would arrive as another's name.
    if not text or text != text.strip() or _UNSAFE.search(text):
        return None
    value = text.encode()
    return value if len(value) <= MOST_VALUE_BYTES else None
