"""docs/settings.md is what the declarations say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from marchproxy_core.config import SETTINGS
from marchproxy_core.config.choices import TIER_VARIABLES
from marchproxy_core.config.declare import declared
from marchproxy_core.config.reference import reference
from marchproxy_core.config.service_keys import ServiceKeys

DOCS = Path(__file__).parents[3] / "docs" / "settings.md"


def test_the_reference_is_current() -> None:
    assert DOCS.read_text(encoding="utf-8") == reference(), (
        "run: python -m marchproxy_core.config.reference docs/settings.md"
    )


def test_the_reference_has_every_name() -> None:
    rows = {line.split("`")[1] for line in reference().splitlines() if line.startswith("| `")}
    assert {*SETTINGS, *TIER_VARIABLES, *(key.attribute for key in declared(ServiceKeys))} <= rows


def test_the_module_writes_it(tmp_path: Path) -> None:
    target = tmp_path / "settings.md"
    subprocess.run([sys.executable, "-m", "marchproxy_core.config.reference", str(target)], check=True)
    assert target.read_text(encoding="utf-8") == reference()
