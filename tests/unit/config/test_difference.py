"""What a reload finds changed."""

from __future__ import annotations

from pathlib import Path

from marchproxy_core.config import Config, ConfigDiff, diff, load_text
from marchproxy_core.config.choices import TIER_NAMES


def read(text: str) -> Config:
    return load_text(text.encode(), Path("f.yaml"), {}, TIER_NAMES)


A = "- {name: a, ip: 10.0.0.1, port: 1}\n"
B = "- {name: b, ip: 10.0.0.1, port: 2}\n"
B_CHANGED = "- {name: b, ip: 10.0.0.1, port: 3}\n"
C = "- {name: c, ip: 10.0.0.1, port: 4}\n"


def test_nothing_changed_though_lines_moved() -> None:
    found = diff(read(A + B), read("# moved\n" + B + A))
    assert found == ConfigDiff(unchanged=("b", "a"))
    assert found.is_empty


def test_services_added_removed_changed() -> None:
    found = diff(read(A + B), read(B_CHANGED + C))
    assert found == ConfigDiff(added=("c",), removed=("a",), changed=("b",))
    assert not found.is_empty


def test_settings_and_which_of_them_need_a_restart() -> None:
    old = read("settings: {worker_threads: 1, log_level: info, enable_xdp: true}\n")
    new = read("settings: {worker_threads: 2, log_level: debug, enable_xdp: false, enable_dpdk: auto}\n")
    assert diff(old, new) == ConfigDiff(
        settings=("ENABLE_XDP", "WORKER_THREADS", "LOG_LEVEL"), needs_restart=("WORKER_THREADS",)
    )


def test_a_setting_written_out_as_its_default_is_no_change() -> None:
    assert diff(read(""), read("settings: {drain_timeout: 30, enable_xdp: auto}\n")).is_empty
