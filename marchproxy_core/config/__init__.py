"""Settings and services: from a YAML file and the environment to frozen values, all errors at once.

Owns what a setting is called, may be, and where it came from. It never looks at the host: whether a value
suits the machine is for probes and for those who use it.
"""

from __future__ import annotations

from marchproxy_core.config.choices import AfXdpMode, Enable, LogLevel, XdpMode, enable_variable
from marchproxy_core.config.declare import Setting
from marchproxy_core.config.difference import ConfigDiff, diff
from marchproxy_core.config.kinds import UnixAddress
from marchproxy_core.config.loading import load, load_text
from marchproxy_core.config.printing import PrintedService, PrintedSetting, render, render_services
from marchproxy_core.config.settings import SETTINGS, Settings
from marchproxy_core.config.values import Config, Origin

__all__ = [
    "SETTINGS",
    "AfXdpMode",
    "Config",
    "ConfigDiff",
    "Enable",
    "LogLevel",
    "Origin",
    "PrintedService",
    "PrintedSetting",
    "Setting",
    "Settings",
    "UnixAddress",
    "XdpMode",
    "diff",
    "enable_variable",
    "load",
    "load_text",
    "render",
    "render_services",
]
