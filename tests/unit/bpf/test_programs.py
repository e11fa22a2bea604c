"""Programs are loaded, tried out, described, and refused with a reason that can be read."""

from __future__ import annotations

import errno
import signal
import struct

import pytest

from marchproxy_core.bpf import (
    XDP_HAS_FRAGS,
    AttachType,
    BpfError,
    InstructionError,
    Map,
    MapSpec,
    MapType,
    Program,
    ProgramRefused,
    ProgramType,
    count_run_time,
    run_program,
    xdp_context,
)

pytestmark = pytest.mark.root

PACKET = bytes.fromhex("0200000000010200000000020800") + bytes(46)
XDP_PASS, XDP_TX = 2, 3
LOOPBACK = 1


@pytest.fixture
def counts(opened):
    return opened(Map.create(MapSpec(name="counts", type=MapType.ARRAY, value_size=8, max_entries=3)))


@pytest.fixture
def load(opened, compiled, counts):
    def load(function, kind=ProgramType.XDP, **more):
        return opened(Program.load(compiled(function), kind, **{"maps": [counts], "name": function} | more))

    return load


def test_a_program_counts_into_the_map_that_it_was_given(load, counts):
    run = run_program(load("pass_in_slot_1"), PACKET, repeat=1000)
    assert run.retval == XDP_PASS
    assert run.data_out == PACKET
    assert run.duration_ns > 0
    assert counts.lookup(struct.pack("=I", 1)) == struct.pack("=Q", 1000)


def test_what_a_program_wrote_comes_back(load):
    run = run_program(load("send_to_sender"), PACKET)
    assert (run.retval, run.data_out) == (XDP_TX, b"\xfd" + PACKET[1:])


def test_a_context_comes_back_too(load):
    context = xdp_context(len(PACKET), interface=LOOPBACK)
    run = run_program(load("pass_in_slot_0"), PACKET, ctx_in=context)
    assert run.ctx_out == context
    with pytest.raises(BpfError, match="EINVAL"):
        run_program(load("pass_in_slot_0"), PACKET, ctx_in=xdp_context(len(PACKET) + 1, interface=LOOPBACK))


def test_a_filter_runs_as_well(load, counts):
    run = run_program(load("filter_in_slot_0", ProgramType.SCHED_CLS), PACKET)
    assert run.retval == 0xFFFFFFFF  # TC_ACT_UNSPEC, -1
    assert counts.lookup(struct.pack("=I", 0)) == struct.pack("=Q", 1)


def test_a_packet_without_an_ethernet_header_is_refused(load):
    with pytest.raises(BpfError, match="test run: BPF_PROG_TEST_RUN failed: EINVAL"):
        run_program(load("pass_in_slot_0"), b"short")


def test_the_kernel_says_what_a_program_is(load):
    info = load("pass_in_slot_0", name="name_that_is_long").info()
    assert (info.name, info.type) == ("name_that_is_lo", ProgramType.XDP)
    assert info.id > 0
    assert len(bytes.fromhex(info.tag)) == 8


def test_runs_are_counted_while_it_is_asked_for(load, opened):
    program = load("pass_in_slot_0")
    run_program(program, PACKET, repeat=10)
    assert program.info().run_count == 0
    with count_run_time():
        run_program(program, PACKET, repeat=10)
    info = program.info()
    assert info.run_count == 10
    assert info.run_time_ns > 0
    assert info.verified_instructions > 0


def test_a_program_is_opened_by_its_id(load, opened):
    program = load("pass_in_slot_0")
    assert opened(Program.open_id(program.info().id)).info() == program.info()
    with pytest.raises(BpfError, match="ENOENT"):
        Program.open_id(0x7FFFFFFF)


def test_flags_and_attach_type_reach_the_kernel(load):
    assert load("pass_in_slot_0", flags=XDP_HAS_FRAGS, expected_attach_type=AttachType.XDP)
    with pytest.raises(BpfError, match="EINVAL"):
        load("filter_in_slot_0", ProgramType.SCHED_CLS, flags=1 << 31)


def test_the_verifier_says_why_it_refuses(load):
    with pytest.raises(ProgramRefused) as refused:
        load("read_beyond")
    assert refused.value.errno == errno.EACCES
    said = str(refused.value)
    assert said.startswith("program read_beyond: the verifier refused it: EACCES, Permission denied\n")
    assert "invalid access to packet" in said


def test_only_the_end_of_a_long_log_is_shown(opened):
    # r0 = 0, a thousand times, and then a register that has no value.
    code = struct.pack("=BBhi", 0xB7, 0, 0, 0) * 1000 + struct.pack("=BBhi", 0xBF, 0x50, 0, 0)
    with pytest.raises(ProgramRefused) as refused:
        Program.load(code + struct.pack("=BBhi", 0x95, 0, 0, 0), ProgramType.XDP, name="long")
    lines = str(refused.value).splitlines()
    assert len(lines) == 27
    assert lines[1].endswith("lines omitted)")
    assert any("R5 !read_ok" in line for line in lines)
    assert len(refused.value.log.splitlines()) > 1000


def test_a_log_of_many_megabytes_is_read_to_its_end(opened):
    # A loop that the verifier walks through 100,000 times before it meets the error.
    code = struct.pack("=BBhi", 0xB7, 0, 0, 0)
    code += struct.pack("=BBhi", 0x07, 0, 0, 1)  # r0 += 1
    code += struct.pack("=BBhi", 0xA5, 0, -2, 100_000)  # if r0 < 100000 goto -2
    code += struct.pack("=BBhi", 0xBF, 0x50, 0, 0) + struct.pack("=BBhi", 0x95, 0, 0, 0)
    with pytest.raises(ProgramRefused, match="R5 !read_ok"):
        Program.load(code, ProgramType.XDP, name="loop")


def test_a_signal_while_the_verifier_works_is_handled_and_harmless(opened):
    # Some tens of milliseconds of work: a million instructions are what the verifier takes at most.
    code = struct.pack("=BBhi", 0xB7, 0, 0, 0) + struct.pack("=BBhi", 0x07, 0, 0, 1)
    code += struct.pack("=BBhi", 0xA5, 0, -2, 400_000) + struct.pack("=BBhi", 0x95, 0, 0, 0)
    heard = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: heard.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.005)
        opened(Program.load(code, ProgramType.XDP, name="long"))
        while not heard:
            signal.sigtimedwait([signal.SIGALRM], 0.01)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert heard == [signal.SIGALRM]


def test_a_map_that_is_not_there_is_named(load):
    with pytest.raises(
        InstructionError, match=r"program pass_in_slot_0, instruction .*: need map 0, have 0 maps"
    ):
        load("pass_in_slot_0", maps=[])
