"""Tests on emulated network hardware: those of a folder run in one guest, together, and are reported here one by one.

guest/ has the newest kernel, oldest/ that of Debian 12. On the host each test stands for its own run in there. In the
guest, where HWLAB is set, they are what they look like, and what becomes of each goes into a file that the host shares.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import attrs
import pytest

from marchproxy_core.testing.pytest_plugin import leave_out

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
KERNELS = {HERE / "guest": "6.18", HERE / "oldest": "6.1"}
HWLAB = ROOT / "scripts" / "hwlab"
IN_GUEST = "HWLAB" in os.environ

_REPORTS = "reports.jsonl"
_SAID = "said"
_LONGEST_S = 600
_GUESTS = pytest.StashKey()


@attrs.define
class _Outcome:
    """What became of a test in the guest: of its setup, its call and its teardown together."""

    skipped: str | None = None
    expected: bool = False
    failures: list[str] = attrs.field(factory=list)
    sections: dict[str, str] = attrs.field(factory=dict)
    ended: bool = False

    def add(self, report):
        """Take what the guest wrote of one step."""
        self.sections |= dict(report["sections"])
        if report["outcome"] == "skipped":
            self.skipped, self.expected = report["text"], report["expected"]
        elif report["outcome"] == "failed":
            self.failures.append(f"{report['headline']} ({report['when']} in the guest)\n{report['text']}")
        self.ended = self.ended or report["when"] == "teardown"


@attrs.define(eq=False)
class _Guest:
    """A guest of this session: boots with the first test in this folder, while those on the host run."""

    kernel: str
    nodeids: list[str]
    missing: str | None = None
    _out: tempfile.TemporaryDirectory[str] | None = None
    _process: subprocess.Popen[bytes] | None = None
    _outcomes: dict[str, _Outcome] | None = None
    _said: str = ""

    def start(self):
        """Have all chosen tests run; does nothing the second time."""
        if not self.nodeids or self._process is not None or self.missing is not None:
            return
        env = os.environ | {"HWLAB_KERNEL": self.kernel}
        ready = subprocess.run([HWLAB, "setup"], env=env, capture_output=True, text=True, check=False)
        if ready.returncode != 0:
            self.missing = f"needs emulated hardware: {ready.stderr.strip()}"
            return
        self._out = tempfile.TemporaryDirectory(prefix="hwlab-out-")
        pytest_there = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *self.nodeids]
        with self._path(_SAID).open("wb") as said:
            self._process = subprocess.Popen(
                [HWLAB, "run", "env", f"CI={os.environ.get('CI', '')}", *pytest_there],
                cwd=ROOT,
                env=env | {"HWLAB_OUT": self._out.name, "HWLAB_TIMEOUT": str(_LONGEST_S)},
                stdout=said,
                stderr=subprocess.STDOUT,
            )

    def outcome_of(self, nodeid):
        """Wait for the guest's end and return what became of a test; one that it did not finish has failed."""
        if self.missing is not None:
            leave_out(self.missing)
        if self._outcomes is None:
            self._process.wait()
            self._said = self._path(_SAID).read_text(encoding="utf-8", errors="replace")
            self._outcomes = _read(self._path(_REPORTS))
        outcome = self._outcomes.get(nodeid, _Outcome())
        if not outcome.ended:
            outcome.failures.append(f"the guest ended before this test did:\n{self._said}")
            self._said = "what it said is above, where this happened first"
        return outcome

    def end(self):
        """End the guest, when nobody waited for it, and drop what it wrote."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._out.cleanup()

    def _path(self, name):
        return Path(self._out.name, name)


def _read(reports):
    outcomes = {}
    for line in reports.read_text(encoding="utf-8").splitlines() if reports.exists() else ():
        report = json.loads(line)
        outcomes.setdefault(report["nodeid"], _Outcome()).add(report)
    return outcomes


class _FailedInGuest(Exception):
    """Its text is all that is shown of it."""


class _GuestItem(pytest.Item):
    """A test that runs in the guest."""

    def runtest(self):
        outcome = self.session.stash[_GUESTS][self.path.parent].outcome_of(self.nodeid)
        for title, content in outcome.sections.items():
            self.add_report_section("call", f"guest, {title}", content)
        if outcome.failures:
            raise _FailedInGuest("\n\n".join(outcome.failures))
        if outcome.skipped is not None:
            (pytest.xfail if outcome.expected else pytest.skip)(outcome.skipped)

    def repr_failure(self, excinfo):
        return str(excinfo.value) if excinfo.errisinstance(_FailedInGuest) else super().repr_failure(excinfo)

    def reportinfo(self):
        return self.path, None, self.name


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(session, items):
    """Have the guest's tests run in the guest, those that are left after all choosing; here they come last."""
    if IN_GUEST:
        return
    there = [item for item in items if item.path.parent in KERNELS]
    if not there:
        return
    here = [item for item in items if item not in there]
    last = max((index for index, item in enumerate(here, 1) if HERE in item.path.parents), default=len(here))
    asked = [_GuestItem.from_parent(item.parent, name=item.name) for item in there]
    items[:] = here[:last] + asked + here[last:]
    session.stash[_GUESTS] = {
        folder: _Guest(kernel, [item.nodeid for item in asked if item.path.parent == folder])
        for folder, kernel in KERNELS.items()
    }


def pytest_runtest_setup(item):
    """Boot with the first test of this folder."""
    for guest in item.session.stash.get(_GUESTS, {}).values():
        guest.start()


def pytest_sessionfinish(session):
    """End the guests, also when the session was interrupted."""
    for guest in session.stash.get(_GUESTS, {}).values():
        guest.end()


def pytest_runtest_logreport(report):
    """In the guest: write what became of each step at once, so that a crash later on takes nothing back."""
    if not IN_GUEST or "HWLAB_OUT" not in os.environ:
        return
    crash = getattr(report.longrepr, "reprcrash", None)
    step = {
        "nodeid": report.nodeid,
        "when": report.when,
        "outcome": report.outcome,
        "headline": crash.message.partition("\n")[0] if crash else "",
        "text": _text_of(report),
        "expected": hasattr(report, "wasxfail"),
        "sections": report.sections,
    }
    with Path(os.environ["HWLAB_OUT"], _REPORTS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(step) + "\n")


def _text_of(report):
    if hasattr(report, "wasxfail"):
        return report.wasxfail
    return report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
