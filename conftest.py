"""Every test of this repository runs with the rules and fixtures that third-party authors get."""

from __future__ import annotations

pytest_plugins = ("marchproxy_core.testing.pytest_plugin",)
