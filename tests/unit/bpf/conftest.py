"""What the tests of BPF share: compiled programs, and everything that was opened closed again."""

from __future__ import annotations

import contextlib
import os

import pytest

from marchproxy_core.bpf import compile_program
from marchproxy_core.testing.pytest_plugin import leave_out

SOURCE = """
#include <marchproxy/bpf_map.h>
#include <uapi/linux/if_ether.h>
#include <uapi/linux/pkt_cls.h>

static __always_inline int counted(u32 slot, int verdict) {
    u64 *count = bpf_map_lookup_elem(BPF_MAP(0), &slot);
    if (count)
        __sync_fetch_and_add(count, 1);
    return verdict;
}

int pass_in_slot_0(struct xdp_md *context) { return counted(0, XDP_PASS); }
int pass_in_slot_1(struct xdp_md *context) { return counted(1, XDP_PASS); }
int drop_in_slot_2(struct xdp_md *context) { return counted(2, XDP_DROP); }
int filter_in_slot_0(struct __sk_buff *packet) { return counted(0, TC_ACT_UNSPEC); }
int filter_in_slot_1(struct __sk_buff *packet) { return counted(1, TC_ACT_UNSPEC); }

int send_to_sender(struct xdp_md *context) {
    void *data = (void *)(long)context->data, *end = (void *)(long)context->data_end;
    struct ethhdr *ethernet = data;
    if ((void *)(ethernet + 1) > end)
        return XDP_DROP;
    ethernet->h_dest[0] ^= 0xff;
    return XDP_TX;
}

int send_out(struct xdp_md *context) { return bpf_redirect(INTERFACE, 0); }

int read_beyond(struct xdp_md *context) { return *(u8 *)(long)context->data; }
"""

FUNCTIONS = (
    "pass_in_slot_0",
    "pass_in_slot_1",
    "drop_in_slot_2",
    "filter_in_slot_0",
    "filter_in_slot_1",
    "send_to_sender",
    "send_out",
    "read_beyond",
)


@pytest.fixture
def opened():
    """Close what is passed through here, the last first."""
    with contextlib.ExitStack() as stack:
        yield stack.enter_context


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="session")
def compiled(cache):
    """The instructions of the programs above; ``interface`` is where ``send_out`` sends."""

    def compiled(function, interface=0):
        return compile_program(SOURCE, functions=FUNCTIONS, defines={"INTERFACE": interface}, cache=cache)[
            function
        ]

    return compiled


@pytest.fixture(scope="session")
def without_root():
    """Become a user without rights in a child process: what to put before a command."""
    if os.geteuid() != 0:
        leave_out("needs root: to become somebody without rights")
    return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
