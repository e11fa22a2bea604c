"""How rows call what they are about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marchproxy_core.testing.packets.world import TCP

if TYPE_CHECKING:
    from marchproxy_core.testing.packets.frames import Flow


def name(flow: Flow) -> str:
    """Return a flow's protocols in words."""
    return f"{'TCP' if flow.protocol == TCP else 'UDP'} over IPv{flow.version}"
