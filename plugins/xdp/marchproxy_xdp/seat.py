"""The XDP program on its interfaces: by links, pinned, so that they outlive this process when it is killed.

The next daemon finds them again, and replaces the program without a gap. Somebody else's program is never replaced,
nor is ours by others: the kernel refuses both where there is a link. Blocks.
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, final

import attrs

from marchproxy_core.bpf import BpfError, Link, XdpMode, who_holds_xdp
from marchproxy_core.errors import TierFault, TierUnavailable
from marchproxy_core.packet.arrangement import Fitness
from marchproxy_xdp.interfaces import Feature, Place, look_at, read_features
from marchproxy_xdp.judging import build_for, loss_on, needs_of, xmit_need
from marchproxy_xdp.programs import NAME

if TYPE_CHECKING:
    from marchproxy_core.bpf import Program, XdpHolder
    from marchproxy_core.model import Requirement
    from marchproxy_core.packet.shared import PacketEngine
    from marchproxy_xdp.programs import Programs

_PIN = "xdp-"
"""What the names of pinned links begin with; the index of the interface follows."""
_MODES = {XdpMode.DRIVER: "driver", XdpMode.GENERIC: "generic"}
_PATIENCE_S = 2.0
"""For what the kernel takes off an interface by and by, after the last pin of its link went."""
_LOOK_S = 0.02
_FIND_OUT = "find out who did it; the program is put back at the next try"


@attrs.frozen(kw_only=True, eq=False)
class _Held:
    """The program on one interface."""

    link: Link
    pin: str
    name: str
    program: int
    """The program's id."""


@final
class XdpSeat:
    """Where the program is; ``stand_on({})`` takes it off all interfaces."""

    def __init__(
        self,
        engine: PacketEngine,
        programs: Programs,
        *,
        mode: XdpMode,
        kernel: tuple[int, int, int],
        forced: bool,
    ) -> None:
        """Take over the links that a daemon before this one left pinned, where they are in our mode.

        Args:
            engine: For its pins.
            programs: Where the builds are; closed by the caller, after this.
            mode: The same on all interfaces.
            kernel: Its version.
            forced: Whether interfaces are taken also where a lower tier does better.
        """
        self._engine = engine
        self._programs = programs
        self._mode = mode
        self._kernel = kernel
        self._forced = forced
        self._held: dict[int, _Held] = {}
        try:
            self._take_over()
        except BaseException:
            self.let_go()
            raise

    @property
    def interfaces(self) -> frozenset[str]:
        """Names of those it is on."""
        return frozenset(held.name for held in self._held.values())

    def judge(self, interfaces: Mapping[int, str]) -> Fitness:
        """Say where the program cannot be, and where a lower tier does better."""
        refused: dict[int, str] = {}
        avoided: dict[int, str] = {}
        for place in look_at(interfaces.values()):
            if needs := needs_of(place, self._mode):
                refused[place.index] = "; ".join(f"need {need.need}, have {need.have}" for need in needs)
            elif (loss := loss_on(place, self._mode)) and not self._forced:
                avoided[place.index] = loss
        return Fitness(refused=refused, avoided=avoided)

    def stand_on(self, interfaces: Mapping[int, str]) -> None:
        """Have the program on exactly these interfaces.

        Raises:
            TierUnavailable: Somebody else's program is on one, or one cannot have ours.
        """
        for index in self._held.keys() - interfaces.keys():
            self._leave(self._held.pop(index))
        places = {place.index: place for place in look_at(interfaces.values())} if interfaces else {}
        for index in interfaces.keys() - self._held.keys():
            if index in places:  # else it is gone since; netlink will say so
                self._held[index] = self._take(places[index])
        if interfaces and self._mode is XdpMode.DRIVER:
            _refuse(xmit_need(place for place in look_at(interfaces.values()) if place.index in self._held))

    def check(self) -> None:
        """Raise TierFault when the program is gone from an interface, is another one, or redirects into nowhere."""
        held = dict(self._held)
        for one in held.values():
            info = one.link.info()
            if not info.interface:
                raise _fault(f"the program is gone from interface {one.name}", _FIND_OUT)
            if info.program_id != one.program:
                raise _fault(
                    f"another program ({info.program_id}) is in our link on interface {one.name}", _FIND_OUT
                )
        if held and self._mode is XdpMode.DRIVER:
            features = read_features() or {}
            for index in held.keys() & features.keys():
                if Feature.NDO_XMIT not in features[index]:
                    raise _fault(
                        f"interface {held[index].name} takes no redirected frames any more",
                        "on a veth: ethtool -K PEER gro on, in the peer's namespace",
                    )

    def let_go(self) -> None:
        """Leave the program where it still is; nothing else is called after this."""
        while self._held:
            self._held.popitem()[1].link.close()

    def _take_over(self) -> None:
        pins = [pin for pin in self._engine.pins.names() if pin.startswith(_PIN)]
        places = {f"{_PIN}{place.index}": place for place in look_at()} if pins else {}
        for pin in pins:
            with contextlib.ExitStack() as undo:
                link = undo.enter_context(Link.open_pinned(self._engine.pins.file(pin)))
                place = places.get(pin)
                if place and self._is_right(link, place) and _is_updated(link, self._build(place)):
                    self._held[place.index] = self._as_held(place, link)
                    undo.pop_all()
                    continue
                _detach(link)
                self._engine.pins.unpin(pin)

    def _is_right(self, link: Link, place: Place) -> bool:
        """Whether the link still is on its interface, in our mode."""
        if link.info().interface != place.index:
            return False
        return {holder.mode for holder in who_holds_xdp(place.index)} == {_MODES.get(self._mode)}

    def _take(self, place: Place) -> _Held:
        with contextlib.ExitStack() as undo:
            link = undo.enter_context(self._attached(place, self._build(place)))
            held = self._as_held(place, link)
            self._engine.pins.pin(link, held.pin)
            undo.pop_all()
            return held

    def _build(self, place: Place) -> Program:
        return self._programs.get(build_for(place, self._mode, self._kernel))

    def _as_held(self, place: Place, link: Link) -> _Held:
        return _Held(
            link=link, pin=f"{_PIN}{place.index}", name=place.name, program=self._build(place).info().id
        )

    def _attached(self, place: Place, program: Program) -> Link:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            holders = who_holds_xdp(place.index)
            others = [one for one in holders if one.name != NAME]
            if others:
                raise _foreign(place, others[0])
            try:
                return Link.attach_xdp(program, place.index, self._mode)
            except BpfError as error:
                if error.errno in (errno.EBUSY, errno.EEXIST) and time.monotonic() < deadline:
                    time.sleep(_LOOK_S)  # noqa: TID251 - in a thread
                    continue
                if holders:
                    raise _foreign(place, holders[0]) from error
                raise _unfit(place, self._mode, error) from error

    def _leave(self, held: _Held) -> None:
        _detach(held.link)
        self._engine.pins.unpin(held.pin)


def _fault(what: str, fix: str) -> TierFault:
    return TierFault("xdp", "running", what, fix)


def _is_updated(link: Link, program: Program) -> bool:
    """Have the link run the program, if it can: its flags may be others, or the driver against it."""
    try:
        link.update(program)
    except BpfError:
        return False
    return True


def _detach(link: Link) -> None:
    with link, contextlib.suppress(BpfError):  # the interface is gone, and the link with it
        link.detach()


def _foreign(place: Place, holder: XdpHolder) -> TierUnavailable:
    (need, *_) = needs_of(attrs.evolve(place, held_by=(holder,)), XdpMode.DRIVER)
    return TierUnavailable(need.need, need.have, need.fix)


def _unfit(place: Place, mode: XdpMode, error: BpfError) -> TierUnavailable:
    return TierUnavailable(
        f"XDP in {_MODES.get(mode, 'hardware')} mode on {place.name}",
        f"{error.errno_name} from {place.driver or 'its driver'}: {error.strerror}",
        f"see dmesg; MTU ({place.mtu}), queues (ethtool -l) and LRO are the usual reasons; or ENABLE_XDP=false",
    )


def _refuse(need: Requirement | None) -> None:
    if need is not None:
        raise TierUnavailable(need.need, need.have, need.fix)
