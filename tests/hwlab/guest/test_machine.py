"""What the machine has, before any packet."""

from __future__ import annotations

import mmap
import subprocess
from pathlib import Path

import pytest

from marchproxy_core.bpf import find_bpffs

_SYS_NET = Path("/sys/class/net")
_MAP_HUGETLB = 0x40000  # mmap(2), Linux on x86


@pytest.mark.parametrize(
    ("interface", "driver"),
    [("eth0", "igb"), ("eth1", "igb"), ("eth2", "virtio_net"), ("eth3", "virtio_net")],
)
def test_interfaces_have_names_that_stay(interface, driver):
    assert (_SYS_NET / interface / "device/driver").resolve().name == driver


@pytest.mark.parametrize(("interface", "address"), [("eth0", "0000:01:00.0"), ("eth1", "0000:02:00.0")])
def test_the_physical_functions_have_addresses_that_stay(interface, address):
    device = (_SYS_NET / interface / "device").resolve()
    assert device.name == address
    assert (device / "sriov_totalvfs").read_text().strip() == "7"


def test_each_function_is_alone_in_its_iommu_group():
    for interface in ("eth0", "eth1"):
        device = (_SYS_NET / interface / "device").resolve()
        assert [each.name for each in (device / "iommu_group/devices").iterdir()] == [device.name]


def test_hugepages_can_be_used():
    before = _free_hugepages()
    assert before >= 256
    with mmap.mmap(-1, 2 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_HUGETLB) as memory:
        memory[0] = 1
        assert _free_hugepages() == before - 1
    assert _free_hugepages() == before


def _free_hugepages():
    return int(Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").read_text())


def test_bpffs_is_where_it_always_is():
    assert find_bpffs(Path("/sys/fs/bpf")) is not None


def test_the_kernel_loads_modules_that_are_asked_for():
    assert not Path("/sys/module/dummy").exists()
    subprocess.run(["ip", "link", "add", "spare", "type", "dummy"], check=True)
    subprocess.run(["ip", "link", "delete", "spare"], check=True)
    assert Path("/sys/module/dummy").exists()
