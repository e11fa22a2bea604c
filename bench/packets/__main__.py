"""``python -m bench.packets``."""

from __future__ import annotations

from bench.packets.cli import main

main(prog_name="python -m bench.packets")
