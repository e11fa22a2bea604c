"""Maps of every kind that the tiers use, as the kernel makes them."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys

import pytest

from marchproxy_core.bpf import batches
from marchproxy_core.bpf.map_types import MapFlags, MapSpec, MapType, possible_cpus, value_stride
from marchproxy_core.bpf.maps import EXIST, NOEXIST, Map
from marchproxy_core.bpf.syscall import BpfError, Command, bpf, is_available

pytestmark = pytest.mark.root


def u32(*numbers):
    return struct.pack(f"={len(numbers)}I", *numbers)


def u64(*numbers):
    return struct.pack(f"={len(numbers)}Q", *numbers)


def spec(kind=MapType.HASH, **more):
    return MapSpec(**{"name": "sample", "type": kind, "value_size": 8, "max_entries": 16} | more)


@pytest.fixture
def made(request):
    opened = []

    def make(*args, **more):
        opened.append(Map.create(spec(*args, **more)))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


@pytest.mark.parametrize("kind", [MapType.HASH, MapType.LRU_HASH])
def test_a_hash_keeps_what_it_is_told(made, kind):
    table = made(kind)
    assert table.lookup(u32(1)) is None
    table.update(u32(1), u64(10))
    table.update(u32(1), u64(11))
    assert table.lookup(u32(1)) == u64(11)
    assert table.delete(u32(1))
    assert not table.delete(u32(1))


def test_flags_say_whether_an_entry_may_be_there(made):
    table = made()
    with pytest.raises(BpfError) as missing:
        table.update(u32(1), u64(1), EXIST)
    assert missing.value.errno == errno.ENOENT
    table.update(u32(1), u64(1), NOEXIST)
    with pytest.raises(BpfError) as there:
        table.update(u32(1), u64(2), NOEXIST)
    assert there.value.errno == errno.EEXIST
    assert str(there.value) == "map sample: BPF_MAP_UPDATE_ELEM failed: EEXIST, File exists"


def test_a_full_hash_refuses_and_says_so(made):
    table = made(max_entries=2, flags=MapFlags.NO_PREALLOC)
    table.update(u32(1), u64(1))
    table.update(u32(2), u64(1))
    with pytest.raises(BpfError, match="E2BIG"):
        table.update(u32(3), u64(1))


def test_an_array_is_full_of_zeros_and_cannot_delete(made):
    table = made(MapType.ARRAY)
    assert table.lookup(u32(15)) == u64(0)
    assert table.lookup(u32(16)) is None
    with pytest.raises(BpfError, match="EINVAL"):
        table.delete(u32(1))


def test_sizes_are_checked_before_the_kernel_reads_beyond_them(made):
    table = made()
    with pytest.raises(ValueError, match="need a key of 4 bytes, have 3"):
        table.lookup(b"abc")
    with pytest.raises(ValueError, match="need a value of 8 bytes, have 4"):
        table.update(u32(1), u32(1))
    with pytest.raises(ValueError, match="need a value of 8 bytes, have 0"):
        batches.update_many(table, [(u32(1), b"")])


def test_keys_may_be_deleted_while_they_are_listed(made):
    table = made()
    for n in range(16):
        table.update(u32(n), u64(n))
    seen = []
    for key in table.keys():  # noqa: SIM118 - a map is no dict
        seen.append(key)
        table.delete(key)
    assert sorted(seen) == [u32(n) for n in range(16)]
    assert list(table.keys()) == []


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        (MapType.HASH, MapFlags.NONE),
        (MapType.LRU_HASH, MapFlags.NONE),
        (MapType.ARRAY, MapFlags.NONE),
        (MapType.PERCPU_HASH, MapFlags.NONE),
        (MapType.PERCPU_ARRAY, MapFlags.NONE),
        (MapType.LRU_PERCPU_HASH, MapFlags.NONE),
    ],
)
@pytest.mark.parametrize("chunk", [1, 7, 5000])
def test_batches_write_and_read_everything(made, kind, flags, chunk):
    table = made(kind, flags=flags, max_entries=1000)
    entries = [(u32(n), u64(n + 1) * (table.value_size // 8)) for n in range(1000)]
    batches.update_many(table, entries[:900])
    batches.update_many(table, entries[900:], chunk)
    # LRU maps give entries back before they are quite full.
    least = 1000 if kind not in (MapType.LRU_HASH, MapType.LRU_PERCPU_HASH) else 500
    read = list(batches.items(table, chunk))
    assert len(read) >= least
    assert set(read) <= set(entries)


def test_a_type_without_batches_is_read_and_written_one_by_one(made):
    # Devices and programs have no batches (ENOTSUPP); an entry of a DEVMAP is an interface's index.
    table = made(MapType.DEVMAP, value_size=4)
    assert table.lookup(u32(3)) is None
    with pytest.raises(BpfError, match="ENOTSUPP"):
        bpf(Command.MAP_LOOKUP_BATCH, struct.pack("=4Q2I2Q", 0, 0, 0, 0, 1, table.fd, 0, 0), "probe")
    batches.update_many(table, [(u32(3), u32(1)), (u32(5), u32(1))])
    assert list(batches.items(table)) == [(u32(3), u32(1)), (u32(5), u32(1))]
    assert batches.delete_many(table, [u32(3)]) == 1
    assert list(batches.items(table)) == [(u32(5), u32(1))]


def test_deleting_many_leaves_out_those_that_are_not_there(made):
    table = made()
    batches.update_many(table, [(u32(n), u64(n)) for n in range(10)])
    wanted = [u32(n) for n in (100, 0, 1, 101, 102, 2, 103)]
    assert batches.delete_many(table, wanted) == 3
    assert batches.delete_many(table, wanted) == 0
    assert sorted(table.keys()) == [u32(n) for n in range(3, 10)]
    with pytest.raises(BpfError, match="EINVAL"):
        batches.delete_many(made(MapType.ARRAY), [u32(0)])


def test_a_longest_prefix_wins(made):
    table = made(MapType.LPM_TRIE, key_size=8, flags=MapFlags.NO_PREALLOC)
    entries = [(u32(8) + bytes([10, 0, 0, 0]), u64(8)), (u32(24) + bytes([10, 0, 7, 0]), u64(24))]
    batches.update_many(table, entries)
    assert table.lookup(u32(32) + bytes([10, 0, 7, 9])) == u64(24)
    assert table.lookup(u32(32) + bytes([10, 9, 7, 9])) == u64(8)
    assert table.lookup(u32(32) + bytes([11, 0, 0, 1])) is None
    assert sorted(batches.items(table)) == sorted(entries)


@pytest.mark.parametrize(("kind", "order"), [(MapType.QUEUE, [1, 2, 3]), (MapType.STACK, [3, 2, 1])])
def test_queues_and_stacks_give_in_their_order(made, kind, order):
    table = made(kind, key_size=0, max_entries=3)
    for n in (1, 2, 3):
        table.push(u64(n))
    with pytest.raises(BpfError, match="E2BIG"):
        table.push(u64(4))
    assert [table.pop() for _ in range(4)] == [*(u64(n) for n in order), None]


def test_a_per_cpu_value_has_one_for_each_possible_cpu(made):
    table = made(MapType.PERCPU_ARRAY, value_size=12)
    assert table.value_size == 16 * possible_cpus()
    values = [bytes([cpu + 1]) * 12 for cpu in range(possible_cpus())]
    table.update(u32(2), table.join(values))
    assert table.split(table.lookup(u32(2))) == tuple(values)


def test_an_array_in_memory_is_the_array(made):
    table = made(MapType.ARRAY, value_size=12, max_entries=600, flags=MapFlags.MMAPABLE)
    with table.mmap() as memory:
        assert len(memory) == 3 * os.sysconf("SC_PAGESIZE")
        at = 599 * value_stride(12)
        memory[at : at + 12] = b"from memory!"
        assert table.lookup(u32(599)) == b"from memory!"
        table.update(u32(1), b"from the map")
        assert memory[16:28] == b"from the map"


def test_only_a_map_made_for_it_is_mapped(made):
    with pytest.raises(ValueError, match="need the flag MMAPABLE"):
        made(MapType.ARRAY).mmap()


def test_inner_arrays_may_differ_in_size_and_are_replaced_whole(made):
    inner = spec(MapType.ARRAY, flags=MapFlags.INNER_MAP, max_entries=1)
    outer = made(MapType.ARRAY_OF_MAPS, value_size=4, inner=inner)
    small = made(MapType.ARRAY, flags=MapFlags.INNER_MAP, max_entries=3)
    large = made(MapType.ARRAY, flags=MapFlags.INNER_MAP, max_entries=65537)
    for each in (small, large):
        outer.update(u32(0), u32(each.fd))
        assert outer.lookup(u32(0)) == u32(each.info().id)
    large.update(u32(65536), u64(7))
    large.close()
    (number,) = struct.unpack("=I", outer.lookup(u32(0)))
    with Map.open_id(number) as opened:
        assert opened.lookup(u32(65536)) == u64(7)
    with pytest.raises(BpfError, match="EINVAL"):
        outer.update(u32(1), u32(made(MapType.HASH).fd))


def test_the_kernel_says_what_a_map_is(made):
    table = made(MapType.LRU_HASH, key_size=6, value_size=10, max_entries=33)
    info = table.info()
    assert (info.name, info.type, info.key_size, info.value_size) == ("sample", MapType.LRU_HASH, 6, 10)
    assert (info.max_entries, info.flags) == (33, 0)
    assert info.differences(spec(MapType.LRU_HASH, key_size=6, value_size=10, max_entries=33)) == ()
    assert info.differences(spec(MapType.HASH, key_size=6, value_size=10, max_entries=34)) == (
        "type LRU_HASH, want HASH",
        "max_entries 33, want 34",
    )


@pytest.mark.parametrize(
    "wanted",
    [
        spec(MapType.DEVMAP, value_size=4),
        spec(MapType.DEVMAP_HASH, value_size=4),
        spec(MapType.LRU_HASH, flags=MapFlags.NO_COMMON_LRU, max_entries=33),
        spec(MapType.RINGBUF, key_size=0, value_size=0, max_entries=1 << 16),
        spec(MapType.PROG_ARRAY, value_size=4),
        spec(MapType.PERCPU_HASH, value_size=12),
    ],
    ids=lambda wanted: wanted.type.name,
)
def test_what_the_kernel_adds_on_its_own_is_no_difference(wanted):
    with Map.create(wanted) as table:
        assert table.info().differences(wanted) == ()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": "a name too long for it"}, "name of 1 to 15"),
        ({"name": "white space"}, "name of 1 to 15"),
        ({"max_entries": 0}, "max_entries from 1"),
        ({"type": MapType.QUEUE}, "key_size 4 is wrong for QUEUE"),
        ({"type": MapType.ARRAY_OF_MAPS}, "inner is for maps of maps"),
        ({"type": MapType.LPM_TRIE}, "NO_PREALLOC"),
    ],
)
def test_a_spec_that_cannot_be_is_refused_at_once(wrong, message):
    with pytest.raises(ValueError, match=message):
        MapSpec(**{"name": "sample", "type": MapType.HASH, "value_size": 8, "max_entries": 16} | wrong)


def test_what_is_no_map_is_refused_and_closed():
    read, write = os.pipe()
    os.close(write)
    with pytest.raises(BpfError, match=r"EBADF|EINVAL"):
        Map(read)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(read)


def test_closing_twice_is_fine_and_using_it_then_is_not(made):
    table = made()
    table.close()
    table.close()
    assert table.closed
    with pytest.raises(ValueError, match="Map is closed"):
        table.lookup(u32(1))


def test_a_forgotten_map_is_closed_with_a_warning():
    table = Map.create(spec())
    descriptor = table.fd
    with pytest.warns(ResourceWarning, match="unclosed Map"):
        del table
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_the_system_call_is_there():
    assert is_available() is True


def test_a_limit_of_locked_memory_is_lifted_for_kernels_that_charge_to_it():
    # Kernels before 5.11 answer EPERM; this one does not, so that the lifting itself is what can be shown.
    script = (
        "import resource; from marchproxy_core.bpf import syscall\n"
        "kind = resource.RLIMIT_MEMLOCK; hard = resource.getrlimit(kind)[1]\n"
        "resource.setrlimit(kind, (65536, hard)); lifted = syscall._lift_memory_limit()\n"
        "print(lifted, resource.getrlimit(kind)[0] in (-1, hard), syscall._lift_memory_limit())"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert shown.stdout == b"True True False\n"
