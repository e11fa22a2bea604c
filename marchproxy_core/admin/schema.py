"""JSON in both directions: answers to JSON, JSON back to answers, and the JSON schema of every answer.

The schema is made from the same classes that cattrs dumps, so the two cannot differ. Knows no engine.
"""

from __future__ import annotations

import enum
import json
import types
from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import attrs
from cattrs import Converter, transform_error
from cattrs.errors import BaseValidationError

from marchproxy_core.admin import answers, requests

T = TypeVar("T")
Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None

_SCALARS: dict[object, dict[str, Json]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    type(None): {"type": "null"},
    datetime: {"type": "string", "format": "date-time"},
}

ANSWERS: Mapping[str, Mapping[str, type]] = {
    "GET /admin/acceleration": {"200": answers.AccelerationAnswer},
    "GET /admin/rules/classification": {"200": answers.ClassificationAnswer},
    "GET /admin/backends/health": {"200": answers.BackendsAnswer},
    "GET /admin/door": {"200": answers.DoorAnswer},
    "POST /admin/door": {"200": answers.DoorAnswer},
    "GET /admin/requests/{id}": {"200": requests.RequestAnswer},
    "POST /admin/cache/purge": {"200": requests.PurgeAnswer},
    "POST /admin/reload": {"200": answers.ReloadAnswer},
    "POST /admin/drain": {"202": answers.DrainAnswer},
    "GET /healthz": {"200": answers.HealthzAnswer},
    "GET /readyz": {"200": answers.ReadyzAnswer, "503": answers.ReadyzAnswer},
}
"""Every JSON answer by endpoint and status; all other statuses are a :class:`~answers.Problem`."""


REQUESTS: Mapping[str, type[attrs.AttrsInstance]] = {
    "POST /admin/door": answers.DoorRequest,
    "POST /admin/cache/purge": requests.PurgeRequest,
}
"""Every JSON body by endpoint."""


def _converter(*, strict: bool = False) -> Converter:
    converter = Converter(forbid_extra_keys=strict)
    converter.register_unstructure_hook(datetime, lambda moment: moment.isoformat())
    converter.register_structure_hook(datetime, lambda text, _: datetime.fromisoformat(text))
    return converter


_CONVERTER = _converter()  # an answer of a later version may say more
_STRICT = _converter(strict=True)


def dump(answer: object) -> bytes:
    """Return the answer as JSON in UTF-8."""
    return json.dumps(_CONVERTER.unstructure(answer), allow_nan=False).encode()


def read(text: bytes | str, want: type[T]) -> T:
    """Read an answer back.

    Raises:
        ValueError: It is not JSON, or not such an answer.
    """
    try:
        return _CONVERTER.structure(json.loads(text), want)
    except (BaseValidationError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not a {want.__name__}: {error}") from error


def read_request(text: bytes, want: type[T]) -> T:
    """Read the body of a request.

    Raises:
        ValueError: It is not JSON, or not such a body; the text says what is wrong with it, for the sender.
    """
    try:
        body = json.loads(text)
    except (RecursionError, ValueError):
        body = None
    if not isinstance(body, dict):
        raise ValueError("not a JSON object, as GET /admin/schema describes it")  # noqa: TRY004 - what the sender did
    try:
        return _STRICT.structure(body, want)
    except BaseValidationError as error:
        raise ValueError("; ".join(transform_error(error, path="body"))) from error


def schema() -> dict[str, Json]:
    """Return the schema document: a definition per class, which endpoint answers with which, and what it takes."""
    definitions: dict[str, Json] = {}
    endpoints: dict[str, Json] = {}
    for endpoint, by_status in ANSWERS.items():
        refs: dict[str, Json] = {s: _describe(cls, definitions) for s, cls in by_status.items()}
        refs["default"] = _describe(answers.Problem, definitions)
        endpoints[endpoint] = refs
    requests: dict[str, Json] = {endpoint: _describe(cls, definitions) for endpoint, cls in REQUESTS.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Answers of MarchProxy's admin API",
        "$defs": definitions,
        "endpoints": endpoints,
        "requests": requests,
    }


def _describe(kind: Any, definitions: dict[str, Json]) -> Json:
    """Describe a type, adding the classes it is made of to the definitions."""
    if kind in _SCALARS:
        return dict(_SCALARS[kind])
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is tuple:
        return {"type": "array", "items": _describe(arguments[0], definitions)}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _describe(arguments[1], definitions)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_describe(one, definitions) for one in arguments]}
    if issubclass(kind, enum.Enum):
        return {"type": "string", "enum": [member.value for member in kind]}
    if attrs.has(kind):
        return _describe_class(kind, definitions)
    raise TypeError(f"no schema for {kind!r}")


def _describe_class(cls: type[attrs.AttrsInstance], definitions: dict[str, Json]) -> Json:
    if cls.__name__ not in definitions:
        definitions[cls.__name__] = None  # known while its own fields are described
        hints = get_type_hints(cls)
        names = [field.name for field in attrs.fields(cls)]
        definitions[cls.__name__] = {
            "type": "object",
            "description": (cls.__doc__ or "").split("\n\n")[0],
            "properties": {name: _describe(hints[name], definitions) for name in names},
            "required": [
                field.name
                for field in attrs.fields(cls)
                if field.default is attrs.NOTHING
                or cls not in REQUESTS.values()  # an answer has all of its fields
            ],
            "additionalProperties": False,
        }
    return {"$ref": f"#/$defs/{cls.__name__}"}
