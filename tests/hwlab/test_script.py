"""scripts/hwlab as its users see it: what comes back, how it ends, what it says when it cannot."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from marchproxy_core.testing import until
from marchproxy_core.testing.pytest_plugin import leave_out

HWLAB = Path(__file__).parents[2] / "scripts" / "hwlab"
NO_MIRROR = "file:/no/such/mirror"
MADE_BY_SETUP = ("initrd", "kernel", "made", "root", "versions", "vmlinuz")
FAILED, TIMED_OUT = 125, 124


def hwlab(*arguments, **env):
    return subprocess.run(
        [HWLAB, *arguments], capture_output=True, text=True, check=False, env=os.environ | env, timeout=120
    )


@pytest.fixture
def cache():
    """What setup has made, for all."""
    done = hwlab("setup")
    if done.returncode != 0:
        leave_out(f"needs emulated hardware: {done.stderr.strip()}")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "marchproxy", "hwlab")


@pytest.fixture
def copied(cache):
    """A copy of the cache, by hard links, and the environment that names it and has no mirror."""
    with _beside(cache) as home:
        copy = home / "marchproxy" / "hwlab"
        copy.mkdir(parents=True)
        for name in MADE_BY_SETUP:
            _link_tree(cache / name, copy / name)
        yield copy, {"XDG_CACHE_HOME": str(home), "HWLAB_MIRROR": NO_MIRROR}


@contextmanager
def _beside(cache):
    home = cache.with_name(f"test-{os.getpid()}")
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _link_tree(source, target):
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, copy_function=os.link)
    else:
        os.link(source, target)


def test_a_command_gives_back_its_output_its_status_and_its_files(cache, tmp_path):
    out, lost = tmp_path / "out, with a comma", tmp_path / "lost"
    script = 'echo "$0 $1"; echo "in $PWD" >&2; id -u >"$HWLAB_OUT/user"; touch "$2"; exit 7'
    done = hwlab("run", "bash", "-c", script, "two  words", "$HOME", str(lost), HWLAB_OUT=str(out))
    assert (done.returncode, done.stdout, done.stderr) == (7, "two  words $HOME\n", f"in {Path.cwd()}\n")
    assert (out / "user").read_text() == "0\n"
    assert not lost.exists()


def test_a_timeout_ends_the_guest(cache):
    done = hwlab("run", "sleep", "60", HWLAB_TIMEOUT="1")
    assert done.returncode == TIMED_OUT
    assert "ended after 1 s (HWLAB_TIMEOUT)" in done.stderr


@pytest.mark.parametrize(
    ("end", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)],
    ids=["Ctrl-C", "SIGTERM", "SIGKILL"],
)
async def test_the_guest_ends_with_the_script(cache, end, status, tmp_path):
    job = tmp_path / "jobs"
    job.mkdir()
    process = await trio.lowlevel.open_process(
        [HWLAB, "run", "sleep", "60"], env=os.environ | {"TMPDIR": str(job)}
    )
    try:
        await until(lambda: _runs_on(job), what="a guest")
        process.send_signal(end)
        assert await process.wait() == status
        await until(lambda: not _runs_on(job), what="the guest's end")
    finally:
        process.kill()
    assert end == signal.SIGKILL or not list(job.iterdir())


def _runs_on(job):
    """Whether a QEMU runs whose job is in this folder."""
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = each.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if arguments[0].endswith(".so.2") and any(f"path={job}" in argument for argument in arguments):
            return True
    return False


def test_what_is_whole_is_used_as_it_is(copied):
    _, env = copied
    done = hwlab("setup", **env)
    assert (done.returncode, done.stderr.partition(":")[2].split()[0]) == (0, "ready:")


@pytest.mark.parametrize("broken", ["missing", "cut short"])
def test_what_is_broken_is_set_up_again(copied, broken):
    copy, env = copied
    if broken == "missing":
        (copy / "root/usr/bin/busybox").unlink()
    else:
        (copy / "vmlinuz").unlink()
        (copy / "vmlinuz").write_bytes(b"half of it")
    done = hwlab("run", "true", **env)
    assert done.returncode == FAILED
    assert "setting up in" in done.stderr
    _says_need_have_fix(done.stderr, NO_MIRROR, "HWLAB_MIRROR")
    assert not (copy / "made").exists()


async def test_a_setup_waits_for_another(copied):
    copy, env = copied
    with (copy / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = await trio.lowlevel.open_process(
            [HWLAB, "setup"], env=os.environ | env, stderr=subprocess.PIPE
        )
        async with process.stderr as said:
            with trio.fail_after(10):
                assert b"waiting for another setup" in await said.receive_some()
                fcntl.flock(lock, fcntl.LOCK_UN)
                assert await process.wait() == 0


def test_it_says_when_there_is_no_place_for_it(tmp_path):
    (tmp_path / "file").touch()
    done = hwlab("setup", XDG_CACHE_HOME=str(tmp_path / "file"))
    assert done.returncode == FAILED
    _says_need_have_fix(done.stderr, str(tmp_path), "XDG_CACHE_HOME")


@pytest.mark.parametrize(
    ("program", "says", "have"),
    [("uname", "riscv64", "riscv64"), ("apt-get", "", "none among apt's sources")],
)
def test_it_says_what_the_host_lacks(tmp_path, program, says, have):
    other = tmp_path / program
    other.write_text(f"#!/bin/sh\necho {says}\n")
    other.chmod(0o755)
    done = hwlab(
        "setup", PATH=f"{tmp_path}:{os.environ['PATH']}", XDG_CACHE_HOME=str(tmp_path), HWLAB_MIRROR=""
    )
    assert done.returncode == FAILED
    _says_need_have_fix(done.stderr, have)


def test_it_says_how_it_is_used():
    done = hwlab("run")
    assert done.returncode == 2
    assert "scripts/hwlab run COMMAND" in done.stderr


def _says_need_have_fix(said, *parts):
    assert all(part in said for part in ("need ", " - have ", " - fix: ", *parts)), said
