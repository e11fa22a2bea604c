"""What became of a packet and why: the engine's verdicts and reasons, in Python and in C (``c/types.h``) alike."""

from __future__ import annotations

import enum


class Verdict(enum.IntEnum):
    """``enum mp_verdict``."""

    PASS = 0
    """Left as it came, for the next tier."""
    FORWARD = 1
    REPLY = 2
    """Answered by an ICMP error."""
    DROP = 3


class Hook(enum.IntEnum):
    """``enum mp_hook``: where the engine runs."""

    XDP = 0
    TC = 1

    @property
    def bit(self) -> int:
        """Its bit in a mask of hooks."""
        return 1 << self


class Reason(enum.IntEnum):
    """``enum mp_reason``; those from ``NO_SOURCE_PORT`` on drop the packet, the others pass it on as a rule."""

    FORWARDED = 0
    NOT_IP = 1
    NOT_OURS = 2
    """No service lives there, and no flow is known."""
    TAGGED = 3
    """In a VLAN: for the program of the VLAN's own interface."""
    FRAGMENT = 4
    UNKNOWN_EXTENSION = 5
    """IPv6 extension headers that cannot be walked through, or too many."""
    MALFORMED = 6
    NO_FLOW = 7
    """Of a service, but neither of a known flow nor the beginning of one: a lower tier's connection."""
    OTHER_TIER = 8
    """Of a service that this hook is not to carry."""
    LOCAL_DESTINATION = 9
    """The backend, or the client, is this host."""
    NO_BACKEND = 10
    NO_ROUTE = 11
    NO_NEIGHBOUR = 12
    """The next hop's link-layer address is not known."""
    NO_SOURCE_PORT = 13
    FLOW_TABLE_FULL = 14
    FLOW_ENDING = 15
    """It would open a flow whose end is not done yet, or that another CPU opens at this moment."""
    BLOCKED = 16
    """From a prefix that was blocked."""
    PACE = 17
    """Its client sends more packets than he may."""
    TOO_MANY_OPENING = 18
    """It would open one more TCP flow of a service that has many whose handshake is not done: a flood of SYNs."""
    MAX_CONNECTIONS = 19
    GLOBAL_MAX_CONNECTIONS = 20
    CONNECTION_RATE = 21
    GLOBAL_CONNECTION_RATE = 22
    TTL_EXPIRED = 23
    TOO_BIG = 24
    """For the next hop."""
    ERROR_RATE = 25
    """It would have been answered by an ICMP error, of which there were enough."""
    FAULT = 26
    """A table lacks what must be there: a defect of ours."""
