"""The rig of the system tests, under the name by which its modules know each other."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

if "system_rig" not in sys.modules:
    _folder = Path(__file__).parents[1] / "system" / "rig"
    _spec = importlib.util.spec_from_file_location("system_rig", _folder / "__init__.py")
    _rig = importlib.util.module_from_spec(_spec)
    sys.modules["system_rig"] = _rig
    _spec.loader.exec_module(_rig)
