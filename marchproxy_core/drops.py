"""Why something was dropped or refused: the words that tiers count under and metrics show."""

from __future__ import annotations

import enum


class DropReason(enum.StrEnum):
    """One reason per cause that an operator would act on differently."""

    MAX_CONNECTIONS = "max_connections"
    GLOBAL_MAX_CONNECTIONS = "global_max_connections"
    CONNECTION_RATE = "connection_rate"
    GLOBAL_CONNECTION_RATE = "global_connection_rate"
    BLOCKED = "blocked"
    """A rule at the front door keeps the client out."""
    MEMORY_LIMIT = "memory_limit"
    NO_DESCRIPTORS = "no_descriptors"
    NO_BACKEND = "no_backend"
    BACKEND_REFUSED = "backend_refused"
    BACKEND_TIMEOUT = "backend_timeout"
    NO_SOURCE_PORT = "no_source_port"
    """All of the host's ports towards the backend are taken, many in TIME_WAIT as a rule."""
    PROXY_HEADER_INVALID = "proxy_header_invalid"
    FLOW_TABLE_FULL = "flow_table_full"
    IDLE_TIMEOUT = "idle_timeout"
    WRITE_TIMEOUT = "write_timeout"
    READ_TIMEOUT = "read_timeout"
    DRAINING = "draining"
    """A datagram of a client without a flow, of a service that is going away."""
    DRAIN_TIMEOUT = "drain_timeout"
    FLUSHED = "flushed"
    """An established connection or flow, whose backend was flushed."""
    SEND_FAILED = "send_failed"
