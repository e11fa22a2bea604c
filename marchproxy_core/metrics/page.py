"""The page that Prometheus scrapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import attrs
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder

from marchproxy_core.metrics.collector import EngineCollector

if TYPE_CHECKING:
    from marchproxy_core.admin.view import EngineView


def exposition(view: EngineView) -> MetricsPage:
    """Build the page for one engine: its collector and the control process's own metrics."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(EngineCollector(view))
    ProcessCollector(registry=registry)
    return MetricsPage(registry)


@final
@attrs.frozen(eq=False)
class MetricsPage:
    """What ``GET /metrics`` answers."""

    _registry: CollectorRegistry

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the page and its content type, in the format that the ``Accept`` header asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type
