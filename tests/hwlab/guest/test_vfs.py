"""Virtual functions of eth0: made, moved, driven by igbvf, handed to user space."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from pathlib import Path

import pytest

_DEVICES = Path("/sys/bus/pci/devices")
_DRIVERS = Path("/sys/bus/pci/drivers")
_PF = _DEVICES / "0000:01:00.0"
_VFS = (_DEVICES / "0000:01:10.0", _DEVICES / "0000:01:10.2")
# linux/vfio.h
_SET_IOMMU, _GROUP_SET_CONTAINER, _GROUP_GET_DEVICE_FD = 0x3B66, 0x3B68, 0x3B6A
_TYPE1V2_IOMMU = 3
_MAC = "02:00:00:00:00:77"


@pytest.fixture(scope="module")
def vfs():
    """Two virtual functions with interfaces, their physical one up: without it they have no link."""
    _run("ip", "link", "set", "eth0", "up")
    (_PF / "sriov_numvfs").write_text("2")  # returns when both have met their driver
    yield _VFS
    (_PF / "sriov_numvfs").write_text("0")
    _run("ip", "link", "set", "eth0", "down")


def test_two_are_made_and_each_is_alone_in_its_iommu_group(vfs):
    assert sorted(link.resolve().name for link in _PF.glob("virtfn*")) == [vf.name for vf in vfs]
    for vf in vfs:
        assert (vf / "driver").resolve().name == "igbvf"
        assert [each.name for each in (vf / "iommu_group/devices").iterdir()] == [vf.name]


async def test_one_reaches_the_other_end_of_the_wire(vfs, lab, join_interfaces):
    async with join_interfaces(lab, _interface(vfs[0]), "eth1") as joined:
        assert await joined.carries()


def test_its_driver_learns_a_new_mac_when_it_is_bound_again(vfs):
    vf = vfs[1]
    _run("ip", "link", "set", "eth0", "vf", "1", "mac", _MAC)
    assert _mac(vf) != _MAC
    _bind(vf, "igbvf", "igbvf")
    assert _mac(vf) == _MAC


def test_vfio_hands_one_to_user_space_behind_the_iommu(vfs):
    vf = vfs[0]
    (vf / "driver_override").write_text("vfio-pci")
    try:
        _bind(vf, "igbvf", "vfio-pci")
        group = (vf / "iommu_group").resolve().name
        with open("/dev/vfio/vfio", "r+b", 0) as container, open(f"/dev/vfio/{group}", "r+b", 0) as opened:
            fcntl.ioctl(opened, _GROUP_SET_CONTAINER, struct.pack("=i", container.fileno()))
            fcntl.ioctl(container, _SET_IOMMU, _TYPE1V2_IOMMU)
            # A bytearray: with bytes, ioctl returns those. Left open, the device would never be unbound.
            os.close(fcntl.ioctl(opened, _GROUP_GET_DEVICE_FD, bytearray(vf.name.encode() + b"\0")))
    finally:
        (vf / "driver_override").write_text("\n")
        _bind(vf, "vfio-pci", "igbvf")


def _bind(vf, old, new):
    (_DRIVERS / old / "unbind").write_text(vf.name)
    (_DRIVERS / new / "bind").write_text(vf.name)


def _run(*command):
    subprocess.run(command, check=True, capture_output=True)


def _interface(vf):
    return next((vf / "net").iterdir()).name


def _mac(vf):
    return (vf / "net" / _interface(vf) / "address").read_text().strip()
