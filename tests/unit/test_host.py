"""Host facts are this host's, as /proc and the kernel say."""

from __future__ import annotations

import os
import platform

import attrs
import pytest

from marchproxy_core.host import _effective_capabilities, gather_again, gather_host_facts


def test_the_facts_are_those_of_this_host():
    host = gather_host_facts()
    assert host.kernel_release == platform.release()
    assert platform.release().startswith(".".join(map(str, host.kernel)))
    assert set(host.cpus) == os.sched_getaffinity(0)
    assert host.is_root == (os.geteuid() == 0)
    loopback = host.interface("lo")
    assert loopback is not None
    assert "127.0.0.1/8" in loopback.addresses
    assert host.interface("no such") is None


def test_a_later_look_keeps_the_cpus_of_the_first():
    before = attrs.evolve(gather_host_facts(), cpus=(98, 99), interfaces=())
    again = gather_again(before)
    assert again.cpus == (98, 99)
    assert again.interface("lo") is not None


@pytest.mark.parametrize(
    ("status", "names"),
    [
        ("Name:\tx\nCapEff:\t0000000000001000\n", {"CAP_NET_ADMIN"}),
        ("CapEff:\t0000008000000400\n", {"CAP_BPF", "CAP_NET_BIND_SERVICE"}),
        ("CapEff:\t0000000000000000\n", set()),
        ("nothing of the kind", set()),
    ],
)
def test_capabilities_are_read_by_bit(status, names):
    assert _effective_capabilities(status) == names
