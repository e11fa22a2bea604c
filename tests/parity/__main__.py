"""Observe every tier, and write docs/parity.md: ``python -m tests.parity [FILE]``; as root."""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from tests.parity.document import DOCUMENT, document
from tests.parity.running import observe
from tests.parity.scenarios import SCENARIOS

if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else DOCUMENT
    target.write_text(document(trio.run(observe, SCENARIOS)), encoding="utf-8")
