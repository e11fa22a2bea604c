"""The daemon between clients and backends: one worker, a service to each backend."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from pathlib import Path

from marchproxy_core.config import SETTINGS

PROGRAM = Path(sysconfig.get_path("scripts")) / "marchproxy"
_SETTINGS = {"WORKER_THREADS": "1", "DRAIN_TIMEOUT": "1s", "LOG_LEVEL": "info"}


def start(directory: Path, services: str, *, admin_port: int) -> subprocess.Popen[bytes]:
    """Start it; its log is in ``log`` of the directory. Whoever calls ends it.

    Args:
        directory: For its file and its log.
        services: The list of them, as YAML.
        admin_port: For its admin API.
    """
    file = directory / "marchproxy.yaml"
    file.write_text(f"services:\n{services}")
    environ = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    environ |= _SETTINGS | {"ADMIN_LISTEN": f"127.0.0.1:{admin_port}"}
    with (directory / "log").open("wb") as log:
        return subprocess.Popen(
            [PROGRAM, "run", "--config", str(file)],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
