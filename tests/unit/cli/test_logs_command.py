import io
import json
import os
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from marchproxy_core.cli import log_files
from marchproxy_core.cli.log_files import follow_lines, read_lines
from marchproxy_core.cli.log_lines import (
    MAX_LINE_BYTES,
    SHOWN_BYTES,
    Line,
    LineSplitter,
    LogFilter,
    parse,
    parse_moment,
)

NOW = datetime(2026, 5, 6, 12, 0, tzinfo=UTC)
LINES = [
    {"event": "tier.attached", "level": "info", "timestamp": "2026-05-06T10:00:00Z", "tier": "xdp"},
    {
        "event": "tier.demoted",
        "level": "warning",
        "timestamp": "2026-05-06T11:00:00Z",
        "tier": "xdp",
        "reason": "hung",
    },
    {
        "event": "service.moved",
        "level": "info",
        "timestamp": "2026-05-06T11:00:01Z",
        "service": "web",
        "tier": "ebpf",
    },
    {"event": "backend.went_down", "level": "error", "timestamp": "2026-05-06T11:59:00Z", "service": "web"},
    {"event": "connection.ended", "level": "debug", "timestamp": "2026-05-06T11:59:30Z", "service": "dns"},
]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.log"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return path


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], [0, 1, 2, 3, 4]),
        (["--level", "warning"], [1, 3]),
        (["--level", "debug"], [0, 1, 2, 3, 4]),
        (["--event", "tier.*"], [0, 1]),
        (["--event", "*.went_down"], [3]),
        (["--event", "tier.demoted"], [1]),
        (["--tier", "xdp"], [0, 1]),
        (["--service", "web"], [2, 3]),
        (["--service", "web", "--tier", "ebpf"], [2]),
        (["--since", "2026-05-06T11:00:01"], [2, 3, 4]),
        (["--since", "2026-05-06T13:00:01+02:00"], [2, 3, 4]),
        (["--until", "2026-05-06T11:00:00Z"], [0, 1]),
        (["--since", "2026-05-06T10:30:00", "--until", "2026-05-06T11:30:00", "--level", "warning"], [1]),
    ],
)
def test_filters(invoke, file, options, expected):
    result = invoke("logs", "--json", *options, file)
    assert result.exit_code == 0
    assert [json.loads(line) for line in result.stdout.splitlines()] == [LINES[index] for index in expected]


def test_for_people_a_line_has_time_level_event_and_keys(invoke, file):
    lines = invoke("logs", file).stdout.splitlines()
    assert lines[1].split() == [
        "2026-05-06",
        "11:00:00.000",
        "warning",
        "tier.demoted",
        "tier=xdp",
        "reason=hung",
    ]


def test_standard_input_and_several_files(invoke, file):
    text = file.read_text()
    assert len(invoke("logs", "--json", input=text).stdout.splitlines()) == 5
    assert len(invoke("logs", "--json", file, "-", file, input=text).stdout.splitlines()) == 15


def test_lines_that_are_not_ours_are_marked_counted_and_harmless(invoke, tmp_path):
    path = tmp_path / "a.log"
    foreign = [
        "Traceback (most recent call last):",
        "\x1b[2J[bold]x",
        "[1, 2]",
        "{}",
        '{"event": 5}',
        "{" * 100000,
        "\ud800",
    ]
    path.write_bytes(
        b"".join(line.encode("utf-8", "surrogatepass") + b"\n" for line in [*foreign, json.dumps(LINES[0])])
    )
    result = invoke("logs", path)
    assert result.exit_code == 0
    shown = result.stdout.splitlines()
    assert shown[0] == "not JSON | Traceback (most recent call last):"
    assert shown[1] == "not JSON | \\x1b[2J[bold]x"
    assert "tier.attached" in shown[-1]
    assert result.stderr == "7 lines were not JSON log lines\n"
    for option in (["--json"], ["--tier", "xdp"]):
        filtered = invoke("logs", *option, path)
        assert (len(filtered.stdout.splitlines()), filtered.stderr) == (1, result.stderr)


def test_control_characters_in_json_never_reach_the_terminal(invoke, tmp_path):
    path = tmp_path / "a.log"
    raw = (
        '{"event": "backend.went_down\x7f", "error": "\\u001b[2J\\n\\u202e", "raw": "\x9b31m",'
        ' "exception": "a\\n\\u001bb"}\n'
    )
    path.write_text(raw)
    for options in ([], ["--json"]):
        out = invoke("logs", *options, path).stdout
        assert not [c for c in out if (ord(c) < 32 and c != "\n") or 0x7F <= ord(c) < 0xA0 or c == "\u202e"]
    assert json.loads(invoke("logs", "--json", path).stdout) == json.loads(raw)
    assert invoke("logs", path).stdout.splitlines()[1:] == ["    a", "    \\x1bb"]


def test_huge_line_is_bounded_and_the_next_one_is_whole(invoke, tmp_path):
    path = tmp_path / "a.log"
    path.write_bytes(b"x" * (3 * MAX_LINE_BYTES) + b"\n" + json.dumps(LINES[0]).encode())
    result = invoke("logs", path)
    first, second = result.stdout.splitlines()
    assert first.endswith(f"x … and {3 * MAX_LINE_BYTES - SHOWN_BYTES} bytes more")
    assert "tier.attached" in second


def test_splitter_holds_no_more_than_its_bound():
    splitter = LineSplitter()
    for _ in range(100):
        assert splitter.feed(b"x" * 65536) == []
        assert len(splitter._part) <= MAX_LINE_BYTES
    assert splitter.feed(b"\n") == [Line("x" * SHOWN_BYTES, 100 * 65536 - SHOWN_BYTES)]


@given(st.lists(st.binary(max_size=20)))
def test_lines_do_not_depend_on_how_they_come(blocks):
    splitter = LineSplitter()
    lines = [line for block in blocks for line in splitter.feed(block)] + splitter.flush()
    whole = b"".join(blocks)
    expected = whole.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert [line.text for line in lines] == [
        one.removesuffix(b"\r").decode("utf-8", "replace") for one in expected
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(
    st.dictionaries(st.sampled_from(["event", "level", "timestamp", "tier", "exception"]) | st.text(), JSON)
)
def test_any_json_can_be_parsed_filtered_and_painted(data):
    from marchproxy_core.cli.show_logs import paint

    entry = parse(Line(json.dumps(data)))
    if entry is not None:
        LogFilter(level="info", event="a*", tier="x", since=NOW, until=NOW).passes(entry)
        assert "\x1b" not in paint(entry).plain


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("10m", NOW - timedelta(minutes=10)),
        ("2 h", NOW - timedelta(hours=2)),
        ("1d", NOW - timedelta(days=1)),
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T12:00:00+01:00", datetime(2026, 1, 31, 11, tzinfo=UTC)),
    ],
)
def test_moments(text, expected):
    assert parse_moment(text, NOW) == expected


@given(st.text() | st.from_regex(r"[0-9]{1,9}[smhdx]", fullmatch=True))
def test_a_moment_is_read_or_refused_with_what_is_wanted(text):
    try:
        moment = parse_moment(text, NOW)
    except ValueError as error:
        said = str(error)
    else:
        said = f"10m {moment:%z}"
    assert "10m" in said


def test_read_lines_takes_any_binary_stream():
    assert [line.text for line in read_lines(io.BytesIO(b"a\r\nb"))] == ["a", "b"]


@pytest.fixture
async def following(file, monkeypatch):
    """Return a call for the next line of the file that is followed."""
    monkeypatch.setattr(log_files, "POLL_S", 0.01)
    async with aclosing(follow_lines(file)) as lines:

        async def following():
            with trio.fail_after(5):
                return (await anext(lines)).text

        for expected in LINES:
            assert json.loads(await following()) == expected
        yield following


async def test_follow_sees_what_is_added_once_the_line_ends(following, file):
    with file.open("a") as writer:
        writer.write("first")
        writer.flush()
        writer.write(" line\nsecond\n")
        writer.flush()
    assert [await following(), await following()] == ["first line", "second"]


async def test_follow_reads_a_rotated_file_to_its_end_then_the_new_one(following, file, tmp_path):
    with file.open("a") as writer:
        file.rename(tmp_path / "a.log.1")
        writer.write("late\nlast, without an end")
        writer.flush()
        file.write_text("new\n")
    assert [await following() for _ in range(3)] == ["late", "last, without an end", "new"]


async def test_follow_waits_while_the_file_is_away(following, file, tmp_path):
    file.rename(tmp_path / "a.log.1")

    async def bring_back():
        await trio.sleep(0.05)
        file.write_text("back\n")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bring_back)
        assert await following() == "back"


async def test_follow_starts_again_when_the_file_is_cut(following, file):
    os.truncate(file, 0)

    async with trio.open_nursery() as nursery:

        async def write():
            await trio.sleep(0.05)
            with file.open("a") as writer:
                writer.write("anew\n")

        nursery.start_soon(write)
        assert await following() == "anew"


async def test_follow_keeps_one_descriptor_over_rotations(following, file, tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    for number in range(5):
        file.rename(tmp_path / f"a.log.{number}")
        file.write_text(f"{number}\n")
        assert await following() == str(number)
    assert len(os.listdir("/proc/self/fd")) == before
