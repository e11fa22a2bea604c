"""Metric families still without samples, and how these are added."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.metrics_core import Metric


@attrs.frozen
class Family:
    """A metric family still without samples."""

    metric: CounterMetricFamily | GaugeMetricFamily

    def of(self, samples: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
        """Add a sample for each pair of the labels' values and the count."""
        for labels, value in samples:
            self.metric.add_metric(labels, value)
        return self.metric


def counter(name: str, text: str, *labels: str) -> Family:
    """Start a family of counters."""
    return Family(CounterMetricFamily(name, text, labels=labels))


def gauge(name: str, text: str, *labels: str) -> Family:
    """Start a family of gauges."""
    return Family(GaugeMetricFamily(name, text, labels=labels))
