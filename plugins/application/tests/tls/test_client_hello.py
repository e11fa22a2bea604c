"""ClientHellos: what `ssl` sends is read as it meant it, and nothing else gets through, or out."""

import contextlib
import ssl
import string
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy_application.tls.client_hello import (
    MOST_BYTES,
    MOST_RECORDS,
    ClientHello,
    HelloReader,
    Unread,
)
from marchproxy_application.tls.noise import silence_bad_names

LABELS = st.text(string.ascii_letters + string.digits, min_size=1, max_size=20)
NAMES = st.lists(LABELS, min_size=2, max_size=4).map(".".join).filter(lambda name: name[-1].isalpha())
PROTOCOLS = st.lists(st.sampled_from(["h2", "http/1.1", "spdy/3", "x" * 255]), max_size=4)


def sent_by_ssl(name, protocols=(), most=ssl.TLSVersion.TLSv1_3):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.maximum_version = most
    if protocols:
        context.set_alpn_protocols(protocols)
    out = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name).do_handshake()
    return out.read()


def read(data):
    return HelloReader().feed(data)


def record(fragment, kind=22, version=b"\x03\x01"):
    return bytes([kind]) + version + len(fragment).to_bytes(2) + fragment


def vector(size, data):
    return len(data).to_bytes(size) + data


def extension(number, data):
    return number.to_bytes(2) + vector(2, data)


def server_name(name, kind=0):
    return extension(0, vector(2, bytes([kind]) + vector(2, name)))


def alpn(*protocols):
    return extension(16, vector(2, b"".join(vector(1, protocol) for protocol in protocols)))


def hello(*extensions, version=b"\x03\x03", session=b"", suites=b"\x13\x01", methods=b"\0", behind=b""):
    body = version + bytes(32) + vector(1, session) + vector(2, suites) + vector(1, methods)
    if extensions:
        body += vector(2, b"".join(extensions))
    return b"\x01" + vector(3, body + behind)


@given(name=st.none() | NAMES, protocols=PROTOCOLS)
@pytest.mark.parametrize("most", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_what_ssl_sends_is_read_as_it_meant_it(most, name, protocols):
    read_ = read(sent_by_ssl(name, protocols, most))
    assert read_ == ClientHello(name and name.lower(), tuple(one.encode() for one in protocols))


@given(data=st.data())
def test_however_it_is_cut_it_says_the_same(data):
    whole = sent_by_ssl("www.example.com", ["h2"])
    message = whole[5:]
    cuts = sorted(data.draw(st.sets(st.integers(1, len(message) - 1), max_size=20)))
    parts = [message[a:b] for a, b in zip([0, *cuts], [*cuts, len(message)], strict=True)]
    stream = b"".join(map(record, parts))
    reader = HelloReader()
    at = 0
    while at < len(stream):
        size = data.draw(st.integers(1, 200))
        result = reader.feed(stream[at : at + size])
        at += size
        assert (result is Unread.NEED_MORE) == (at < len(stream))
    assert result == ClientHello("www.example.com", (b"h2",))


@given(st.binary(max_size=600))
def test_garbage_gives_a_value(data):
    assert isinstance(read(data), ClientHello | Unread)
    assert isinstance(read(record(data + b"x")), ClientHello | Unread)
    assert isinstance(read(record(b"\x01" + vector(3, data))), ClientHello | Unread)


@given(at=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_one_wrong_byte_gives_a_value(at, byte):
    data = bytearray(sent_by_ssl("www.example.com", ["h2", "http/1.1"]))
    data[at % len(data)] = byte
    assert isinstance(read(bytes(data)), ClientHello | Unread)


@given(at=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_name_that_is_read_is_the_one_that_openssl_reads(at, byte):
    data = bytearray(sent_by_ssl("www.example.com", ["h2"]))
    data[at % len(data)] = byte
    found = read(bytes(data))
    names = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = lambda connection, name, context: names.append(name)
    into = ssl.MemoryBIO()
    into.write(bytes(data))
    before = sys.unraisablehook
    try:
        silence_bad_names()
        with contextlib.suppress(ssl.SSLError):
            context.wrap_bio(into, ssl.MemoryBIO(), server_side=True).do_handshake()
    finally:
        sys.unraisablehook = before
    if names and isinstance(found, ClientHello):
        assert found.server_name == (names[0] and names[0].lower())


def test_what_comes_behind_is_not_looked_at():
    assert read(record(hello(server_name(b"a.test"))) + b"\x17early data") == ClientHello("a.test", ())


def test_an_old_client_sends_no_extensions():
    assert read(record(hello())) == ClientHello(None, ())


def test_an_answer_stays():
    reader = HelloReader()
    first = reader.feed(record(hello(server_name(b"a.test"))))
    assert reader.feed(record(hello(server_name(b"b.test")))) is first


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x02",
        b"PROXY TCP4",
        record(b"x", kind=23),
        record(b"x", version=b"\x02\x00"),
        record(b""),
        b"\x16\x03\x01\x40\x01",
        b"\x80\x2e\x01\x00\x02",  # SSL 2
    ],
)
def test_not_tls(data):
    assert read(data) is Unread.NOT_TLS


@pytest.mark.parametrize(
    "message",
    [
        hello()[:1] + b"\0\0\0",
        b"\x02" + hello()[1:],
        hello(version=b"\x02\x00"),
        hello(session=bytes(33)),
        hello(suites=b""),
        hello(suites=b"\x13\x01\x13"),
        hello(methods=b""),
        hello(methods=b"\x01"),
        hello(server_name(b"a.test"), server_name(b"a.test")),
        hello(server_name(b"a.test"), behind=b"x"),
        hello(behind=b"\0"),
        hello(server_name(b"a.test", kind=1)),
        hello(server_name(b"")),
        hello(extension(0, b"")),
        hello(extension(0, vector(2, b""))),
        hello(extension(0, vector(2, b"\0" + vector(2, b"a.test")) + b"x")),
        hello(extension(0, vector(2, (b"\0" + vector(2, b"a.test")) * 2))),
        *[
            hello(server_name(name))
            for name in (b"a.test.", b".a", b"a..b", b"a b", b"a\0b", b"\xc3\xa4.test", b"a/b", b"a" * 64)
        ],
        hello(server_name(b"a." * 126 + b"ab")),
        hello(extension(16, b"")),
        hello(extension(16, vector(2, b""))),
        hello(alpn(b"")),
        hello(alpn(b"h2", b"")),
        hello(extension(16, vector(2, vector(1, b"h2")) + b"x")),
        hello(extension(16, vector(2, b"\x03h2"))),
        hello() + b"\x01",
        hello() + hello(),
    ],
)
def test_malformed(message):
    assert read(record(message)) is Unread.MALFORMED


def test_another_message_is_known_by_its_first_byte():
    assert read(record(b"\x02" + bytes(50))[:6]) is Unread.MALFORMED


def test_another_record_may_not_come_between():
    message = hello(server_name(b"a.test"))
    assert read(record(message[:9]) + record(b"\x01", kind=20)) is Unread.MALFORMED


def test_its_size_is_bounded():
    assert read(record(b"\x01" + (MOST_BYTES + 1).to_bytes(3))) is Unread.TOO_LARGE
    padding = MOST_BYTES - len(hello(extension(21, b""))) + 4
    message = hello(extension(21, bytes(padding)))
    assert len(message) == MOST_BYTES + 4
    assert read(record(message[:9000]) + record(message[9000:])) == ClientHello(None, ())


def test_the_number_of_records_is_bounded():
    message = hello(server_name(b"a.test"), extension(21, bytes(500)))
    singles = [record(message[at : at + 1]) for at in range(MOST_RECORDS)]
    assert read(b"".join(singles[:-1]) + record(message[MOST_RECORDS - 1 :])) == ClientHello("a.test", ())
    assert read(b"".join(singles)) is Unread.TOO_LARGE
