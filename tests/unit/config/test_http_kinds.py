"""Hosts, paths and header lines as they are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy_core.config.http_kinds import (
    FRAMING,
    ClientKey,
    ForwardedClaim,
    HeaderLine,
    HeaderName,
    Host,
    PathPrefix,
    Share,
)
from marchproxy_core.config.problems import Misread

KINDS = (Host(), PathPrefix(), HeaderName(), HeaderLine(), ForwardedClaim(), ClientKey(), Share())
PIECES = st.sampled_from(
    ["/", ".", "..", "%", "%2e", "%2F", "%41", "a", "~", "?", " ", "é", ":", "x", "[", "]", "*"]
)
ODD_TEXTS = st.text(max_size=30) | st.lists(PIECES, max_size=12).map("".join)


def refusal(kind: Host | PathPrefix | HeaderName | HeaderLine, text: str) -> Misread:
    with pytest.raises(Misread) as caught:
        kind.parse(text)
    return caught.value


def is_taken(kind: PathPrefix | HeaderLine, text: str) -> bool:
    try:
        kind.parse(text)
    except ValueError:
        return False
    return True


@given(st.sampled_from(KINDS), ODD_TEXTS)
def test_whatever_is_written_reads_back_or_is_refused(
    kind: Host | PathPrefix | HeaderName | HeaderLine | ForwardedClaim | ClientKey | Share, text: str
) -> None:
    try:
        value = kind.parse(text)
    except ValueError:
        return
    shown = kind.show(value)  # type: ignore[arg-type]
    assert kind.parse(shown) == value
    assert all(" " <= letter <= "~" for letter in shown)


@given(st.lists(PIECES, max_size=12).map(lambda pieces: "/" + "".join(pieces)))
def test_the_normal_form_of_a_path_is_taken_and_no_other(text: str) -> None:
    normal = _normal(text)
    if normal is None:
        assert set(text) & set("? é[]*")
    else:
        assert _normal(normal) == normal
        assert not set(normal.split("/")) & {".", ".."}


def _normal(path: str) -> str | None:
    """The normal form of a path by what is taken and what is told instead; None where it is no path."""
    try:
        return PathPrefix().parse(path)
    except Misread as error:
        return error.nearest
    except ValueError:
        return None


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("/a/../b", "/b"),
        ("/..", "/"),
        ("/a/.", "/a/"),
        ("/%41%7e", "/A~"),
        ("/%2e%2e/b", "/b"),
        ("/a%2fb", "/a%2Fb"),
        ("/100%", "/100%25"),
    ],
)
def test_another_form_of_a_path_is_told_its_normal_one(text: str, normal: str) -> None:
    assert refusal(PathPrefix(), text).nearest == normal


@pytest.mark.parametrize("text", ["", "a", "*", "/a?b", "/a b", "/a#b", "/ä", "/a\\b"])
def test_what_is_no_path(text: str) -> None:
    assert not is_taken(PathPrefix(), text)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("Example.COM", "example.com"),
        ("*.Example.com", "*.example.com"),
        ("localhost", "localhost"),
        ("_dmarc.a", "_dmarc.a"),
        ("192.0.2.1", "192.0.2.1"),
        ("[2001:DB8:0::1]", "[2001:db8::1]"),
    ],
)
def test_hosts_are_in_small_letters(text: str, host: str) -> None:
    assert Host().parse(text) == host


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("a.example:80", "a.example"),
        ("a.example.", "a.example"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("*", None),
        ("a.*.example", None),
        ("-a.example", None),
        ("a..example", None),
        ("http://a.example", None),
        ("a" * 64, None),
        (".".join(["a" * 63] * 4), None),
    ],
)
def test_what_is_no_host_and_what_was_probably_meant(text: str, near: str | None) -> None:
    assert refusal(Host(), text).nearest == near


@pytest.mark.parametrize("name", sorted(FRAMING))
def test_no_rule_touches_what_says_where_a_message_ends(name: str) -> None:
    for spelt in (name, name.title(), name.upper()):
        assert spelt in str(refusal(HeaderName(), spelt).want)
        assert spelt in str(refusal(HeaderLine(), f"{spelt}: x").want)


@pytest.mark.parametrize("line", ["X-A", "X A: b", ": b", "X-A: b\0", "X-A: b\rX-B: c", "X-Ä: b", "X-A: ä"])
def test_what_is_no_header(line: str) -> None:
    assert not is_taken(HeaderLine(), line)


def test_a_claim_may_be_called_by_a_url() -> None:
    assert ForwardedClaim().parse("https://a.example/roles: X-Roles") == (
        "https://a.example/roles",
        "X-Roles",
    )


@pytest.mark.parametrize(
    ("text", "share"), [("on", 1), ("off", 0), ("1", 1), ("0", 0), ("0.25", 0.25), ("yes", 1), ("false", 0)]
)
def test_shares_are_numbers_or_all_or_nothing(text: str, share: float) -> None:
    assert Share().parse(text) == share
