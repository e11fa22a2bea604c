"""The running daemon: attach tiers, keep them carrying, and fall back when one fails."""

from __future__ import annotations

from marchproxy_core.engine.daemon import run_daemon

__all__ = ["run_daemon"]
