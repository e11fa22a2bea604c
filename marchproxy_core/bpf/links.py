"""Programs on interfaces by BPF links: one descriptor that is the attachment, replaced without a gap.

A link lasts as long as its descriptor or its pin: the death of the process takes an unpinned one off the
interface. The interface is looked up in the network namespace of the calling thread.
"""

from __future__ import annotations

import enum
import struct
from typing import TYPE_CHECKING, final

import attrs

from marchproxy_core.bpf.objects import Descriptor, open_by_id, open_pinned, read_info
from marchproxy_core.bpf.programs import AttachType, Program
from marchproxy_core.bpf.syscall import Command, bpf

if TYPE_CHECKING:
    import os

_CREATE = struct.Struct("=4I")  # prog_fd, target_ifindex, attach_type, flags
_TCX = struct.Struct("=I4xQ")  # relative_fd, expected_revision
_UPDATE = struct.Struct("=4I")  # link_fd, new_prog_fd, flags, old_prog_fd
_REPLACE = 1 << 2  # BPF_F_REPLACE
_BEFORE = 1 << 3  # BPF_F_BEFORE; relative to nothing: before all
_INFO_BYTES = 64
_INFO = struct.Struct("=3I4x2I")  # type, id, prog_id, ifindex, attach_type


class XdpMode(enum.IntFlag):
    """Where a packet meets its XDP program, as XDP_FLAGS of netlink."""

    ANY = 0
    """The driver's where it has one, else generic."""
    GENERIC = 1 << 1
    """After the kernel has made its buffer: works on any interface, and slowly."""
    DRIVER = 1 << 2
    HARDWARE = 1 << 3


class LinkType(enum.IntEnum):
    """``enum bpf_link_type``, those that carry packets."""

    NETNS = 5
    XDP = 6
    TCX = 11


@attrs.frozen(kw_only=True)
class LinkInfo:
    """A link as the kernel describes it."""

    id: int
    type: int
    program_id: int
    interface: int
    """Index; 0 when the interface is gone or the link was detached."""


@final
class Link(Descriptor):
    """An attachment. Closing it detaches, unless it is pinned."""

    @classmethod
    def attach_xdp(cls, program: Program, interface: int, mode: XdpMode = XdpMode.ANY) -> Link:
        """Put an XDP program on an interface (Linux 5.9).

        Args:
            program: Loaded; may be closed afterwards.
            interface: Its index.
            mode: One of them.

        Raises:
            BpfError: EBUSY: another program is there, see :func:`who_holds_xdp`; EOPNOTSUPP: the driver has no such
                mode; ERANGE or EINVAL: the driver cannot in its present settings (MTU, queues, LRO); ENODEV.
        """
        attributes = _CREATE.pack(program.fd, interface, AttachType.XDP, mode)
        return cls(bpf(Command.LINK_CREATE, attributes, f"XDP on interface {interface}")[0])

    @classmethod
    def attach_tcx(
        cls, program: Program, interface: int, *, first: bool = False, egress: bool = False
    ) -> Link:
        """Put a SCHED_CLS program on an interface, beside the others there (Linux 6.6).

        All of them run before clsact's filters; one that returns TCX_NEXT (-1) leaves the packet to the next one.

        Args:
            program: Loaded; may be closed afterwards.
            interface: Its index.
            first: Before all that are there now; else after them.
            egress: On its way out instead of in.

        Raises:
            BpfError: EINVAL: a kernel before 6.6; EEXIST: the same loaded program is there already; ENODEV.
        """
        kind = AttachType.TCX_EGRESS if egress else AttachType.TCX_INGRESS
        attributes = _CREATE.pack(program.fd, interface, kind, _BEFORE if first else 0) + _TCX.pack(0, 0)
        return cls(bpf(Command.LINK_CREATE, attributes, f"{kind.name} on interface {interface}")[0])

    @classmethod
    def open_pinned(cls, path: str | os.PathLike[str]) -> Link:
        """Open a link that is pinned.

        Raises:
            BpfError: ENOENT when nothing is there.
        """
        return cls(open_pinned(path))

    @classmethod
    def open_id(cls, number: int) -> Link:
        """Open the link with this id.

        Raises:
            BpfError: ENOENT when it is gone.
        """
        return cls(open_by_id(Command.LINK_GET_FD_BY_ID, number, "link"))

    def update(self, new: Program, old: Program | None = None) -> None:
        """Replace the program; each packet meets the one or the other.

        Args:
            new: Of the same type and flags as the one attached.
            old: What is expected to be attached; anything when None.

        Raises:
            BpfError: EPERM: another one than ``old`` is attached; ENOLINK: the interface
                is gone, or the link was detached; EEXIST: another TCX link of the interface has ``new``.
        """
        attributes = _UPDATE.pack(self.fd, new.fd, _REPLACE if old else 0, old.fd if old else 0)
        bpf(Command.LINK_UPDATE, attributes, "link")

    def detach(self) -> None:
        """Take the program off the interface now, also where the link is pinned or held by others."""
        bpf(Command.LINK_DETACH, struct.pack("=I", self.fd), "link")

    def info(self) -> LinkInfo:
        """Return what the kernel says of it."""
        kind, number, program_id, interface, _ = _INFO.unpack_from(read_info(self.fd, _INFO_BYTES, "link"))
        return LinkInfo(
            id=number,
            type=LinkType(kind) if kind in LinkType._value2member_map_ else kind,
            program_id=program_id,
            interface=interface,
        )
