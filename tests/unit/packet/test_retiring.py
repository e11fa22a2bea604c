"""Tables that do not fit take nothing new, let their flows go on for a while, and go."""

from __future__ import annotations

import ctypes
import os

import pytest

from marchproxy_core.bpf import Map, MapSpec, MapType, PinDirectory, find_bpffs
from marchproxy_core.errors import TierUnavailable
from marchproxy_core.packet.retiring import retire

pytestmark = pytest.mark.root

ENTRY = b"\1\0\0\0"


@pytest.fixture
def pins(tmp_path):
    """Pinned tables of services and of keys, in a bpffs of their own."""
    place = tmp_path / "bpffs"
    place.mkdir()
    with PinDirectory.open("0-net-1", place) as directory:
        for name in ("services", "keys"):
            spec = MapSpec(name=name, type=MapType.HASH, value_size=4, max_entries=8)
            with directory.open_or_create(spec) as table:
                table.update(ENTRY, ENTRY)
        yield directory
    libc = ctypes.CDLL(None, use_errno=True)
    while find_bpffs(place):
        assert libc.umount2(os.fsencode(place), 2) == 0, os.strerror(ctypes.get_errno())  # MNT_DETACH


def has_entry(pins, name):
    with Map.open_pinned(pins.file(name)) as table:
        return table.lookup(ENTRY) is not None


def test_with_flows_they_open_no_more_and_stay_until_the_time_is_over(pins):
    for _ in range(2):
        with pytest.raises(TierUnavailable, match=r"another schema.*go on for (60|59) s more"):
            retire(pins, "another schema", 60)
    assert not has_entry(pins, "services")
    assert has_entry(pins, "keys")
    assert pins.names() == ("keys", "services")


def test_the_time_begins_with_the_first_call(pins):
    with pytest.raises(TierUnavailable):
        retire(pins, "another schema", 0.01)

    def is_gone():
        try:
            retire(pins, "another schema", 60)
        except TierUnavailable:
            return False
        return True

    while not is_gone():
        assert has_entry(pins, "keys")
    assert pins.names() == ()


def test_without_flows_they_go_at_once(pins):
    with Map.open_pinned(pins.file("keys")) as table:
        table.delete(ENTRY)
    retire(pins, "another schema", 60)
    assert pins.names() == ()


def test_whatever_else_is_pinned_goes_as_well_when_there_are_no_tables(pins):
    pins.unpin("keys")
    pins.unpin("services")
    with Map.create(MapSpec(name="old", type=MapType.HASH, value_size=4, max_entries=8)) as table:
        pins.pin(table, "old")
    retire(pins, "another schema", 60)
    assert pins.names() == ()
