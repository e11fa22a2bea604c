"""Finding tiers and calling their hooks: the only file that touches pluggy's relay.

Each plugin is isolated: whatever goes wrong in one becomes a :class:`TierFault` of that one. Hooks are
called at start, on reload and for a scrape, never per connection or packet.
"""

from __future__ import annotations

import inspect
from contextlib import AbstractAsyncContextManager
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, TypeVar, cast, final

import attrs
import pluggy

from marchproxy_core import hookspecs
from marchproxy_core.errors import TierFault
from marchproxy_core.hookspecs import ENTRY_POINT_GROUP, PROJECT
from marchproxy_core.model import (
    AttachContext,
    Attachment,
    ProbeReport,
    Runner,
    ServiceTable,
    TierStats,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from marchproxy_core.config import Settings
    from marchproxy_core.host import HostFacts
    from marchproxy_core.services import Service
    from marchproxy_core.table import Table

HOOKS = ("probe", "classify", "attach", "forward", "stats")

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class PluginRow:
    """One plugin that was found, whole or broken."""

    name: str
    dist: str = ""
    version: str = ""
    value: str = ""
    """What the entry point names, as ``package.module``."""
    fault: TierFault | None = None


@final
class Tiers:
    """The tiers that were found, and a typed way to call the hooks of one of them.

    Every call raises :class:`TierFault` and nothing else, but for cancellation and Ctrl-C.
    """

    def __init__(self, relay: pluggy.PluginManager, rows: tuple[PluginRow, ...]) -> None:
        """Use :func:`discover` or :meth:`of`."""
        self._relay = relay
        self.rows = rows

    @classmethod
    def of(cls, plugins: Mapping[str, object]) -> Tiers:
        """Register plugin objects under the given names, without installed distributions."""
        relay = _new_relay()
        rows = tuple(
            PluginRow(name=name, value=type(plugin).__name__, fault=_register(relay, name, plugin))
            for name, plugin in plugins.items()
        )
        return cls(relay, rows)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tiers whose plugins are whole."""
        return tuple(row.name for row in self.rows if row.fault is None)

    def probe(self, tier: str, host: HostFacts, settings: Settings) -> ProbeReport:
        """Call the tier's ``probe``; blocks, so call it in a thread."""
        return self._call(tier, "probe", ProbeReport, host=host, settings=settings)

    def classify(self, tier: str, service: Service, report: ProbeReport) -> Verdict:
        """Call the tier's ``classify``."""
        return self._call(tier, "classify", Verdict, service=service, report=report)

    def attach(self, tier: str, context: AttachContext) -> AbstractAsyncContextManager[Attachment]:
        """Call the tier's ``attach``; the caller enters what it returns."""
        result = self._call(tier, "attach", object, context=context)
        if not isinstance(result, AbstractAsyncContextManager):
            raise TierFault(
                tier, "attach", f"returned {type(result).__name__}, want an async context manager"
            )
        return cast("AbstractAsyncContextManager[Attachment]", result)

    def forward(self, tier: str, attachment: Attachment, services: Table[ServiceTable]) -> Runner:
        """Call the tier's ``forward``; the caller runs what it returns."""
        runner = self._call(tier, "forward", object, attachment=attachment, services=services)
        if not callable(runner):
            raise TierFault(tier, "forward", f"returned {type(runner).__name__}, want an async callable")
        return cast("Runner", runner)

    def stats(self, tier: str, attachment: Attachment) -> TierStats:
        """Call the tier's ``stats``; may block when the tier is ill, so call it in a thread."""
        return self._call(tier, "stats", TierStats, attachment=attachment)

    def _call(self, tier: str, hook: str, want: type[T], **arguments: object) -> T:
        others = [p for name, p in self._relay.list_name_plugin() if p is not None and name != tier]
        try:
            result: object = self._relay.subset_hook_caller(hook, others)(**arguments)
        except TierFault:
            raise
        except (Exception, SystemExit) as error:
            raise TierFault(tier, hook, _said(error), _fix_for(error)) from error
        if not isinstance(result, want):
            got = "nothing" if result is None else type(result).__name__
            raise TierFault(
                tier,
                hook,
                f"returned {got}, want {want.__name__}",
                "see docs/writing_a_tier.md, or update the plugin",
            )
        return result


def discover(found: Iterable[EntryPoint] | None = None) -> Tiers:
    """Find and load every plugin of the entry-point group ``marchproxy.tiers``.

    Never raises for a plugin's sake: a broken one has a fault in its row. Imports plugins, so it may take some
    milliseconds each. Order on ``sys.path`` decides nothing: of two plugins with one name neither is used.
    """
    relay = _new_relay()
    by_name: dict[str, list[EntryPoint]] = {}
    for entry_point in entry_points(group=ENTRY_POINT_GROUP) if found is None else found:
        by_name.setdefault(entry_point.name, []).append(entry_point)
    rows = []
    for name in sorted(by_name):
        # The same installed distribution can be seen twice through sys.path; that is no clash.
        claims = {(_dist(entry)[0], entry.value): entry for entry in by_name[name]}
        clash = _clash(name, list(claims.values())) if len(claims) > 1 else None
        for entry in claims.values():
            dist, version = _dist(entry)
            fault = clash or _load(relay, name, entry)
            rows.append(PluginRow(name=name, dist=dist, version=version, value=entry.value, fault=fault))
    return Tiers(relay, tuple(rows))


def _new_relay() -> pluggy.PluginManager:
    relay = pluggy.PluginManager(PROJECT)
    relay.add_hookspecs(hookspecs)
    return relay


def _dist(entry: EntryPoint) -> tuple[str, str]:
    return (entry.dist.name, entry.dist.version) if entry.dist else ("", "")


def _clash(name: str, claims: list[EntryPoint]) -> TierFault:
    who = " and ".join(
        sorted(f"{_dist(entry)[0] or 'an unnamed distribution'} ({entry.value})" for entry in claims)
    )
    return TierFault(name, "register", f"two plugins have this name: {who}", "uninstall one of them")


def _load(relay: pluggy.PluginManager, name: str, entry: EntryPoint) -> TierFault | None:
    try:
        plugin: object = entry.load()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin may raise anything
        return TierFault(name, "import", f"{entry.value}: {_said(error)}", _fix_for(error, _dist(entry)[0]))
    return _register(relay, name, plugin)


def _register(relay: pluggy.PluginManager, name: str, plugin: object) -> TierFault | None:
    try:
        relay.register(plugin, name=name)
        problem = _breach(relay, plugin)
        if problem is None:
            relay.check_pending()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin may raise anything
        problem = _said(error)
    if problem is None:
        return None
    # A rejected register() leaves the plugin registered (pluggy 1.6, _manager.py).
    if relay.has_plugin(name):
        relay.unregister(name=name)
    return TierFault(
        name, "register", problem, "implement the five hooks as in docs/writing_a_tier.md, or update it"
    )


def _breach(relay: pluggy.PluginManager, plugin: object) -> str | None:
    """Say how the plugin breaks the rules that pluggy does not check, None when it keeps them."""
    callers = relay.get_hookcallers(plugin) or []
    for caller in callers:
        for impl in caller.get_hookimpls():
            if impl.plugin is not plugin:
                continue
            if inspect.iscoroutinefunction(impl.function) or inspect.isasyncgenfunction(impl.function):
                return (
                    f"hook {caller.name!r} is async; hooks are plain functions, what they return may be async"
                )
            if impl.wrapper or impl.hookwrapper or inspect.isgeneratorfunction(impl.function):
                return f"hook {caller.name!r} is a wrapper or generator; hooks are plain functions"
            if getattr(plugin, caller.name, None) is None:
                return f"hook {caller.name!r} is registered through specname; give the function that name"
    implemented = {caller.name for caller in callers}
    pending = [name for name in implemented if name not in HOOKS]
    if pending:
        known = ", ".join(HOOKS)
        return f"unknown hook {', '.join(sorted(pending))}; the hooks are {known}"
    missing = [name for name in HOOKS if name not in implemented]
    if missing:
        return f"lacks the hook {', '.join(missing)}"
    return None


def _said(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _fix_for(error: BaseException, dist: str = "") -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"install what provides the module {error.name!r}, or reinstall {dist or 'the plugin'}"
    if isinstance(error, OSError) and ".so" in str(error):
        return "install the system package with that library (bcc: apt install python3-bpfcc)"
    return f"update or uninstall {dist or 'the plugin'}, and report this to its authors"
