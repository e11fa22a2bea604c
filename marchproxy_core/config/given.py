"""Settings as they were given, in a file or in the environment, and both put together. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

import attrs

from marchproxy_core.config.choices import TIER_NAMES, TIER_VARIABLES, Enable, enable_variable
from marchproxy_core.config.declare import Setting
from marchproxy_core.config.document import Entries, Node, Scalar
from marchproxy_core.config.kinds import FALSE_WORDS, TRUE_WORDS, OneOf
from marchproxy_core.config.problems import Problems, nearest, quote
from marchproxy_core.config.reading import read_value, shape, unknown_key
from marchproxy_core.config.settings import SETTINGS
from marchproxy_core.config.values import Origin
from marchproxy_core.door import NotAPrefix
from marchproxy_core.errors import ConfigProblem

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from marchproxy_core.config.kinds import Kind

OWN_PREFIXES = (
    "ENABLE_",
    "TIER_",
    "DPDK_",
    "XDP_",
    "AF_XDP_",
    "SR_IOV_",
    "EBPF_",
    "NAT_",
    "PROXY_",
    "ADMIN_",
    "GLOBAL_",
)
"""An unknown variable that begins so is an error."""

SHARED_PREFIXES = tuple(
    sorted(
        {f"{name.split('_')[0]}_" for name in SETTINGS if not name.startswith(OWN_PREFIXES) and "_" in name}
    )
)
"""Other programs' variables begin so too: an unknown one is an error only when it is nearly one of ours."""

NEAR_MISS = 0.88
"""Similarity (difflib's ratio) of a typo: one letter wrong, missing or too many in a name of average length."""

# Kubernetes and Docker describe a service named "proxy" in PROXY_SERVICE_HOST, PROXY_PORT_80_TCP_ADDR and so on.
_SERVICE_LINK = re.compile(
    r"[A-Z0-9_]+(_SERVICE_HOST|_SERVICE_PORT(_[A-Z0-9_]+)?|_PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://.*", re.DOTALL)

ENABLE = OneOf(Enable, also=dict.fromkeys(TRUE_WORDS, "true") | dict.fromkeys(FALSE_WORDS, "false"))


@attrs.frozen
class Given:
    """One setting with its value and where it was given."""

    variable: str
    value: object
    origin: Origin


def enable_setting(variable: str, tier: str) -> Setting:
    """The declaration of a tier's ``ENABLE_`` variable."""
    return Setting(
        variable=variable,
        kind=cast("Kind[object]", ENABLE),
        default=Enable.AUTO,
        doc=f"Whether {tier} may be used: true stops the start when it cannot run, auto falls back.",
        default_doc="",
        tiers=(tier,),
        restart=False,
        secret=False,
    )


def all_settings(known_tiers: Collection[str]) -> dict[str, Setting]:
    """Every declaration by variable: one ``ENABLE_`` for each tier, then the rest."""
    others = {enable_variable(tier): tier for tier in sorted(known_tiers)}
    # A third party's "af-xdp" must not take ENABLE_AF_XDP from afxdp.
    tiers = TIER_VARIABLES | {name: tier for name, tier in others.items() if name not in TIER_VARIABLES}
    return {name: enable_setting(name, tier) for name, tier in tiers.items()} | dict(SETTINGS)


def from_file(node: Node | None, known: Mapping[str, Setting], problems: Problems) -> dict[str, Given]:
    """The settings of a file's ``settings:``; names in capitals or small letters."""
    if node is None:
        return {}
    if not isinstance(node, Entries):
        problems.add(node.line, "settings", shape(node), "a mapping of settings")
        return {}
    found: dict[str, Given] = {}
    for key, child in node.entries.values():
        variable = key.text.upper()
        one = known.get(variable)
        if one is None or key.text not in (variable, one.attribute):
            unknown_key(key, "settings", [each.attribute for each in known.values()], problems)
        elif variable in found:
            problems.add(key.line, f"settings.{key.text}", "it again in other letters", "it once")
        elif not (isinstance(child, Scalar) and (child.is_null or not child.text.strip())):
            value = read_value(child, one, f"settings.{key.text}", problems)
            if value is not None:
                found[variable] = Given(variable, value[0], Origin(problems.where(child.line)))
    return found


def from_environment(
    environ: Mapping[str, str], known: Mapping[str, Setting], problems: Problems
) -> dict[str, Given]:
    """The settings among the variables; an empty one counts as not set."""
    found: dict[str, Given] = {}
    for name in sorted(environ):
        text = environ[name].strip()
        one = known.get(name)
        if one is None:
            _check_stranger(name, text, known, problems)
        elif text:
            origin = Origin(f"env {name}")
            try:
                found[name] = Given(name, one.kind.parse(text), origin)
            except ValueError as error:
                got = "(not shown)" if one.secret else quote(text)
                near = error.nearest if isinstance(error, NotAPrefix) else None
                problems.found.append(ConfigProblem(str(origin), name, got, one.kind.want, near))
    return found


def _check_stranger(name: str, text: str, known: Mapping[str, Setting], problems: Problems) -> None:
    """Note a variable that is not ours but looks as if it was meant to be."""
    if name.startswith(OWN_PREFIXES):
        if _SERVICE_LINK.fullmatch(name) or (name.endswith("_PORT") and _LINK_VALUE.fullmatch(text)):
            return
        near = nearest(name, known)
    elif name.startswith(SHARED_PREFIXES):
        near = nearest(name, known, NEAR_MISS)
        if near is None:
            return
    else:
        return
    shown = quote(name)[1:-1]
    problems.found.append(ConfigProblem(f"env {shown}", shown, "", "a known setting", near))


def check_tier_order(order: Given, known_tiers: Collection[str]) -> ConfigProblem | None:
    """The problem with a ``TIER_ORDER`` that names no tier, if so."""
    known = {*known_tiers, *TIER_NAMES}
    names = order.value if isinstance(order.value, tuple) else ()
    for name in names:
        if name not in known:
            want = "names of tiers"
            return ConfigProblem(str(order.origin), order.variable, quote(name), want, nearest(name, known))
    return None
