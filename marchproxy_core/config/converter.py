"""Values to JSON and back, for worker processes and the admin API: one cattrs converter for all of them.

Not for configuration files: those are read by ``loading``, with line numbers and ranges. Here both ends are
ours, so a value that does not fit is a bug, and unknown keys are refused.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, cast, get_args

from cattrs.preconf.json import make_converter

from marchproxy_core.config.kinds import UnixAddress
from marchproxy_core.config.settings import Settings
from marchproxy_core.door import Prefix
from marchproxy_core.services import Endpoint, IPAddress, Service

if TYPE_CHECKING:
    import cattrs


def _endpoint(text: str) -> Endpoint:
    """The reverse of ``str(endpoint)``; takes port 0 too, which the kernel replaces."""
    host, _, port = text.rpartition(":")
    return Endpoint(ipaddress.ip_address(host.strip("[]")), int(port))


def _endpoint_or_unix(text: str) -> Endpoint | UnixAddress:
    return UnixAddress(text.removeprefix("unix:")) if text.startswith("unix:") else _endpoint(text)


def make_value_converter() -> cattrs.Converter:
    """A converter that writes addresses as text and refuses unknown keys."""
    made = make_converter(forbid_extra_keys=True, detailed_validation=True)
    for text_type in (ipaddress.IPv4Address, ipaddress.IPv6Address, *get_args(Prefix), Endpoint, UnixAddress):
        made.register_unstructure_hook(text_type, str)
    for union in (IPAddress, Prefix, Endpoint | UnixAddress):
        made.register_unstructure_hook(union, str)
    made.register_structure_hook(Endpoint, lambda text, _: _endpoint(text))
    made.register_structure_hook(IPAddress, lambda text, _: ipaddress.ip_address(text))
    made.register_structure_hook(Prefix, lambda text, _: ipaddress.ip_network(text))
    made.register_structure_hook(Endpoint | UnixAddress, lambda text, _: _endpoint_or_unix(text))
    return made


converter: cattrs.Converter = make_value_converter()
"""The converter; users add hooks for types of their own, never for these."""


def dump_settings(settings: Settings) -> dict[str, object]:
    """Settings as JSON-able values. Contains ``ADMIN_TOKEN``: for our own processes, not for people."""
    return cast("dict[str, object]", converter.unstructure(settings))


def load_settings(values: dict[str, object]) -> Settings:
    """The reverse of :func:`dump_settings`.

    Raises:
        cattrs.BaseValidationError: The values are not what that function gives.
    """
    return converter.structure(values, Settings)


def dump_service(service: Service) -> dict[str, object]:
    """A service as JSON-able values."""
    return cast("dict[str, object]", converter.unstructure(service))


def load_service(values: dict[str, object]) -> Service:
    """The reverse of :func:`dump_service`.

    Raises:
        cattrs.BaseValidationError: The values are not what that function gives.
    """
    return converter.structure(values, Service)
