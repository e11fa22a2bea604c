"""Logging of every process of the daemon: structlog set up once, and other libraries' logging routed into it.

Owns the format of a line and the escaping of text that others made. Events and their keys are listed in
docs/events.md. Must not decide what is logged, and never buffers: a line is one write, so that the lines of
the control process and of its workers do not mix.
"""

from __future__ import annotations

import enum
import json
import logging
import os
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, TextIO, final

import attrs
import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

LEVELS = ("debug", "info", "warning", "error", "critical")
"""Level names, least urgent first."""

FORMAT_VARIABLE = "MARCHPROXY_LOG_FORMAT"
"""Environment variable with a :class:`LogFormat`, set by ``marchproxy run --log-format`` for all processes."""
_MULTI_LINE_KEYS = frozenset({"exception", "stack"})
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls that a terminal obeys, and marks that reorder what a reader sees."""


class LogFormat(enum.StrEnum):
    """How a line looks."""

    JSON = "json"
    CONSOLE = "console"


@attrs.define
class _InForce:
    process: str = ""
    log_format: LogFormat = LogFormat.CONSOLE


_in_force = _InForce()


def format_in_force() -> LogFormat:
    """Return how lines look in this process, for who writes lines of its own in the same form."""
    return _in_force.log_format


def process_in_force() -> str:
    """Return the key ``process`` of each line of this process."""
    return _in_force.process


def escape(text: str, *, keep: str = "") -> str:
    r"""Return the text with every control and bidi character written as ``\n``, ``\x1b`` or ``\u202e``.

    Args:
        text: Anything, also text that a client made.
        keep: Characters to leave as they are.
    """
    return _UNSAFE.sub(lambda match: match[0] if match[0] in keep else ascii(match[0])[1:-1], text)


def configure(
    process: str,
    *,
    level: str = "info",
    debug: bool = False,
    log_format: LogFormat | None = None,
    stream: TextIO | None = None,
) -> None:
    """Set up logging of this process; every process calls it once.

    Args:
        process: What this process is, as ``control`` or ``sockets.0``; the key ``process`` of each line.
        level: The least level that is written, one of :data:`LEVELS` in any case (``LOG_LEVEL``).
        debug: Write every level, whatever ``level`` says (``PROXY_DEBUG``).
        log_format: None: as ``MARCHPROXY_LOG_FORMAT`` has it, else for people when the stream is a terminal,
            else JSON lines.
        stream: None: standard error as it is at each line. The caller closes it.

    Raises:
        ValueError: The level or the format is not known.
    """
    writes = _wrapper(level, debug=debug)
    is_terminal = (stream or sys.stderr).isatty()
    if log_format is None:
        usual = LogFormat.CONSOLE if is_terminal else LogFormat.JSON
        log_format = LogFormat(os.environ.get(FORMAT_VARIABLE, usual))
    _in_force.process, _in_force.log_format = process, log_format
    structlog.configure(
        processors=_processors(process, log_format, colours=is_terminal),
        wrapper_class=writes,
        logger_factory=lambda *_: _LineWriter(stream),
        # Not cached: a cached logger would keep its level over a reload.
        cache_logger_on_first_use=False,
    )
    _route_library_logging()


def set_level(level: str, *, debug: bool = False) -> None:
    """Change the least level that is written, after a reload; all else stays as :func:`configure` left it.

    Args:
        level: One of :data:`LEVELS` in any case (``LOG_LEVEL``).
        debug: Write every level, whatever ``level`` says (``PROXY_DEBUG``).

    Raises:
        ValueError: The level is not known.
    """
    structlog.configure(wrapper_class=_wrapper(level, debug=debug))


def _wrapper(level: str, *, debug: bool) -> type[structlog.typing.FilteringBoundLogger]:
    name = "debug" if debug else level.lower()
    if name not in LEVELS:
        raise ValueError(f"log level {level!r}: want one of {', '.join(LEVELS)}")
    return structlog.make_filtering_bound_logger(name)


def _processors(process: str, log_format: LogFormat, *, colours: bool) -> list[Processor]:
    def add_process(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        event.setdefault("process", process)
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_process,
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    if log_format is LogFormat.JSON:
        return [*shared, _render_json]
    renderer = structlog.dev.ConsoleRenderer(
        colors=colours, exception_formatter=structlog.dev.plain_traceback, pad_event_to=24
    )
    return [*shared, _escape_values, renderer]


def _render_json(logger: WrappedLogger, method: str, event: EventDict) -> str:
    ordered = {key: event.pop(key) for key in ("timestamp", "level", "event", "process") if key in event}
    # All but ASCII is escaped. JSON leaves DEL as it is, which here can only stand inside a string.
    return json.dumps({**ordered, **event}, default=_plain).replace("\x7f", "\\u007f")


def _escape_values(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    return {escape(key): _escaped(key, value) for key, value in event.items()}


def _escaped(key: str, value: object) -> object:
    if isinstance(value, bool | int | float | None):
        return value
    text = value if isinstance(value, str) else _plain(value)
    return escape(text, keep="\n\t" if key in _MULTI_LINE_KEYS else "")


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_plain(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple | list):
        return ",".join(_plain(item) for item in value)
    return str(value)


@final
@attrs.frozen
class _LineWriter:
    """Writes a line to the stream; what structlog calls a wrapped logger."""

    _stream: TextIO | None

    def msg(self, line: str) -> None:
        """Write the line. A log that nobody can take any more must not end the traffic."""
        stream = self._stream or sys.stderr
        try:
            stream.write(line + "\n")
            stream.flush()
        except (OSError, ValueError):
            return

    log = debug = info = warning = error = critical = fatal = exception = msg


@final
class _LibraryHandler(logging.Handler):
    """Turns a record of Python's ``logging`` into an event."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        keys: MutableMapping[str, object] = {"logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            keys["exc_info"] = record.exc_info
        if record.levelno >= logging.ERROR:
            log.error("library.message_logged", **keys)
        else:
            log.warning("library.message_logged", **keys)


def _route_library_logging() -> None:
    # trio logs what it cannot raise (a listener out of descriptors, a broken instrument) and Python its
    # warnings. Below warning the libraries talk about themselves, of use to nobody here: left out.
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _LibraryHandler)]:
        root.removeHandler(handler)
    root.addHandler(_LibraryHandler(logging.WARNING))
    logging.captureWarnings(True)
