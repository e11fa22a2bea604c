"""PROXY headers, by the sections of haproxy.org's proxy-protocol.txt; and whatever else a stranger may send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy_core.relay.proxy_header import (
    MOST_BYTES,
    SIGNATURE,
    BadHeader,
    Decoded,
    decode_v2,
    encode_v1,
    encode_v2,
)

V4 = ("192.0.2.1", 56324)
V4_TO = ("192.0.2.2", 443)
V6 = ("2001:db8::1", 56324, 0, 0)
V6_TO = ("2001:db8::2", 443, 0, 0)

ports = st.integers(0, 65535)
ipv4 = st.tuples(st.ip_addresses(v=4).map(str), ports)
ipv6 = st.tuples(st.ip_addresses(v=6).filter(lambda ip: ip.ipv4_mapped is None).map(str), ports)
pairs = st.tuples(ipv4, ipv4) | st.tuples(ipv6, ipv6)


def test_section_2_1_version_1_is_a_line_of_text() -> None:
    assert encode_v1(V4, V4_TO) == b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n"
    assert encode_v1(V6, V6_TO) == b"PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n"


def test_section_2_2_version_2_is_binary() -> None:
    assert encode_v2(V4, V4_TO) == bytes.fromhex(
        "0d0a0d0a000d0a515549540a 21 11 000c c0000201 c0000202 dc04 01bb"
    )
    assert encode_v2(V6, V6_TO) == bytes.fromhex(
        "0d0a0d0a000d0a515549540a 21 21 0024"
        "20010db8000000000000000000000001 20010db8000000000000000000000002 dc04 01bb"
    )


def test_families_that_differ_both_go_as_ipv6_and_scopes_are_left_out() -> None:
    assert encode_v1(V4, V6_TO) == b"PROXY TCP6 ::ffff:c000:201 2001:db8::2 56324 443\r\n"
    assert encode_v1(("fe80::1%eth7", 1, 0, 7), ("fe80::2", 2, 0, 7)) == b"PROXY TCP6 fe80::1 fe80::2 1 2\r\n"
    assert encode_v1(("::ffff:192.0.2.1", 1, 0, 0), V4_TO) == b"PROXY TCP4 192.0.2.1 192.0.2.2 1 443\r\n"


@given(pairs, st.binary(max_size=50))
def test_what_is_encoded_is_decoded_and_the_stream_begins_after_it(pair, rest) -> None:
    header = encode_v2(*pair)
    assert decode_v2(header + rest) == Decoded(len(header), *pair)


@given(pairs)
def test_every_truncation_needs_more(pair) -> None:
    header = encode_v2(*pair)
    assert [decode_v2(header[:size]) for size in range(len(header))] == [None] * len(header)


def test_section_2_2_1_tlvs_are_passed_over() -> None:
    tlv = b"\x03\x00\x04abcd"
    header = encode_v2(V4, V4_TO)
    with_tlv = header[:14] + (12 + len(tlv)).to_bytes(2, "big") + header[16:] + tlv
    assert decode_v2(with_tlv + b"GET") == Decoded(len(with_tlv), V4, V4_TO)


@pytest.mark.parametrize(
    "head", ["20 00 0000", "20 11 0000", "21 00 0000", "21 00 0003 010203", f"21 31 00d8 {'61' * 216}"]
)
def test_local_unspec_and_unix_name_nobody(head) -> None:
    header = SIGNATURE + bytes.fromhex(head)
    assert decode_v2(header) == Decoded(len(header), None, None)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1\r\n", "no PROXY header"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n", "no PROXY header"),
        (b"\r\n\r\n\0\r\nQUIT\r", "no PROXY header"),
        (SIGNATURE + b"\x11", "version or command"),
        (SIGNATURE + b"\x22", "version or command"),
        (SIGNATURE + b"\x21\x41", "family or protocol"),
        (SIGNATURE + b"\x21\x11\x00\x0b", "too short"),
        (SIGNATURE + b"\x21\x21\x00\x0c", "too short"),
        (SIGNATURE + b"\x21\x11\xff\xff", "longer than"),
    ],
)
def test_everything_else_is_refused_as_soon_as_it_shows(data, why) -> None:
    with pytest.raises(BadHeader, match=why):
        decode_v2(data)


@given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda tail: SIGNATURE + tail))
def test_nothing_a_stranger_sends_raises_anything_else(data) -> None:
    try:
        header = decode_v2(data)
    except BadHeader:
        return
    assert header is None or 16 <= header.length <= min(len(data), MOST_BYTES)
