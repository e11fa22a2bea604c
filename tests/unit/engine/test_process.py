"""What the control process sets for itself, seen from a process of its own."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys

import pytest

PROGRAM = """
import gc, json, os, resource, sys, threading
from marchproxy_core.config import Config, Settings, load
from marchproxy_core.engine.process import prepare_process
from marchproxy_core.errors import ConfigError

settled, end = threading.Event(), threading.Event()
threading.Thread(target=lambda: (settled.set(), end.wait()), daemon=True).start()
settled.wait()
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
try:
    prepare_process(load(None, os.environ, ()))
except ConfigError as error:
    sys.exit(str(error))
print(json.dumps({
    "cpus": [sorted(os.sched_getaffinity(int(thread))) for thread in os.listdir("/proc/self/task")],
    "open_files_is_hard_limit": resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard),
    "gc": gc.get_threshold()[0],
}))
"""
CPUS = sorted(os.sched_getaffinity(0))
BEYOND = "8000"
"""A CPU that no host of ours has; the highest number that a setting may have is 8191."""


def prepared(**environ):
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.run(
        command, env={**os.environ, **environ}, capture_output=True, text=True, check=False, timeout=30
    )


def test_every_thread_is_on_the_cpus_asked_for_and_the_limits_are_raised():
    result = prepared(ADMIN_CPU_AFFINITY=str(CPUS[-1]), GOGC="200")
    assert result.returncode == 0, result.stderr
    seen = json.loads(result.stdout.splitlines()[-1])
    assert seen == {"cpus": [[CPUS[-1]]] * 2, "open_files_is_hard_limit": True, "gc": 1400}


def test_without_settings_only_the_limit_of_open_files_is_raised():
    result = prepared()
    seen = json.loads(result.stdout.splitlines()[-1])
    assert seen == {"cpus": [CPUS] * 2, "open_files_is_hard_limit": True, "gc": gc.get_threshold()[0]}


def test_gogc_off_turns_the_collector_off():
    assert json.loads(prepared(GOGC="off").stdout.splitlines()[-1])["gc"] == 0


@pytest.mark.parametrize("cpus", [BEYOND, f"{CPUS[0]},{BEYOND}"])
def test_cpus_that_are_not_there_are_an_error_that_names_them(cpus):
    result = prepared(ADMIN_CPU_AFFINITY=cpus, PROXY_CPU_AFFINITY=cpus)
    assert result.returncode == 1
    proxy, admin = result.stderr.splitlines()[-2:]
    assert proxy.startswith(f"env PROXY_CPU_AFFINITY: PROXY_CPU_AFFINITY: got {BEYOND}, which this process")
    assert admin.startswith(f"env ADMIN_CPU_AFFINITY: ADMIN_CPU_AFFINITY: got {BEYOND}, which this process")
    assert "without the setting: " in admin
