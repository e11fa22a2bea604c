"""YAML text to a small tree with line numbers. Knows YAML, nothing of settings.

Built from the parser's events, without recursion: depth, size, and what aliases expand to are bounded while
reading, so a hostile file ends in an error, not in memory or stack. Scalars stay text, so ``0x3``, ``on`` and
``12:30`` mean what is written and not what YAML 1.1 makes of them.
"""

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING

import attrs
import yaml

from marchproxy_core.config.problems import Problems, quote
from marchproxy_core.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 4 << 20
MAX_DEPTH = 32
MAX_NODES = 1_000_000
"""Values of a document with every alias counted as if it were written out."""

_TAG = "tag:yaml.org,2002:"
_TAGS = {None, "!"} | {_TAG + name for name in ("null", "bool", "int", "float", "str", "seq", "map")}
_NULLS = ("", "~", "null", "Null", "NULL")
# The same set as the parser's own; looked for first, because its C version gives no line for it.
_NOT_PRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@attrs.frozen
class Scalar:
    """One value as it is written, without its quotes."""

    text: str
    line: int
    is_null: bool = False
    size: int = 1


@attrs.frozen
class Items:
    """A YAML list."""

    items: tuple[Node, ...]
    line: int
    size: int


@attrs.frozen
class Entries:
    """A YAML mapping; keys are unique, merge keys are resolved."""

    entries: dict[str, tuple[Scalar, Node]]
    line: int
    size: int


Node = Scalar | Items | Entries


@attrs.define
class _Open:
    """A list or mapping whose end was not seen yet."""

    is_mapping: bool
    line: int
    anchor: str | None
    children: list[Node] = attrs.field(factory=list)


def read_file(path: Path) -> bytes:
    """Read a configuration file.

    Raises:
        ConfigError: It is missing, not readable, no regular file, empty, or too large.
    """
    problems = Problems(str(path))
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise problems.fatal(None, "file", "something else", "a regular file")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise problems.fatal(None, "file", reason, "a readable file") from exc
    if len(content) > MAX_BYTES:
        raise problems.fatal(None, "file", "a larger file", f"at most {MAX_BYTES >> 20} MiB")
    if not content.strip():
        # As a rule it is just being written: a reload at that moment must not take every service away.
        raise problems.fatal(None, "file", "an empty file", "settings or services; `services: []` for none")
    return content


def parse(content: bytes, problems: Problems) -> Node | None:
    """Read one YAML document; None when it is empty.

    Duplicate keys, foreign tags and unusable keys are added to ``problems``.

    Raises:
        ConfigError: With what was found so far, when it cannot be read any further.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise problems.fatal(line, "file", f"the byte {content[exc.start]:#04x}", "UTF-8 text") from exc
    if odd := _NOT_PRINTABLE.search(text):
        line = text.count("\n", 0, odd.start()) + 1
        raise problems.fatal(line, "file", f"the character U+{ord(odd[0]):04X}", "printable text")
    builder = _Builder(problems)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        found = exc.problem or exc.context or "an error"
        want = "spaces, not tabs, for indentation" if _is_tabbed(text, mark) else "well-formed YAML"
        raise problems.fatal(mark.line + 1 if mark else None, "YAML", quote(found), want) from exc
    except yaml.YAMLError as exc:
        raise problems.fatal(None, "YAML", quote(str(exc)), "well-formed YAML") from exc
    return builder.root


def _is_tabbed(text: str, mark: yaml.Mark | None) -> bool:
    """Whether the line of an error is indented with a tab; the C parser's own message does not say so."""
    lines = text.splitlines()
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    return "\t" in line[: len(line) - len(line.lstrip())]


class _Builder:
    """Turns events into nodes, with a stack of what is open."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._open: list[_Open] = []
        self._anchors: dict[str, Node | None] = {}
        self._documents = 0
        self.root: Node | None = None

    def take(self, event: yaml.Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise self._problems.fatal(line, "YAML", "a second document", "one document")
        elif isinstance(event, yaml.AliasEvent):
            self._add(self._resolve(event.anchor or "", line), None)
        elif isinstance(event, yaml.ScalarEvent):
            self._check_tag(event.tag, line)
            is_null = event.tag == f"{_TAG}null" or (
                event.tag is None and event.style in (None, "") and event.value in _NULLS
            )
            # The C parser gives a plain scalar the style "" in some versions, None in others.
            self._add(Scalar(event.value, line, is_null), event.anchor)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._check_tag(event.tag, line)
            if len(self._open) >= MAX_DEPTH:
                want = f"at most {MAX_DEPTH} levels"
                raise self._problems.fatal(line, "YAML", "deeper nesting", want)
            if event.anchor is not None:
                self._anchors[event.anchor] = None
            is_mapping = isinstance(event, yaml.MappingStartEvent)
            self._open.append(_Open(is_mapping, line, event.anchor))
        elif isinstance(event, yaml.CollectionEndEvent):
            done = self._open.pop()
            node = self._mapping(done) if done.is_mapping else self._list(done)
            self._add(node, done.anchor)

    def _resolve(self, anchor: str, line: int) -> Node:
        node = self._anchors.get(anchor)
        if node is None:
            inside = anchor in self._anchors
            got = f"*{anchor}" + (" inside itself" if inside else "")
            raise self._problems.fatal(line, "YAML", quote(got), "an anchor that ended above")
        return node

    def _check_tag(self, tag: str | None, line: int) -> None:
        if tag not in _TAGS:
            self._problems.add(line, "YAML", f"the tag {quote(str(tag))}", "plain values without tags")

    def _add(self, node: Node, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = node
        if self._open:
            self._open[-1].children.append(node)
        else:
            self.root = None if isinstance(node, Scalar) and node.is_null else node

    def _size(self, children: list[Node], line: int) -> int:
        size = 1 + sum(child.size for child in children)
        if size > MAX_NODES:
            raise self._problems.fatal(
                line, "YAML", "more values", f"at most {MAX_NODES} values, aliases written out"
            )
        return size

    def _list(self, done: _Open) -> Items:
        return Items(tuple(done.children), done.line, self._size(done.children, done.line))

    def _mapping(self, done: _Open) -> Entries:
        entries: dict[str, tuple[Scalar, Node]] = {}
        merged: list[Entries] = []
        for key, value in zip(done.children[::2], done.children[1::2], strict=True):
            if not isinstance(key, Scalar):
                self._problems.add(key.line, "YAML", "a list or mapping as a key", "a name")
            elif key.text == "<<":
                merged.extend(self._merged(value))
            elif key.text in entries:
                first = entries[key.text][0].line
                want = f"it once; the first is on line {first}"
                self._problems.add(key.line, "YAML", f"the key {quote(key.text)} again", want)
            else:
                entries[key.text] = (key, value)
        for source in merged:
            entries = source.entries | entries
        return Entries(entries, done.line, self._size(done.children, done.line))

    def _merged(self, value: Node) -> tuple[Entries, ...]:
        """What a merge key brings in, the strongest first, as YAML's merge type says."""
        sources = value.items if isinstance(value, Items) else (value,)
        mappings = tuple(source for source in sources if isinstance(source, Entries))
        if len(mappings) < len(sources):
            self._problems.add(value.line, "YAML", "<< with something else", "<< with mappings")
        return mappings


def load_document(path: Path) -> Node | None:
    """Read and parse a file; None when it is empty.

    Raises:
        ConfigError: With every problem of the document.
    """
    problems = Problems(str(path))
    node = parse(read_file(path), problems)
    if problems.found:
        raise ConfigError(tuple(problems.found))
    return node
