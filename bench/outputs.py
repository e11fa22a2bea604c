"""Reading what generators print. Pure; an output that is not understood is an error, never a zero."""

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
_VOLUME = re.compile(r"^\s*(\d+) requests in [0-9.]+\w+, ([0-9.]+)(B|KB|MB|GB|TB) read\s*$", re.MULTILINE)
_BINARY = {"B": 1.0, "KB": 2.0**10, "MB": 2.0**20, "GB": 2.0**30, "TB": 2.0**40}
_H2_REQUESTS = re.compile(
    r"^requests: \d+ total, .*succeeded, (\d+) failed, (\d+) errored, (\d+) timeout$", re.MULTILINE
)
_H2_STATUSES = re.compile(r"^status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx$", re.MULTILINE)


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


def wrk_volume(output: str) -> tuple[int, float]:
    """Return how many requests wrk made, and how many bytes it read.

    Raises:
        NotUnderstood: The report does not say, or there were none.
    """
    found = _VOLUME.search(output)
    if found is None or found[1] == "0":
        raise NotUnderstood(f"wrk reported no requests: {_excerpt(output)}")
    return int(found[1]), float(found[2]) * _BINARY[found[3]]


def h2load(output: str) -> int:
    """Return how many requests h2load had answered with 2xx, from its report of a run of some duration.

    Raises:
        NotUnderstood: There were none, or others failed.
    """
    requests, statuses = _H2_REQUESTS.search(output), _H2_STATUSES.search(output)
    if requests is None or statuses is None:
        raise NotUnderstood(f"h2load reported no requests: {_excerpt(output)}")
    succeeded = int(statuses[1])
    if not succeeded or any(int(number) for number in (*requests.groups(), *statuses.groups()[1:])):
        raise NotUnderstood(f"h2load met errors: {requests[0]}; {statuses[0]}")
    return succeeded


def h2load_log(log: str) -> dict[str, float]:
    """Return ``p50_us`` and ``p99_us`` from h2load's log file: start, status and microseconds of each request.

    Raises:
        NotUnderstood: It is empty, or no such log.
    """
    try:
        took = sorted(float(line.split("\t")[2]) for line in log.splitlines())
    except (ValueError, IndexError) as error:
        raise NotUnderstood(f"no log of h2load: {_excerpt(log)}") from error
    if not took:
        raise NotUnderstood("h2load logged no request")
    return {"p50_us": took[len(took) // 2], "p99_us": took[len(took) * 99 // 100]}


def report(output: str, *names: str) -> dict[str, float]:
    """Return figures from the report of one of our own generators.

    Args:
        output: Its standard output.
        names: Of the figures. The first of them, which counts what came through, and the seconds are not 0.

    Raises:
        NotUnderstood: It is no such report, or nothing came through.
    """
    try:
        said = json.loads(output)
        read = {name: float(said[name]) for name in names}
    except (ValueError, KeyError, TypeError) as error:
        raise NotUnderstood(f"no report with {', '.join(names)}: {_excerpt(output)}") from error
    if not read[names[0]] or not read["seconds"]:
        raise NotUnderstood(f"nothing came through: {_excerpt(output)}")
    return read


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
