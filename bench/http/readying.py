"""Waiting until a peer serves, not only listens: some take connections before they know where requests go."""

from __future__ import annotations

import contextlib
import http.client
import ssl
from functools import partial
from typing import TYPE_CHECKING

from bench.starting import TurnFailed
from marchproxy_core.testing import until

if TYPE_CHECKING:
    from bench.stage import Stage

_PATIENCE_S = 15.0
_ANSWER_WITHIN_S = 2.0


async def until_served(stage: Stage, *, tls: bool) -> None:
    """Ask the proxy for the small page, from where the generator will be, until the backend has answered.

    Raises:
        TurnFailed: It took a quarter of a minute.
    """
    answers = partial(stage.generator.call, _is_served, stage.target, stage.port, tls)
    try:
        await until(answers, deadline_s=_PATIENCE_S, what="an answer of the backend's through the peer")
    except TimeoutError as error:
        raise TurnFailed(str(error)) from error


def _is_served(host: str, port: int, tls: bool) -> bool:
    """Whether a request is answered with 200. Blocks."""
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        asking: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, port, timeout=_ANSWER_WITHIN_S, context=context
        )
    else:
        asking = http.client.HTTPConnection(host, port, timeout=_ANSWER_WITHIN_S)
    with contextlib.closing(asking):
        try:
            asking.request("GET", "/small")
            return asking.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
