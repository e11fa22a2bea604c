"""Metrics in Prometheus' format, read from the engine at each scrape; and sums that outlive an attachment.

Owns names and labels of the metrics. Counts nothing itself. Labels are bounded by the configuration:
services, tiers, backends and reasons, never anything that a client sent.
"""

from __future__ import annotations

from marchproxy_core.metrics.collector import EngineCollector
from marchproxy_core.metrics.history import CounterHistory
from marchproxy_core.metrics.page import MetricsPage, exposition
from marchproxy_core.metrics.reasons import OTHER, bounded_reasons

__all__ = ["OTHER", "CounterHistory", "EngineCollector", "MetricsPage", "bounded_reasons", "exposition"]
