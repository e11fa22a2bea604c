"""What the host lacks is said with what to do, by looking only."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import attrs
import pytest

from marchproxy_core.bpf import find_bpffs, requirements
from marchproxy_core.bpf.toolchain import find_toolchain
from marchproxy_core.host import gather_host_facts
from marchproxy_core.testing.pytest_plugin import leave_out

RIGHTS = frozenset({"CAP_NET_ADMIN", "CAP_BPF", "CAP_PERFMON"})


def unmet(host, **more):
    found = [each for each in requirements(host, **more) if each.met is not True]
    assert all(each.have and each.fix for each in found)
    return {each.need: each for each in found}


@pytest.fixture(scope="module")
def host():
    return gather_host_facts()


@pytest.fixture
def able(host):
    return attrs.evolve(host, kernel=(6, 1, 0), capabilities=RIGHTS | {"CAP_SYS_ADMIN"})


@pytest.fixture
def system(tmp_path):
    """A distribution's files, as far as they matter."""
    for name in (
        "lib/python3/dist-packages/bcc/libbcc.py",
        "lib/x86_64-linux-gnu/libbcc.so.0",
        "include/linux/bpf.h",
        "include/x86_64-linux-gnu/asm/types.h",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "lib/python3/dist-packages/bcc/version.py").write_text("__version__ = '0.26.0'\n")
    (tmp_path / "include/linux/version.h").write_text("#define LINUX_VERSION_CODE 393417\n")
    return tmp_path


@pytest.mark.root
def test_this_host_has_everything():
    missing = unmet(gather_host_facts())
    if missing:
        leave_out(f"needs a host for BPF, lacks {', '.join(missing)}")
    assert missing == {}


def test_looking_takes_no_time_and_changes_nothing(host):
    before = find_bpffs(Path("/sys/fs/bpf"))
    requirements(host)
    begin = time.perf_counter()
    requirements(host)
    assert time.perf_counter() - begin < 0.05
    assert find_bpffs(Path("/sys/fs/bpf")) == before
    assert "bcc" not in sys.modules


@pytest.mark.parametrize(("kernel", "met"), [((5, 11, 22), False), ((5, 12, 0), True), ((6, 18, 1), True)])
def test_the_kernel_must_be_new_enough(able, kernel, met):
    host = attrs.evolve(able, kernel=kernel, kernel_release=".".join(map(str, kernel)))
    assert ("Linux 5.12 or later" not in unmet(host)) is met


@pytest.mark.parametrize(
    ("capabilities", "lacks"),
    [
        (frozenset(), "no CAP_BPF, no CAP_NET_ADMIN, no CAP_PERFMON"),
        (RIGHTS - {"CAP_BPF"}, "no CAP_BPF"),
        (frozenset({"CAP_SYS_ADMIN"}), "no CAP_NET_ADMIN"),
        (RIGHTS, None),
        (frozenset({"CAP_SYS_ADMIN", "CAP_NET_ADMIN"}), None),
    ],
)
def test_rights_are_named_one_by_one(able, capabilities, lacks):
    host = attrs.evolve(able, capabilities=capabilities)
    found = unmet(host).get("the capabilities CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN")
    assert (found.have if found else None) == lacks


def test_a_place_without_bpffs_will_do_for_who_may_mount_one(able, tmp_path):
    need = f"a bpffs at {tmp_path} to write to"
    assert need not in unmet(able, bpffs=tmp_path)
    found = unmet(attrs.evolve(able, capabilities=RIGHTS), bpffs=tmp_path)[need]
    assert (found.have, found.fix) == ("none", f"mount -t bpf bpf {tmp_path}")
    missing = tmp_path / "missing"
    assert f"a bpffs at {missing} to write to" in unmet(able, bpffs=missing)


def test_a_whole_toolchain_is_found(able, system):
    found = find_toolchain(system, python_path=())
    assert (found.bcc_version, found.headers_version) == ("0.26.0", "393417")
    assert not any("bcc" in need or "headers" in need for need in unmet(able, toolchain=found))


@pytest.mark.parametrize(
    ("missing", "need", "fix"),
    [
        ("lib/python3/dist-packages/bcc/libbcc.py", "bcc's Python package", "apt install python3-bpfcc"),
        ("lib/x86_64-linux-gnu/libbcc.so.0", "bcc's library libbcc.so.0", "apt install libbpfcc"),
        ("include/linux/bpf.h", "the headers of the kernel's user-space API", "apt install linux-libc-dev"),
        (
            "include/x86_64-linux-gnu/asm/types.h",
            "the headers of the kernel's user-space API",
            "apt install linux-libc-dev",
        ),
    ],
)
def test_each_missing_piece_is_named(able, system, missing, need, fix):
    (system / missing).unlink()
    found = unmet(able, toolchain=find_toolchain(system, python_path=()))
    assert found[need].fix == fix


def test_the_bcc_of_pypi_is_not_taken_for_ours(system, tmp_path):
    stranger = tmp_path / "site-packages/bcc"
    stranger.mkdir(parents=True)
    (stranger / "__init__.py").write_text("")
    found = find_toolchain(system, python_path=[str(stranger.parent)])
    assert found.bcc == system / "lib/python3/dist-packages/bcc"


def test_looking_loads_neither_bcc_nor_netlink():
    script = "import sys, marchproxy_core.bpf; print([n for n in ('bcc', 'pyroute2') if n in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert shown.stdout == b"[]\n"
