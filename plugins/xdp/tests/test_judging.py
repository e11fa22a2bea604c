"""Which interface can have the program, at what loss, and how it is built for it."""

from __future__ import annotations

import pytest

from marchproxy_core.bpf import XdpHolder, XdpMode
from marchproxy_core.config import XdpMode as Wish
from marchproxy_xdp.interfaces import Feature, Place
from marchproxy_xdp.judging import (
    MOST_IN_PIECES,
    PAGE_MTU,
    Build,
    build_for,
    loss_on,
    mode_for,
    needs_of,
    xmit_need,
)

_DRIVER = Feature.BASIC | Feature.REDIRECT
_ALL = _DRIVER | Feature.NDO_XMIT | Feature.RX_SG | Feature.NDO_XMIT_SG
NEW, OLD = (6, 18, 0), (5, 15, 0)


def place(driver="igb", features=_ALL, **more):
    return Place(**{"index": 3, "name": "eth0", "mtu": 1500, "driver": driver, "features": features, **more})


def needs(one, mode=XdpMode.DRIVER):
    return [need.need for need in needs_of(one, mode)]


def test_a_nic_with_native_xdp_needs_nothing_and_loses_nothing():
    assert needs(place(features=_DRIVER)) == []
    assert loss_on(place(), XdpMode.DRIVER) == ""


@pytest.mark.parametrize(
    ("one", "need"),
    [
        (place(features=Feature(0)), "XDP in the driver of eth0"),
        (place(lro=True), "LRO off on eth0"),
        (place(features=_DRIVER, mtu=9000), f"an MTU of {PAGE_MTU} at most on eth0"),
        (place("veth", mtu=16000), f"an MTU of {MOST_IN_PIECES - 64} at most on eth0"),
        (place("veth", features=_DRIVER), "a veth eth0 whose peer takes redirected frames"),
        (
            place(held_by=(XdpHolder(mode="driver", program_id=7, name="xdp_dispatcher", link_id=None),)),
            "eth0 without somebody else's XDP program",
        ),
    ],
)
def test_what_stands_against_an_interface_is_said_with_its_cure(one, need):
    (found,) = needs_of(one, XdpMode.DRIVER)
    assert found.need.startswith(need)
    assert found.fix
    assert found.met is False


def test_libxdps_dispatcher_is_called_by_its_name():
    holder = XdpHolder(mode="driver", program_id=7, name="xdp_dispatcher", link_id=None)
    (found,) = needs_of(place(held_by=(holder,)), XdpMode.DRIVER)
    assert "libxdp's dispatcher" in found.have


def test_large_frames_are_taken_where_the_driver_takes_them_in_pieces():
    assert needs(place(mtu=9000)) == needs(place("veth", mtu=9000)) == []


def test_a_kernel_that_does_not_tell_is_asked_by_attaching():
    assert needs(place(features=None, mtu=9000)) == []
    assert mode_for(None, [place(features=None)]) is XdpMode.DRIVER


def test_generic_mode_takes_any_interface_that_is_free():
    assert needs(place(features=Feature(0), lro=True), XdpMode.GENERIC) == []
    assert loss_on(place(), XdpMode.GENERIC)


def test_the_mode_is_the_drivers_where_one_has_it():
    assert mode_for(None, [place(features=Feature(0)), place()]) is XdpMode.DRIVER
    assert mode_for(None, [place(features=Feature(0))]) is XdpMode.GENERIC
    assert mode_for(None, []) is XdpMode.DRIVER
    assert mode_for(Wish.SKB, [place()]) is XdpMode.GENERIC


@pytest.mark.parametrize(
    ("one", "mode", "kernel", "build"),
    [
        (place(), XdpMode.DRIVER, NEW, Build(partial=False, frags=True, generic=False)),
        (place(), XdpMode.DRIVER, OLD, Build(partial=False, frags=False, generic=False)),
        (place(features=_DRIVER), XdpMode.DRIVER, NEW, Build(partial=False, frags=False, generic=False)),
        (place("veth"), XdpMode.DRIVER, NEW, Build(partial=True, frags=True, generic=False)),
        (place("virtio_net"), XdpMode.DRIVER, NEW, Build(partial=True, frags=True, generic=False)),
        (place("veth"), XdpMode.GENERIC, NEW, Build(partial=True, frags=False, generic=True)),
        (place(driver=""), XdpMode.DRIVER, OLD, Build(partial=True, frags=False, generic=False)),
    ],
)
def test_each_interface_has_the_build_that_it_needs(one, mode, kernel, build):
    assert build_for(one, mode, kernel) == build


def test_frames_must_find_an_interface_that_takes_them():
    assert xmit_need([place(), place()]) is None
    assert xmit_need([place(features=None)]) is None
    lacking = xmit_need([place(), place(name="eth1", features=_DRIVER)])
    assert lacking is not None
    assert "eth1" in lacking.have
    without_pieces = place(name="eth1", features=_DRIVER | Feature.NDO_XMIT)
    assert xmit_need([place(), without_pieces]) is None
    assert xmit_need([place(mtu=9000), without_pieces]) is not None
