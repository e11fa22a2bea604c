"""Who may talk to the admin API: checks of a request before any endpoint sees it.

Pure: headers and settings in, a refusal or nothing out. What it protects against: a web page in the
operator's browser (by rebinding a name to loopback, or by posting across origins), and strangers on the network.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from marchproxy_core.config import UnixAddress
from marchproxy_core.errors import ConfigError, ConfigProblem

if TYPE_CHECKING:
    from marchproxy_core.config import Config, Settings

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]/@]+)(?::[0-9]{1,5})?")
OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""What load balancers ask, which have no token. Strangers learn the version, and names of services without a tier."""
PRIVATE_PATHS = "/admin/requests/"
"""What clients asked for: whoever reads it needs the token where there is one."""


@attrs.frozen(kw_only=True)
class Refusal:
    """Why a request is not served."""

    status: int
    detail: str
    headers: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Guard:
    """The rules of one listen address."""

    token: bytes | None
    hosts: frozenset[str] | None
    """Names that a ``Host`` header may have; None: any."""
    open_to_network: bool = False
    """Whether others than users of this host reach it: then reading needs the token as well."""

    @classmethod
    def of(cls, settings: Settings) -> Guard:
        """Read the rules from the settings."""
        token = settings.admin_token.encode() if settings.admin_token else None
        listen = settings.admin_listen
        if isinstance(listen, UnixAddress):
            return cls(token=token, hosts=None)  # no browser reaches it
        if not listen.ip.is_loopback:
            # The daemon cannot know by which names it is called; a web page that rebinds one has no token.
            return cls(token=token, hosts=None, open_to_network=True)
        own = f"[{listen.ip}]" if listen.ip.version == 6 else str(listen.ip)
        return cls(token=token, hosts=frozenset({"localhost", "127.0.0.1", "[::1]", own}))

    def refuse(self, method: str, path: str, headers: Mapping[str, str]) -> Refusal | None:
        """Judge a request; None lets it pass.

        Args:
            method: Any but GET and HEAD is taken to change something.
            path: As endpoints are found by it, percent-decoded.
            headers: By name in lower case.
        """
        host = headers.get("host", "")
        if not self._knows(host):
            return Refusal(
                status=421, detail="the Host header is not this address: use 127.0.0.1, [::1] or localhost"
            )
        if method in ("GET", "HEAD"):
            if path.startswith(PRIVATE_PATHS) or (self.open_to_network and path not in OPEN_PATHS):
                return self._check_token(headers.get("authorization", ""))
            return None
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
            return Refusal(status=403, detail="requests from another origin are refused")
        return self._check_token(headers.get("authorization", ""))

    def _knows(self, host: str) -> bool:
        if self.hosts is None:
            return True
        match = _HOST.fullmatch(host)
        return match is not None and match[1].lower() in self.hosts

    def _check_token(self, authorization: str) -> Refusal | None:
        if self.token is None:
            return None
        scheme, _, given = authorization.partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self.token):
            return None
        return Refusal(
            status=401,
            detail="this needs the header 'Authorization: Bearer TOKEN' with the daemon's ADMIN_TOKEN",
            headers={"WWW-Authenticate": 'Bearer realm="marchproxy"'},
        )


def check_listen_address(config: Config) -> None:
    """Refuse an admin API that strangers could command.

    Raises:
        ConfigError: ``ADMIN_LISTEN`` is not loopback nor a unix socket, and no ``ADMIN_TOKEN`` is set.
    """
    listen = config.settings.admin_listen
    if isinstance(listen, UnixAddress) or listen.ip.is_loopback or config.settings.admin_token:
        return
    origin = config.origins.get("ADMIN_LISTEN")
    problem = ConfigProblem(
        where=str(origin) if origin else "default",
        what="ADMIN_LISTEN",
        got=str(listen),
        want="127.0.0.1:PORT, [::1]:PORT or unix:/path, or a token in ADMIN_TOKEN to open it to the network",
    )
    raise ConfigError((problem,))
