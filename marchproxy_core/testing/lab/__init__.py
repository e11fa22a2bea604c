"""A laboratory of network namespaces: client, proxy and server, joined by veth pairs, always cleaned up.

Needs root, util-linux's ``nsenter`` and nothing else. Never touches the host's own interfaces.
"""

from __future__ import annotations

from marchproxy_core.testing.lab.lab import Dual, Lab, open_lab
from marchproxy_core.testing.lab.namespace import Namespace
from marchproxy_core.testing.lab.naming import LabUnavailable, sweep

__all__ = ["Dual", "Lab", "LabUnavailable", "Namespace", "open_lab", "sweep"]
