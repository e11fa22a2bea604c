"""Odd requests, written from RFC 9112, RFC 9110 and RFC 3986: what is in them, by their letter, and nothing else."""

from __future__ import annotations

from tests.suites.chains.corpus import chunks, connections, fields, framing, hosts, lines, pipelines, targets
from tests.suites.chains.corpus.case import Case, Want

__all__ = ["CASES", "Case", "Want"]

CASES: tuple[Case, ...] = tuple(
    case
    for part in (framing, chunks, lines, targets, hosts, fields, connections, pipelines)
    for case in part.CASES
)
