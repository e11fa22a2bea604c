"""A file and an environment to a whole configuration: reads, checks, and tells everything wrong at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marchproxy_core.config.building import read_services
from marchproxy_core.config.checks import check_services, check_settings
from marchproxy_core.config.choices import Enable
from marchproxy_core.config.document import Entries, Items, Node, Scalar, parse, read_file
from marchproxy_core.config.given import Given, all_settings, check_tier_order, from_environment, from_file
from marchproxy_core.config.problems import Problems
from marchproxy_core.config.reading import shape, unknown_key
from marchproxy_core.config.settings import Settings
from marchproxy_core.config.values import Config, Origin
from marchproxy_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from marchproxy_core.config.declare import Setting


def load(path: Path | None, environ: Mapping[str, str], known_tiers: Collection[str]) -> Config:
    """Read the file, then the environment over it.

    Args:
        path: A YAML file; None: the environment alone.
        environ: The environment's variables.
        known_tiers: Names of the installed tiers; settings of others are accepted with a note.

    Raises:
        ConfigError: With all problems at once, in the file's order, then the environment's.
    """
    problems = Problems(str(path) if path else "environment")
    content = read_file(path) if path else b""
    return _load(content, path, environ, known_tiers, problems)


def load_text(text: bytes, path: Path, environ: Mapping[str, str], known_tiers: Collection[str]) -> Config:
    """As :func:`load`, with the file's content already read; ``path`` names it in errors.

    Raises:
        ConfigError: With all problems at once.
    """
    return _load(text, path, environ, known_tiers, Problems(str(path)))


def _load(
    content: bytes,
    path: Path | None,
    environ: Mapping[str, str],
    known_tiers: Collection[str],
    problems: Problems,
) -> Config:
    notes: list[str] = []
    known = all_settings(known_tiers)
    settings_node, services_node = _parts(content, problems)
    given = from_file(settings_node, known, problems)
    services = read_services(services_node, "services", problems, notes, known_tiers)
    given |= from_environment(environ, known, problems)
    settings, origins = _assemble(given, known, notes)
    if (order := given.get("TIER_ORDER")) and (wrong := check_tier_order(order, known_tiers)):
        problems.found.append(wrong)
    check_settings(settings, origins, problems)
    check_services(services, settings, origins, problems, notes)
    if problems.found:
        raise ConfigError(tuple(problems.found))
    notes.extend(_absent_tiers(given, known, known_tiers))
    if not services:
        notes.append("no service is configured")
    return Config(settings=settings, services=services, notes=tuple(notes), origins=origins, path=path)


def _parts(content: bytes, problems: Problems) -> tuple[Node | None, Node | None]:
    """The nodes of the settings and of the services; None for what is not there."""
    try:
        root = parse(content, problems)
    except ConfigError:
        # Noted in problems already; what is wrong with the environment is to be told in the same breath.
        return None, None
    if isinstance(root, Items):
        return None, root
    if isinstance(root, Entries):
        return _top(root, problems)
    if root is not None:
        problems.add(root.line, "file", shape(root), "settings: and services:, or a list of services")
    return None, None


def _top(root: Entries, problems: Problems) -> tuple[Node | None, Node | None]:
    """The two parts of a file that is a mapping."""
    parts: dict[str, Node | None] = {"settings": None, "services": None}
    for key, node in root.entries.values():
        if key.text not in parts:
            unknown_key(key, "", parts, problems)
        elif not (isinstance(node, Scalar) and node.is_null):
            parts[key.text] = node
    return parts["settings"], parts["services"]


def _assemble(
    given: dict[str, Given], known: Mapping[str, Setting], notes: list[str]
) -> tuple[Settings, dict[str, Origin]]:
    """Settings and origins from what was given."""
    processes = given.get("GOMAXPROCS")
    if processes is not None:
        taken = "WORKER_THREADS" not in given
        if taken:
            given = given | {"WORKER_THREADS": Given("WORKER_THREADS", processes.value, processes.origin)}
        what = (
            "taken as WORKER_THREADS; set that instead" if taken else "not used, since WORKER_THREADS is set"
        )
        notes.append(f"{processes.origin}: GOMAXPROCS is {what}")
    if (collector := given.get("GOGC")) is not None:
        notes.append(f"{collector.origin}: GOGC scales the first threshold of Python's garbage collector")
    enable: dict[str, Enable] = {}
    values: dict[str, object] = {}
    for variable, one in given.items():
        if isinstance(one.value, Enable):
            enable[known[variable].tiers[0]] = one.value
        else:
            values[known[variable].attribute] = one.value
    make: Callable[..., Settings] = Settings
    return make(enable=enable, **values), {variable: one.origin for variable, one in given.items()}


def _absent_tiers(
    given: Mapping[str, Given], known: Mapping[str, Setting], known_tiers: Collection[str]
) -> Iterator[str]:
    """Which settings act on nothing that is installed."""
    for variable, one in given.items():
        tiers = known[variable].tiers
        if tiers and not set(tiers) & set(known_tiers):
            absent = (
                f"{tiers[0]}, which is not" if len(tiers) == 1 else f"{', '.join(tiers)}, none of which is"
            )
            yield f"{one.origin}: {variable} acts on {absent} installed"
