"""Settings and services: from a YAML file and the environment to frozen values, all errors at once.

Owns what a setting is called, may be, and where it came from. It never looks at the host: whether a value
suits the machine is for probes and for those who use it.
"""

from __future__ import annotations

from marchproxy_core.config.choices import AfXdpMode, Enable, LogLevel, XdpMode
from marchproxy_core.config.declare import Setting
from marchproxy_core.config.kinds import UnixAddress
from marchproxy_core.config.loading import load
from marchproxy_core.config.settings import SETTINGS, Settings
from marchproxy_core.config.values import Config, Origin

__all__ = [
    "SETTINGS",
    "AfXdpMode",
    "Config",
    "Enable",
    "LogLevel",
    "Origin",
    "Setting",
    "Settings",
    "UnixAddress",
    "XdpMode",
    "load",
]
