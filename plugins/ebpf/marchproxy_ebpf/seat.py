"""The TC program on its interfaces: by TCX links where the kernel has them, else by filters of clsact.

Both outlive this process when it is killed, and are found again and brought up to date at the next start; other
people's filters and links stay where they are, and ours comes after them. Blocks.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, final

from marchproxy_core.bpf import (
    BpfError,
    Direction,
    Link,
    Program,
    ProgramType,
    TcFilter,
    attach_filter,
    compile_program,
    detach_filter,
    filters_on,
)
from marchproxy_core.errors import TierFault
from marchproxy_core.packet.arrangement import Fitness
from marchproxy_core.packet.layout import SOURCES

if TYPE_CHECKING:
    from marchproxy_core.packet.shared import PacketEngine

TCX_KERNEL = (6, 6, 0)
_FUNCTION = "mp_tc_ingress"
_PIN = "tc-"
"""What the names of pinned links begin with; the index of the interface follows."""


def load(engine: PacketEngine) -> Program:
    """Compile and load the program on the engine's tables; the caller closes it.

    Raises:
        TierUnavailable: bcc or the kernel's headers are missing.
        ProgramRefused, BpfError: The kernel does not take it.
    """
    name = "tc.c"
    code = compile_program(
        (SOURCES / name).read_text(encoding="ascii"), functions=[_FUNCTION], name=name, include_dirs=[SOURCES]
    )
    return Program.load(code[_FUNCTION], ProgramType.SCHED_CLS, maps=engine.tables.maps, name="marchproxy_tc")


class _Place(Protocol):
    """The program on one interface."""

    def is_there(self) -> bool: ...

    def leave(self) -> None: ...

    def let_go(self) -> None: ...


@final
class TcSeat:
    """Where the program is; ``stand_on({})`` takes it off all interfaces."""

    def __init__(self, engine: PacketEngine, program: Program, *, tcx: bool) -> None:
        """Take over the links that a daemon before this one left pinned; with filters, be nowhere yet.

        Args:
            engine: For its pins.
            program: Loaded; closed by the caller, after this.
            tcx: Whether the kernel has TCX links.
        """
        self._engine = engine
        self._program = program
        self._tcx = tcx
        self._places: dict[int, _Place] = _left_behind(engine, program) if tcx else {}
        self._names = {index: socket.if_indextoname(index) for index in self._places}

    @property
    def interfaces(self) -> frozenset[str]:
        """Names of those it is on."""
        return frozenset(self._names.values())

    def judge(self, interfaces: Mapping[int, str]) -> Fitness:
        """A TC program can be on any of them."""
        del interfaces
        return Fitness()

    def stand_on(self, interfaces: Mapping[int, str]) -> None:
        """Have the program on exactly these interfaces."""
        for index in self._places.keys() - interfaces.keys():
            self._places.pop(index).leave()
        for index in interfaces.keys() - self._places.keys():
            make = _LinkPlace.take if self._tcx else _FilterPlace.take
            self._places[index] = make(self._engine, self._program, index)
        self._names = dict(interfaces)

    def let_go(self) -> None:
        """Leave the program where it still is; nothing else is called after this."""
        for place in self._places.values():
            place.let_go()
        self._places.clear()

    def check(self) -> None:
        """Raise TierFault when the program is gone from an interface."""
        for index, place in tuple(self._places.items()):
            if not place.is_there():
                name = self._names.get(index, str(index))
                raise TierFault(
                    "ebpf",
                    "running",
                    f"the program is gone from interface {name}",
                    "find out who removed it; it is put back at the next try",
                )


@final
class _LinkPlace:
    def __init__(self, engine: PacketEngine, link: Link, pin: str) -> None:
        self._engine = engine
        self._link = link
        self._pin = pin

    @classmethod
    def take(cls, engine: PacketEngine, program: Program, index: int) -> _LinkPlace:
        pin = f"{_PIN}{index}"
        link = Link.attach_tcx(program, index)
        engine.pins.pin(link, pin)
        return cls(engine, link, pin)

    @classmethod
    def take_over(cls, engine: PacketEngine, program: Program, pin: str) -> _LinkPlace | None:
        link = Link.open_pinned(engine.pins.file(pin))
        if not link.info().interface:  # it is gone, or the link was detached
            link.close()
            engine.pins.unpin(pin)
            return None
        link.update(program)
        return cls(engine, link, pin)

    def is_there(self) -> bool:
        return self._link.info().interface != 0

    def leave(self) -> None:
        with contextlib.suppress(BpfError):  # the interface is gone, and the link with it
            self._link.detach()
        self._engine.pins.unpin(self._pin)
        self._link.close()

    def let_go(self) -> None:
        self._link.close()


def _left_behind(engine: PacketEngine, program: Program) -> dict[int, _Place]:
    found = {
        int(pin.removeprefix(_PIN)): _LinkPlace.take_over(engine, program, pin)
        for pin in engine.pins.names()
        if pin.startswith(_PIN)
    }
    return {index: place for index, place in found.items() if place is not None}


@final
class _FilterPlace:
    def __init__(self, held: TcFilter) -> None:
        self._held = held

    @classmethod
    def take(cls, engine: PacketEngine, program: Program, index: int) -> _FilterPlace:
        del engine
        return cls(attach_filter(program, index))

    def is_there(self) -> bool:
        return self._held in filters_on(self._held.interface, Direction.INGRESS)

    def leave(self) -> None:
        with contextlib.suppress(OSError):  # the interface is gone, and the filter with it
            detach_filter(self._held)

    def let_go(self) -> None:
        pass
