"""The rules and fixtures of MarchProxy's own tests: reasons of skips, the mark ``root``, the fixture ``lab``."""

from __future__ import annotations

pytest_plugins = ("marchproxy_core.testing.pytest_plugin",)
