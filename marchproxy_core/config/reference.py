"""Writes ``docs/settings.md`` from the declarations: ``python -m marchproxy_core.config.reference FILE``."""

from __future__ import annotations

import sys
from pathlib import Path

from marchproxy_core.config.declare import Setting, declared
from marchproxy_core.config.document import MAX_BYTES, MAX_DEPTH
from marchproxy_core.config.given import OWN_PREFIXES, SHARED_PREFIXES, all_settings
from marchproxy_core.config.http_keys import CacheKeys, HttpKeys
from marchproxy_core.config.service_keys import BackendKeys, HealthKeys, ProxyKeys, ServiceKeys
from marchproxy_core.config.tls_keys import BackendTlsKeys, TlsKeys

HEAD = f"""# Settings and services

Written by `python -m marchproxy_core.config.reference docs/settings.md` from the declarations in
`marchproxy_core/config/`; a test compares. `marchproxy check --config FILE --print` shows each value in use and
where it came from.

## Where settings come from

The file, then the environment over it: a variable that is set wins over the file. A setting that is empty, in either,
counts as not set; so does a `null` anywhere in the file.

The file is YAML in UTF-8, at most {MAX_BYTES >> 20} MiB and {MAX_DEPTH} levels deep, in one document. It is a mapping
with `settings:` and `services:`, or only a list of services:

```yaml
settings:
  drain_timeout: 1m            # names in small letters or in capitals
  proxy_cpu_affinity: 4-7,9
services:
  - name: web                  # or "service: web"
    listen: [":8080"]
    backends: [10.0.0.1:80, {{ip: 10.0.0.2, port: 80, weight: 2}}]
```

Values are read as they are written, not as YAML 1.1 would have it: `0x3`, `on` and `"8080"` mean the same with and
without quotes. A list may be a YAML list or one text. Anchors, aliases and merge keys work; tags (`!!…`) are refused.
A key that comes twice is an error. Times are seconds, `30` or `0.5`, or have a unit: `250ms`, `30s`, `5m`, `1h`, `1d`.

All problems are shown at once, and the exit status is 2. A setting whose tier is not installed is accepted with a note.

An unknown variable is an error when its name begins with one of
{", ".join(f"`{prefix}`" for prefix in OWN_PREFIXES)}.
The variables with which Kubernetes and Docker describe a service
(`PROXY_SERVICE_HOST`, `PROXY_PORT_80_TCP`, `PROXY_PORT=tcp://…`) are let pass. Names that begin with
{", ".join(f"`{prefix}`" for prefix in SHARED_PREFIXES)} may be
another program's, so an unknown one is an error only when it is nearly one of ours, as `LOG_LEVLE`: a stranger's
variable does not stop the daemon.

"""

SETTINGS_HEAD = """## Settings

A third party's tier has `ENABLE_<NAME>` too. *Restart*: a reload says so, and keeps the old value.

| variable | values | default | acts on | what it does |
|---|---|---|---|---|
"""

SERVICES = """## Services

| key | values | default | what it does |
|---|---|---|---|
"""

AFTER = """
`listen` takes one entry or several: `PORT` and `:PORT` are every address, IPv4 and IPv6; else `IP:PORT` or
`[IPV6]:PORT`. With neither `listen` nor `backends`, clients connect to `port` on every address, and the one backend is
`ip`:`port`. A backend may have another address family than the listen address.

To take a backend out, give it `weight: 0` and reload: it drains, for as long as its clients like. `flush: true` ends
what is left at once, and wins over a weight, which is back when `flush` goes. A backend that is taken out of the list
keeps what it has, as with weight 0. Health checks go on at weight 0 and while it is flushed.

Two services may have the same listen address when both are read as HTTP, or clients of both speak TLS, and no host and
path is claimed by both: `hosts` and `paths` say whose a request is. The most special host goes first, an exact one
before a wildcard, then the longest path. They must agree about what comes before a request: `tls_enabled`,
`tls_client_ca`, `tls_client_auth`, `tls_min_version` (where TLS ends here), `proxy_protocol.accept` and `tier`. With
`tls_passthrough` `hosts` alone count, against those of services whose TLS ends here too; a client that asks for no name
gets a service without `hosts`.

Otherwise the same address and protocol twice is an error. One service on every address and one on a single address of
the same port go together: connections to that address go to the second one, as the kernel prefers the socket bound more
exactly. The same holds for `ADMIN_LISTEN`. Where the kernel has no IPv6, a port alone is every IPv4 address, which the
log says; an IPv6 address that is written out cannot be opened there.

A service is read as HTTP when it has a key about requests or about TLS to backends, or has `auth_type: jwt`,
`tls_enabled` without `tls_passthrough`, `websocket` or `cache_enabled`. A flag that is false and an empty list ask for
nothing. With `protocol: udp` all of that and `proxy_protocol` are errors, and a health check needs a `port`. With
`tls_passthrough` what needs to see a request is an error, and so is what says how TLS ends. A service that is neither
read as HTTP nor passes TLS through is fast-path: any tier may carry it.

Headers are written `Name: value`, several as a YAML list, or one a line: values may have commas. First headers are
removed, then set, then added.
"""


def reference() -> str:
    """The whole page."""
    settings = "".join(_setting_row(one) for one in all_settings(()).values())
    sections = (
        ("Authentication and TLS of a service", declared(TlsKeys)),
        ("WebSocket and cache of a service", declared(CacheKeys, BackendTlsKeys)),
        ("Requests of a service", declared(HttpKeys, CacheKeys)),
        ("TLS to backends of a service", declared(BackendTlsKeys, TlsKeys)),
        ("A backend", declared(BackendKeys)),
        ("A health check", declared(HealthKeys)),
        ("The PROXY protocol", declared(ProxyKeys)),
    )
    return (
        HEAD
        + SETTINGS_HEAD
        + settings
        + "\n"
        + SERVICES
        + _key_rows(declared(ServiceKeys, HttpKeys))
        + AFTER
        + "".join(
            f"\n### {title}\n\n| key | values | default | what it does |\n|---|---|---|---|\n{_key_rows(keys)}"
            for title, keys in sections
        )
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _default(one: Setting) -> str:
    shown = "" if one.default in (None, ()) else f"`{one.kind.show(one.default)}`"
    return shown or one.default_doc


def _setting_row(one: Setting) -> str:
    tiers = ", ".join(one.tiers) or "every tier"
    doc = one.doc + (" *Restart.*" if one.restart else "")
    cells = (f"`{one.variable}`", one.kind.want, _default(one), tiers, doc)
    return "| " + " | ".join(map(_cell, cells)) + " |\n"


def _key_rows(keys: tuple[Setting, ...]) -> str:
    rows = ((f"`{one.attribute}`", one.kind.want, _default(one), one.doc) for one in keys)
    return "".join("| " + " | ".join(map(_cell, row)) + " |\n" for row in rows)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
