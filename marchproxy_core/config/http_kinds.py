"""Kinds of value that HTTP has: hosts, paths, header lines. Pure."""

from __future__ import annotations

import ipaddress
import re

import attrs

from marchproxy_core.config.kinds import FALSE_WORDS, TRUE_WORDS, Number, Text, show_decimal
from marchproxy_core.config.problems import Misread
from marchproxy_core.routing.paths import normal

TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,127}"
FRAMING = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Fields of one connection alone (RFC 9110, section 7.6.1), and those that say where a message ends or goes."""

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
SERVER_NAME = Text("the name of a server as backend.example.com", rf"(?i:{_LABEL}(?:\.{_LABEL})*)")
_HOST = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/%-]{0,2047}")
_VALUE = re.compile(r"[\x20-\x7e]{0,4096}")
_LONGEST_HOST = 253  # RFC 1035, section 2.3.4, less the length bytes at both ends


@attrs.frozen
class Host:
    """The host of a request, without a port: a name, ``*.`` before one for all below it, or an address."""

    want: str = "a host as example.com, *.example.com or [2001:db8::1], without a port"

    def parse(self, text: str) -> str:
        """Read the host, in small letters."""
        host = text.lower()
        if host.startswith("["):
            return f"[{_ipv6(host)}]"
        if not host.isascii():
            raise Misread(text, nearest=_as_dns_has_it(host))
        if _HOST.fullmatch(host) and len(host) <= _LONGEST_HOST:
            return host
        bare = re.sub(r"\.?(:[0-9]*)?$", "", host)
        raise Misread(text, nearest=bare if bare != host and _HOST.fullmatch(bare) else None)

    def show(self, value: str) -> str:
        """Text that reads back."""
        return value


def _ipv6(host: str) -> ipaddress.IPv6Address:
    address = ipaddress.IPv6Address(host[1:-1]) if host.endswith("]") else None
    if address is None or address.scope_id:
        raise ValueError(host)
    return address


def _as_dns_has_it(host: str) -> str | None:
    try:
        name = host.encode("idna").decode("ascii")
    except UnicodeError:
        return None
    return name if _HOST.fullmatch(name) else None


@attrs.frozen
class PathPrefix:
    """A prefix of paths in normal form, which is the form that requests' paths are matched in."""

    want: str = (
        "a path that begins with /, in normal form (RFC 3986, section 6.2.2: no dot segments, nothing "
        "percent-encoded that need not be, encodings in capitals), without query"
    )

    def parse(self, text: str) -> str:
        """Read the prefix."""
        if not _PATH.fullmatch(text):
            raise ValueError(text)
        nearest = normal(text.encode("ascii")).decode("ascii")
        if nearest != text:
            raise Misread(text, nearest=nearest)
        return text

    def show(self, value: str) -> str:
        """Text that reads back."""
        return value


@attrs.frozen
class HeaderName:
    """The name of a field that may be changed on its way."""

    want: str = "the name of a header"

    def parse(self, text: str) -> str:
        """Read the name."""
        if not re.fullmatch(TOKEN, text):
            raise ValueError(text)
        if text.lower() in FRAMING:
            instead = "; host_header sets the host" if text.lower() == "host" else ""
            want = f"a header other than {text}, which says where a message ends or goes{instead}"
            raise Misread(text, want=want)
        return text

    def show(self, value: str) -> str:
        """Text that reads back."""
        return value


@attrs.frozen
class HeaderLine:
    """A field, ``Name: value``."""

    want: str = "a header as Name: value, in printable ASCII"

    def parse(self, text: str) -> tuple[str, str]:
        """Read name and value."""
        name, colon, value = text.partition(":")
        if not colon or not _VALUE.fullmatch(value.strip(" ")):
            raise ValueError(text)
        return HeaderName().parse(name), value.strip(" ")

    def show(self, value: tuple[str, str]) -> str:
        """Text that reads back."""
        return f"{value[0]}: {value[1]}"


@attrs.frozen
class ForwardedClaim:
    """A claim and the header that brings it to the backend, ``claim: Header-Name``."""

    want: str = "a claim and a header as claim: Header-Name"

    def parse(self, text: str) -> tuple[str, str]:
        """Read both; the claim's name may have colons, as a URL has."""
        claim, _, name = text.rpartition(":")
        if not re.fullmatch(r"[!-+\--~]{1,256}", claim.strip()):
            raise ValueError(text)
        return claim.strip(), HeaderName().parse(name.strip())

    def show(self, value: tuple[str, str]) -> str:
        """Text that reads back."""
        return f"{value[0]}: {value[1]}"


@attrs.frozen
class ClientKey:
    """What tells clients apart; a header's name in small letters."""

    want: str = "address, header:NAME or claim:NAME"

    def parse(self, text: str) -> str:
        """Read the key."""
        kind, _, name = text.partition(":")
        if kind == "header" and re.fullmatch(TOKEN, name):
            return f"header:{name.lower()}"
        if text != "address" and not (kind == "claim" and re.fullmatch(r"[!-~]{1,256}", name)):
            raise ValueError(text)
        return text

    def show(self, value: str) -> str:
        """Text that reads back."""
        return value


@attrs.frozen
class Share:
    """A part of the whole: a number from 0 to 1, or a word for all or nothing."""

    want: str = "a number from 0 to 1, or on or off"

    def parse(self, text: str) -> float:
        """Read the share."""
        word = text.lower()
        if word in TRUE_WORDS:
            return 1.0
        return 0.0 if word in FALSE_WORDS else Number(0, 1).parse(text)

    def show(self, value: float) -> str:
        """Text that reads back."""
        return show_decimal(value)
