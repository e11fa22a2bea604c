"""Reading what wrk and iperf3 print. Pure; an output that is not understood is an error, never a zero."""

from __future__ import annotations

import json
import re

from marchproxy_core.errors import MarchProxyError

_MICROSECONDS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6, "h": 3600e6}
_QUANTILE = re.compile(r"^\s+(50|99)%\s+([0-9.]+)(us|ms|s|m|h)\s*$", re.MULTILINE)
_RATE = re.compile(r"^Requests/sec:\s+([0-9.]+)\s*$", re.MULTILINE)
_SOCKET_ERRORS = re.compile(
    r"^\s*Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", re.MULTILINE
)
_BAD_STATUS = re.compile(r"^\s*Non-2xx or 3xx responses: (\d+)", re.MULTILINE)


class NotUnderstood(MarchProxyError):
    """A generator's output does not hold what it should, or says that it failed."""


def wrk(output: str, *, bearable_errors: int = 0) -> dict[str, float]:
    """Read the report of ``wrk --latency``.

    Args:
        output: Its standard output.
        bearable_errors: How many socket errors and bad answers, together, leave the figures worth something.

    Returns:
        ``rate`` in requests a second, ``p50_us`` and ``p99_us`` in microseconds, ``errors``.

    Raises:
        NotUnderstood: A figure is missing, or there were more errors than bearable.
    """
    errors = _count(_SOCKET_ERRORS, output) + _count(_BAD_STATUS, output)
    if errors > bearable_errors:
        lines = [
            found[0].strip() for pattern in (_SOCKET_ERRORS, _BAD_STATUS) if (found := pattern.search(output))
        ]
        raise NotUnderstood(f"wrk met errors: {'; '.join(lines)}")
    rate = _RATE.search(output)
    quantiles = {
        f"p{percent}_us": float(number) * _MICROSECONDS[unit]
        for percent, number, unit in _QUANTILE.findall(output)
    }
    if rate is None or len(quantiles) != 2:
        raise NotUnderstood(f"wrk reported no rate or latency: {_excerpt(output)}")
    return {"rate": float(rate[1]), **quantiles, "errors": float(errors)}


def iperf3(output: str) -> float:
    """Return what the receiver got in Gbit/s, from the report of ``iperf3 --json`` of one TCP test.

    Raises:
        NotUnderstood: It is no such report, or iperf3 failed.
    """
    try:
        report = json.loads(output)
        failure = report.get("error")
        rate = 0.0 if failure else float(report["end"]["sum_received"]["bits_per_second"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotUnderstood(f"iperf3 reported no rate: {_excerpt(output)}") from error
    if failure or not rate:
        raise NotUnderstood(f"iperf3 failed: {failure or 'nothing was received'}")
    return rate / 1e9


def udp_traffic(output: str) -> dict[str, float]:
    """Return ``sent``, ``echoed`` and ``seconds`` from the report of ``udp_traffic.py drive``.

    Raises:
        NotUnderstood: It is no such report, or nothing came back.
    """
    try:
        report = json.loads(output)
        read = {name: float(report[name]) for name in ("sent", "echoed", "seconds")}
    except (ValueError, KeyError, TypeError) as error:
        raise NotUnderstood(f"udp_traffic reported no count: {_excerpt(output)}") from error
    if not read["echoed"] or not read["seconds"]:
        raise NotUnderstood(f"no datagram came back: {_excerpt(output)}")
    return read


def _count(pattern: re.Pattern[str], output: str) -> int:
    found = pattern.search(output)
    return sum(int(number) for number in found.groups()) if found else 0


def _excerpt(output: str) -> str:
    return " ".join(output.split())[:300] or "no output"
