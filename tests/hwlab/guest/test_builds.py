"""The kernel that Debian builds takes every build of the packet engine: verifiers differ, also within one version."""

from __future__ import annotations

import contextlib

import pytest

from marchproxy_core.config import Settings
from marchproxy_core.packet.tables import Tables
from marchproxy_core.testing.packets.kernel_engine import load_build
from marchproxy_core.testing.packets.row import Build

_SETTINGS = Settings(ebpf_conn_map_size=1024)  # filling larger tables takes long here


@pytest.mark.parametrize(
    "build",
    [build for build in Build if build not in (Build.PLAIN, Build.PLAIN_PARTIAL)],
    ids=lambda one: one.name,
)
def test_each_build_is_taken(build):
    with contextlib.closing(Tables.open(_SETTINGS)) as tables:
        load_build(build, tables).close()
