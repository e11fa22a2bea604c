"""A daemon as an operator has it: the command line in processes of its own, a file, signals, clients and backends."""

from __future__ import annotations

from system_rig import processes
from system_rig.client import Client
from system_rig.daemon import Daemon
from system_rig.load import Load, load
from system_rig.packet_site import PacketSite
from system_rig.server import Server
from system_rig.service import Service
from system_rig.site import Site

__all__ = ["Client", "Daemon", "Load", "PacketSite", "Server", "Service", "Site", "load", "processes"]
