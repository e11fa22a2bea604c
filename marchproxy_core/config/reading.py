"""From nodes with lines to declared keys. Generic: what the keys are for is not known here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar

import attrs

from marchproxy_core.config.declare import Setting, declared
from marchproxy_core.config.document import Entries, Items, Node, Scalar
from marchproxy_core.config.problems import Misread, Problems, nearest, quote
from marchproxy_core.config.service_keys import BackendKeys, BackendList, Section, backend_keys
from marchproxy_core.door import NotAPrefix

K = TypeVar("K", bound=attrs.AttrsInstance)


@attrs.frozen
class Keys(Generic[K]):
    """What a mapping said: the values, with defaults for what was left out or wrong."""

    value: K
    path: str
    line: int
    nodes: Mapping[str, Node]
    """By key, where it was given."""
    broken: frozenset[str] = frozenset()
    """Keys whose value was wrong, and is the default here."""
    inside: Mapping[str, Keys[attrs.AttrsInstance]] = attrs.field(factory=dict)
    """The sections among them."""
    backends: tuple[Keys[BackendKeys], ...] = ()

    def line_of(self, *keys: str) -> int:
        """Line of the first of these keys that was given, else of the mapping."""
        return next((self.nodes[key].line for key in keys if key in self.nodes), self.line)


def shape(node: Node) -> str:
    """What a node is, for an error."""
    if isinstance(node, Scalar):
        return "nothing" if node.is_null else quote(node.text)
    return "a list" if isinstance(node, Items) else "a mapping"


def read_value(node: Node, one: Setting, path: str, problems: Problems) -> tuple[object] | None:
    """The value of a node as its declaration reads it, in a tuple of one; None when it was wrong."""
    separator = getattr(one.kind, "separator", None)
    near: str | None = None
    want = one.kind.want
    try:
        if isinstance(node, Scalar):
            return (one.kind.parse(node.text),)
        if isinstance(node, Items) and separator:
            texts = [item.text for item in node.items if isinstance(item, Scalar) and not item.is_null]
            if len(texts) == len(node.items):
                return (one.kind.parse(separator.join(texts)),)
    except NotAPrefix as error:
        near = error.nearest
    except Misread as error:
        near, want = error.nearest, error.want or want
    except ValueError:
        pass
    problems.add(node.line, path, got_list(node) if not one.secret else "(not shown)", want, near)
    return None


def got_list(node: Node) -> str:
    """A node for an error, a list of scalars with its values."""
    if isinstance(node, Items) and all(isinstance(item, Scalar) for item in node.items):
        return quote(",".join(item.text for item in node.items if isinstance(item, Scalar)))
    return shape(node)


def unknown_key(key: Scalar, path: str, known: Iterable[str], problems: Problems) -> None:
    """Note a key that nobody declared."""
    near = nearest(key.text.lower(), known)
    what = f"{path}.{key.text}" if path else key.text
    problems.add(key.line, quote(what)[1:-1], "", "a known name", near)


def read_keys(
    owner: type[K], node: Entries, path: str, problems: Problems, also: Mapping[str, str] | None = None
) -> Keys[K]:
    """Read a mapping whose keys ``owner`` declares; ``also`` maps further names to declared ones."""
    by_name = {one.attribute: one for one in declared(owner)}
    values: dict[str, object] = {}
    nodes: dict[str, Node] = {}
    broken: set[str] = set()
    inside: dict[str, Keys[attrs.AttrsInstance]] = {}
    backends: tuple[Keys[BackendKeys], ...] = ()
    for key, child in node.entries.values():
        name = (also or {}).get(key.text, key.text)
        one = by_name.get(name)
        if one is None:
            unknown_key(key, path, by_name, problems)
        elif name in nodes:
            problems.add(key.line, f"{path}.{name}", f"it again as {key.text}", "it once")
        elif not (isinstance(child, Scalar) and child.is_null):
            nodes[name] = child
            here = f"{path}.{name}"
            if isinstance(one.kind, Section):
                section = _read_section(one.kind, child, here, problems)
                inside |= {name: section} if section else {}
                found: tuple[object] | None = (section.value,) if section else None
            elif isinstance(one.kind, BackendList):
                backends = _read_backends(child, here, problems)
                found = (tuple(backend.value for backend in backends),)
            else:
                found = read_value(child, one, here, problems)
            if found is None:
                broken.add(name)
            else:
                values[name] = found[0]
    make: Callable[..., K] = owner
    return Keys(make(**values), path, node.line, nodes, frozenset(broken), inside, backends)


def _read_section(
    section: Section[attrs.AttrsInstance], node: Node, path: str, problems: Problems
) -> Keys[attrs.AttrsInstance] | None:
    if isinstance(node, Entries):
        return read_keys(section.keys, node, path, problems)
    if isinstance(node, Scalar) and node.text.lower() in section.short:
        given = section.short[node.text.lower()]
        if given is None:
            return None
        entries: dict[str, tuple[Scalar, Node]] = {
            key: (Scalar(key, node.line), Scalar(text, node.line)) for key, text in given.items()
        }
        return read_keys(section.keys, Entries(entries, node.line, 1), path, problems)
    problems.add(node.line, path, shape(node), section.want)
    return None


def _read_backends(node: Node, path: str, problems: Problems) -> tuple[Keys[BackendKeys], ...]:
    if not isinstance(node, Items) or not node.items:
        got = "an empty list" if isinstance(node, Items) else shape(node)
        problems.add(node.line, path, got, BackendList().want)
        return ()
    found: list[Keys[BackendKeys]] = []
    for index, item in enumerate(node.items):
        here = f"{path}[{index}]"
        if isinstance(item, Entries):
            found.append(read_keys(BackendKeys, item, here, problems))
            continue
        try:
            short = backend_keys(item.text if isinstance(item, Scalar) else "")
            found.append(Keys(short, here, item.line, {"ip": item, "port": item}))
        except ValueError:
            problems.add(
                item.line, here, shape(item), "IP:PORT, or a mapping with ip, port, weight and flush"
            )
    return tuple(found)
