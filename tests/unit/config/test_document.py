"""YAML with lines: what is accepted, what is refused, and that nothing hostile gets through."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from marchproxy_core.config import document
from marchproxy_core.config.document import Entries, Items, Scalar, parse, read_file
from marchproxy_core.config.problems import Problems
from marchproxy_core.errors import ConfigError


def errors(text: bytes | str) -> list[str]:
    problems = Problems("f.yaml")
    with contextlib.suppress(ConfigError):
        parse(text.encode() if isinstance(text, str) else text, problems)
    return [str(problem) for problem in problems.found]


def plain(node: document.Node | None) -> object:
    if isinstance(node, Entries):
        return {key: plain(value) for key, (_, value) in node.entries.items()}
    if isinstance(node, Items):
        return [plain(item) for item in node.items]
    return None if node is None or node.is_null else node.text


@pytest.fixture(params=["c", "python"], autouse=True)
def _both_parsers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "python":
        monkeypatch.setattr(document, "_LOADER", yaml.SafeLoader)
    else:
        assert yaml.__with_libyaml__, "PyYAML was built without libyaml"


def test_scalars_stay_text_and_know_their_lines() -> None:
    root = parse(b"a: 0x3\nb: [on, '012']\nc:\n", Problems("f"))
    assert plain(root) == {"a": "0x3", "b": ["on", "012"], "c": None}
    assert isinstance(root, Entries)
    assert [node.line for _, node in root.entries.values()] == [1, 2, 3]


def test_an_empty_quoted_text_is_not_null() -> None:
    assert plain(parse(b"a: ''\nb: ~\n", Problems("f"))) == {"a": "", "b": None}


@pytest.mark.parametrize("text", ["", "\n# nothing\n", "---\n", "\ufeff"])
def test_an_empty_document_is_none(text: str) -> None:
    assert parse(text.encode(), Problems("f")) is None


def test_merge_keys_give_way_to_own_keys() -> None:
    text = b"base: &b {x: 1, y: 1}\nmore: &m {y: 2, z: 2}\none: {<<: [*b, *m], x: 3}\n"
    root = plain(parse(text, Problems("f")))
    assert isinstance(root, dict)
    assert root["one"] == {"x": "3", "y": "1", "z": "2"}


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("a: 1\nb: 2\na: 3\n", 'f.yaml:3: YAML: got the key "a" again, want it once; the first is on line 1'),
        ("a: 1\n---\nb: 2\n", "f.yaml:2: YAML: got a second document, want one document"),
        (
            "a: !!python/object:os.system x\n",
            'f.yaml:1: YAML: got the tag "tag:yaml.org,2002:python/object:os.system", '
            "want plain values without tags",
        ),
        (
            "a: !!binary aGk=\n",
            'f.yaml:1: YAML: got the tag "tag:yaml.org,2002:binary", want plain values without tags',
        ),
        ("? [a, b]\n: c\n", "f.yaml:1: YAML: got a list or mapping as a key, want a name"),
        ("a: *gone\n", 'f.yaml:1: YAML: got "*gone", want an anchor that ended above'),
        ("a: &x [*x]\n", 'f.yaml:1: YAML: got "*x inside itself", want an anchor that ended above'),
        ("a:\n  <<: 3\n", "f.yaml:2: YAML: got << with something else, want << with mappings"),
        ("[" * 100, "f.yaml:1: YAML: got deeper nesting, want at most 32 levels"),
        ("a\n b: \x07\n", "f.yaml:2: file: got the character U+0007, want printable text"),
    ],
)
def test_what_is_refused(text: str, want: str) -> None:
    assert errors(text) == [want]


def test_not_utf8_names_the_line_of_the_byte() -> None:
    assert errors(b"a: 1\nb: \xff\n") == ["f.yaml:2: file: got the byte 0xff, want UTF-8 text"]


def test_a_tab_as_indentation_is_named() -> None:
    (error,) = errors("a:\n\tb: 1\n")
    assert error.startswith("f.yaml:2: YAML: got ")
    assert error.endswith("want spaces, not tabs, for indentation")


def test_a_syntax_error_has_its_line() -> None:
    (error,) = errors("a: 1\nb: [1, 2\n")
    assert error.startswith("f.yaml:3: YAML: got ")
    assert error.endswith("want well-formed YAML")


def test_aliases_that_multiply_are_refused() -> None:
    lines = ["a0: &a0 [" + ",".join("x" * 9) + "]"]
    lines += [f"a{n}: &a{n} [" + ",".join([f"*a{n - 1}"] * 9) + "]" for n in range(1, 12)]
    (error,) = errors("\n".join(lines))
    assert error == "f.yaml:7: YAML: got more values, want at most 1000000 values, aliases written out"


def test_a_file_that_is_missing_odd_or_large(tmp_path: Path) -> None:
    def error_of(path: Path) -> str:
        with pytest.raises(ConfigError) as caught:
            read_file(path)
        return str(caught.value)

    missing = tmp_path / "none.yaml"
    assert error_of(missing) == f"{missing}: file: got No such file or directory, want a readable file"
    assert error_of(tmp_path) == f"{tmp_path}: file: got something else, want a regular file"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert error_of(pipe) == f"{pipe}: file: got something else, want a regular file"
    large = tmp_path / "large"
    large.write_bytes(b"#" * (document.MAX_BYTES + 1))
    assert error_of(large) == f"{large}: file: got a larger file, want at most 4 MiB"
    empty = tmp_path / "empty"
    empty.write_bytes(b" \n\n")
    assert (
        error_of(empty)
        == f"{empty}: file: got an empty file, want settings or services; `services: []` for none"
    )


YAML_TEXT = st.text(alphabet=st.sampled_from("ab:- \n\t[]{}&*!<>|'\"#%,?~01.\x00é"), max_size=60)


@given(YAML_TEXT)
def test_any_text_is_a_tree_or_problems(text: str) -> None:
    problems = Problems("f")
    try:
        parse(text.encode(), problems)
    except ConfigError:
        assert problems.found


@given(st.binary(max_size=60))
def test_any_bytes_are_a_tree_or_problems(content: bytes) -> None:
    problems = Problems("f")
    try:
        parse(content, problems)
    except ConfigError:
        assert problems.found


@given(
    st.recursive(
        st.text("abc", min_size=1),
        lambda inner: st.lists(inner) | st.dictionaries(st.text("xyz", min_size=1), inner),
    )
)
def test_what_yaml_writes_reads_back(value: object) -> None:
    node = parse(yaml.safe_dump(value, default_style='"').encode(), Problems("f"))
    assert isinstance(node, Scalar | Items | Entries)
    assert plain(node) == value
