"""Pins outlive their process, belong to one daemon at a time, and are refused where they do not fit."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from marchproxy_core.bpf import (
    BpfError,
    Link,
    Map,
    MapFlags,
    MapSpec,
    MapType,
    PinDirectory,
    PinError,
    PinMismatch,
    Program,
    ProgramType,
    ensure_bpffs,
    find_bpffs,
)

pytestmark = pytest.mark.root

KEY, VALUE = struct.pack("=I", 1), struct.pack("=Q", 7)
SPEC = MapSpec(name="flows", type=MapType.HASH, value_size=8, max_entries=16)
HOLD = (
    "import sys; from pathlib import Path; from marchproxy_core.bpf import PinDirectory\n"
    "PinDirectory.open(sys.argv[1], Path(sys.argv[2])); print('open', flush=True); sys.stdin.read()"
)


@pytest.fixture
def root(tmp_path):
    """A place for a bpffs; unmounted afterwards, with all that is pinned in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    place = tmp_path / "bpffs"
    place.mkdir()
    yield place
    while find_bpffs(place):
        assert libc.umount2(os.fsencode(place), 2) == 0, os.strerror(ctypes.get_errno())  # MNT_DETACH


@contextmanager
def held_by_another_process(schema, root):
    command = [sys.executable, "-c", HOLD, schema, str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"open\n"
            yield process
        finally:
            process.kill()


def test_a_bpffs_is_mounted_where_there_is_none_and_only_once(root):
    assert find_bpffs(root) is None
    ensure_bpffs(root)
    ensure_bpffs(root)
    assert find_bpffs(root).read_only is False
    assert root.stat().st_mode & 0o777 == 0o700
    ctypes.CDLL(None).umount2(os.fsencode(root), 2)
    assert find_bpffs(root) is None
    with pytest.raises(OSError, match="need a bpffs, cannot mount one"):
        ensure_bpffs(root / "missing")


def test_what_is_in_a_map_outlives_all_who_had_it_open(root):
    with PinDirectory.open("1", root) as pins, pins.open_or_create(SPEC) as flows:
        flows.update(KEY, VALUE)
    with PinDirectory.open("1", root) as pins, pins.open_or_create(SPEC) as flows:
        assert flows.lookup(KEY) == VALUE
        assert pins.names() == ("flows",)
        assert pins.unpin_all() == ("flows",)
        assert not pins.unpin("flows")
    with PinDirectory.open("1", root) as pins, pins.open_or_create(SPEC) as flows:
        assert flows.lookup(KEY) is None


def test_another_version_has_pins_of_its_own(root):
    with PinDirectory.open("1", root) as old, PinDirectory.open("2", root) as new:
        with old.open_or_create(SPEC) as flows:
            flows.update(KEY, VALUE)
        with new.open_or_create(SPEC) as flows:
            assert flows.lookup(KEY) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"max_entries": 32}, "max_entries 16, want 32"),
        ({"type": MapType.LRU_HASH}, "type HASH, want LRU_HASH"),
        ({"value_size": 16}, "value_size 8, want 16"),
        ({"key_size": 8}, "key_size 4, want 8"),
        ({"flags": MapFlags.NO_PREALLOC}, "flags 0, want 1"),
    ],
)
def test_a_map_that_does_not_fit_is_refused_with_how(root, change, said):
    wanted = {"name": "flows", "type": MapType.HASH, "value_size": 8, "max_entries": 16} | change
    with PinDirectory.open("1", root) as pins:
        pins.open_or_create(SPEC).close()
        with pytest.raises(PinMismatch, match=re.escape(f"pinned map {root}/marchproxy/1/flows: {said}")):
            pins.open_or_create(MapSpec(**wanted))
        pins.open_or_create(SPEC).close()


def test_a_daemon_is_refused_by_name_while_another_has_the_pins(root):
    ensure_bpffs(root)
    with held_by_another_process("1", root) as other:
        with pytest.raises(PinError, match=rf"another daemon has it \(python\S*, pid {other.pid}\)"):
            PinDirectory.open("1", root)
        PinDirectory.open("2", root).close()
        other.send_signal(signal.SIGKILL)
        other.wait()
        PinDirectory.open("1", root).close()


def test_the_tiers_of_a_process_share_the_lock_until_the_last_one_closes(root):
    first = PinDirectory.open("1", root)
    second = PinDirectory.open("1", root)
    first.close()
    first.close()
    command = [sys.executable, "-c", HOLD, "1", str(root)]
    refused = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert b"another daemon has it" in refused.stderr
    second.close()
    with held_by_another_process("1", root), pytest.raises(PinError):
        PinDirectory.open("1", root)
    with pytest.raises(ValueError, match="is closed"):
        second.open_or_create(SPEC)


def test_threads_that_ask_for_the_same_map_get_the_same_one(root):
    ids = []

    def ask(pins):
        with pins.open_or_create(SPEC) as flows:
            ids.append(flows.info().id)

    with PinDirectory.open("1", root) as pins:
        threads = [threading.Thread(target=ask, args=(pins,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(ids) == 8
    assert len(set(ids)) == 1


def test_a_directory_of_somebody_else_is_refused(root):
    ensure_bpffs(root)
    (root / "marchproxy").mkdir()
    os.chown(root / "marchproxy", 65534, 65534)
    with pytest.raises(PinError, match="need a directory of user 0, have one of user 65534"):
        PinDirectory.open("1", root)


def test_a_link_in_place_of_the_directory_is_refused(root, tmp_path):
    ensure_bpffs(root)
    (root / "elsewhere").mkdir()
    (root / "marchproxy").symlink_to(root / "elsewhere")
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        PinDirectory.open("1", root)


def test_a_directory_open_to_others_is_closed_to_them(root):
    ensure_bpffs(root)
    (root / "marchproxy").mkdir(mode=0o777)
    (root / "marchproxy").chmod(0o777)
    with PinDirectory.open("1", root) as pins:
        assert pins.path.parent.stat().st_mode & 0o777 == 0o700
        assert pins.path.stat().st_mode & 0o777 == 0o700


def test_programs_are_pinned_and_replaced(root, compiled, opened):
    spec = MapSpec(name="counts", type=MapType.ARRAY, value_size=8, max_entries=3)
    counts = opened(Map.create(spec))
    first, second = (
        opened(Program.load(compiled(function), ProgramType.XDP, maps=[counts], name=function))
        for function in ("pass_in_slot_0", "pass_in_slot_1")
    )
    with PinDirectory.open("1", root) as pins:
        for program in (first, second):
            pins.pin(program, "packets")
            assert pins.names() == ("packets",)
            with Program.open_pinned(pins.file("packets")) as found:
                assert found.info() == program.info()
        with pytest.raises(BpfError, match="ENOENT"):
            Program.open_pinned(pins.file("missing"))


def attach_to_client(program):
    return Link.attach_xdp(program, socket.if_nametoindex("to_client"))


async def test_a_pinned_link_stays_until_it_is_unpinned(lab, root, compiled, opened):
    spec = MapSpec(name="counts", type=MapType.ARRAY, value_size=8, max_entries=3)
    counts = opened(Map.create(spec))
    program = opened(Program.load(compiled("pass_in_slot_0"), ProgramType.XDP, maps=[counts], name="pass"))

    with PinDirectory.open("1", root) as pins:
        with await lab.proxy.call(attach_to_client, program) as link:
            pins.pin(link, "front")
            number = link.info().id
        with Link.open_pinned(pins.file("front")) as found:
            assert found.info().id == number
            assert found.info().interface > 0
        assert pins.unpin("front")
    with pytest.raises(BpfError, match="ENOENT"):
        Link.open_id(number)


@pytest.mark.parametrize("name", ["", "with.dot", "../up", "a/b", "x" * 65])
def test_names_that_bpffs_does_not_take_are_refused(root, name):
    with pytest.raises(ValueError, match="need a name of 1 to 64"):
        PinDirectory.open(name, root)
    with PinDirectory.open("1", root) as pins, pytest.raises(ValueError, match="need a name of 1 to 64"):
        pins.file(name)


def test_an_empty_directory_goes_with_its_last_user_and_one_with_pins_stays(root):
    with PinDirectory.open("1", root) as first, PinDirectory.open("1", root):
        pass
    assert not first.path.exists()
    with PinDirectory.open("1", root) as again:
        again.open_or_create(SPEC).close()
    assert again.path.exists()
    with PinDirectory.open("1", root) as last:
        assert last.unpin_all() == ("flows",)
    assert not last.path.exists()
