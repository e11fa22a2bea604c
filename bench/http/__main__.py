"""``python -m bench.http``."""

from __future__ import annotations

from bench.http.cli import main

main(prog_name="python -m bench.http")
