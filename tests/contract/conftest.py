"""Distributions of tiers, good and broken, really built and installed, and ``marchproxy`` beside them.

They are installed once a session into a directory of their own, which only these commands have on their path.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from marchproxy_core.config import SETTINGS

TEMPLATE = Path(__file__).parents[2] / "examples" / "tier_template"
PROGRAM = Path(sys.executable).with_name("marchproxy")

HOOKS = """
from marchproxy_core.hookspecs import hookimpl
from marchproxy_core.model import Carries, Path, ProbeReport, Verdict

@hookimpl
def probe(host, settings):
    return ProbeReport(order=1, carries=Carries.CONNECTIONS, requirements=())

@hookimpl
def classify(service, report):
    return Verdict(accept=True, path=Path.FAST, reason="takes all")

@hookimpl
def attach(context):
    raise NotImplementedError

@hookimpl
def forward(attachment, services):
    raise NotImplementedError

@hookimpl
def stats(attachment):
    raise NotImplementedError
"""

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "{distribution}"
version = "1.0"

[project.entry-points."marchproxy.tiers"]
{tier} = "{module}"

[tool.setuptools]
packages = ["{package}"]
"""


@pytest.fixture(scope="session")
def hooks():
    """The source of five hooks with nothing wrong, rank above all else."""
    return HOOKS


@pytest.fixture(scope="session")
def write_distribution():
    """Write the source of a distribution with one plugin."""

    def write(directory, distribution, tier, source, module="plugin"):
        package = distribution.replace("-", "_")
        (directory / package).mkdir(parents=True)
        (directory / "pyproject.toml").write_text(
            PYPROJECT.format(
                distribution=distribution, tier=tier, package=package, module=f"{package}.{module}"
            )
        )
        (directory / package / "__init__.py").touch()
        (directory / package / "plugin.py").write_text(source)
        return directory

    return write


@pytest.fixture(scope="session")
def copy_template():
    """Copy the tier template, without what earlier builds left in it."""

    def copy(directory):
        ignored = shutil.ignore_patterns("build", "*.egg-info", "__pycache__", ".pytest_cache")
        return Path(shutil.copytree(TEMPLATE, directory, ignore=ignored))

    return copy


@pytest.fixture(scope="session")
def pip():
    """Run pip as an author would, without a network."""

    def run(*arguments):
        command = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", *map(str, arguments)]
        subprocess.run(command, check=True, timeout=120)

    return run


@pytest.fixture(scope="session")
def start_marchproxy():
    """Start ``marchproxy`` with the distributions of a directory, and with no settings but the given ones."""

    def start(installed, *arguments, environ=None, **more):
        ours = {name for name in os.environ if name in SETTINGS or name.startswith("ENABLE_")}
        env = {name: value for name, value in os.environ.items() if name not in ours}
        env |= {"PYTHONPATH": str(installed), "COLUMNS": "240"} | (environ or {})
        return subprocess.Popen(
            [PROGRAM, *map(str, arguments)],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **more,
        )

    return start


@pytest.fixture(scope="session")
def marchproxy(start_marchproxy):
    """Run ``marchproxy`` to its end, and return what it wrote; with ``--json``, read."""

    def run(installed, *arguments, **more):
        with start_marchproxy(installed, *arguments, **more) as process:
            try:
                output, errors = process.communicate(timeout=60)
            finally:
                process.kill()
        assert process.returncode == 0, errors
        return json.loads(output) if "--json" in arguments else output

    return run
