"""Asks the admin API of a running daemon, over TCP or a unix socket. Blocking; for the command line only."""

from __future__ import annotations

import http.client
import os
import socket
from typing import TypeVar

import attrs

from marchproxy_core.admin.answers import Problem
from marchproxy_core.admin.schema import dump, read
from marchproxy_core.errors import AdminError, ConfigError

T = TypeVar("T")

DEFAULT_ADDRESS = "127.0.0.1:8080"
_TIMEOUT_S = 10.0
_POST_TIMEOUT_S = 60.0
_MAX_ANSWER_BYTES = 64 << 20
_LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where to reach a daemon that listens on every address."""


@attrs.frozen(kw_only=True)
class AdminClient:
    """One daemon's admin API."""

    address: str
    """``host:port``, ``[ipv6]:port`` or ``unix:/path``."""
    token: str | None = None

    @classmethod
    def of(cls, address: str | None) -> AdminClient:
        """Use the address given, else ``ADMIN_LISTEN``, else the default; the token is ``ADMIN_TOKEN``."""
        chosen = address or os.environ.get("ADMIN_LISTEN") or DEFAULT_ADDRESS
        return cls(address=chosen, token=os.environ.get("ADMIN_TOKEN") or None)

    def get(self, path: str, want: type[T], statuses: tuple[int, ...] = (200,)) -> T:
        """Read an answer.

        Raises:
            AdminError: No daemon answers there, or not with such an answer.
        """
        return self._ask("GET", path, want, statuses, _TIMEOUT_S)

    def post(self, path: str, want: type[T], status: int = 200, body: attrs.AttrsInstance | None = None) -> T:
        """Have something done, with the token when there is one, and with a body when it takes one.

        Raises:
            AdminError: No daemon answers there, or it refused.
            ConfigError: The daemon refused its new configuration; has all the problems.
        """
        return self._ask("POST", path, want, (status,), _POST_TIMEOUT_S, dump(body) if body else None)

    def _ask(
        self,
        method: str,
        path: str,
        want: type[T],
        statuses: tuple[int, ...],
        timeout_s: float,
        sent: bytes | None = None,
    ) -> T:
        status, body = self._exchange(method, path, timeout_s, sent)
        try:
            if status in statuses:
                return read(body, want)
            problem = read(body, Problem)
        except ValueError as error:
            raise AdminError(
                f"{self.address} answered {method} {path} with status {status} and nothing that MarchProxy "
                "would say - fix: name the daemon's admin address with --admin or ADMIN_LISTEN"
            ) from error
        raise self._refusal(problem)

    def _refusal(self, problem: Problem) -> AdminError | ConfigError:
        if problem.problems:
            return ConfigError(problem.problems)
        fix = " - fix: set ADMIN_TOKEN to the daemon's token" if problem.status == 401 else ""
        return AdminError(f"{self.address} refused: {problem.detail}{fix}")

    def _exchange(self, method: str, path: str, timeout_s: float, sent: bytes | None) -> tuple[int, bytes]:
        connection = self._connect(timeout_s)
        headers = {"Accept": "application/json"}
        if sent is not None:
            headers["Content-Type"] = "application/json"
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            connection.request(method, path, sent, headers)
            response = connection.getresponse()
            body = response.read(_MAX_ANSWER_BYTES + 1)
        except TimeoutError as error:
            raise AdminError(
                f"{self.address} did not answer within {timeout_s:.0f} s - fix: look at the daemon's log"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else repr(error)
            raise AdminError(
                f"no daemon answers at {self.address}: {why} - fix: start one with 'marchproxy run', or name "
                "its address with --admin or ADMIN_LISTEN"
            ) from error
        finally:
            connection.close()
        if len(body) > _MAX_ANSWER_BYTES:
            raise AdminError(f"the answer of {self.address} is larger than {_MAX_ANSWER_BYTES} bytes")
        return response.status, body

    def _connect(self, timeout_s: float) -> http.client.HTTPConnection:
        if self.address.startswith("unix:"):
            return _UnixConnection(self.address.removeprefix("unix:"), timeout_s)
        host, colon, port = self.address.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise AdminError(f"admin address {self.address!r}: want HOST:PORT, [IPV6]:PORT or unix:/path")
        return http.client.HTTPConnection(_LOOPBACK_OF.get(host, host), int(port), timeout=timeout_s)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
