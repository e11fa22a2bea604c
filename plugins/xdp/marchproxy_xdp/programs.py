"""The program in its builds: compiled and loaded when an interface needs one, kept until the tier lets go. Blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, final

from marchproxy_core.bpf import XDP_HAS_FRAGS, Program, ProgramType, compile_program
from marchproxy_core.packet.layout import SOURCES

if TYPE_CHECKING:
    from types import TracebackType

    from marchproxy_core.packet.shared import PacketEngine
    from marchproxy_xdp.judging import Build

NAME = "marchproxy_xdp"
"""What the kernel shows of it, as in ``bpftool prog``."""
_FUNCTION = "mp_xdp"
_SOURCE = "xdp.c"


@final
class Programs:
    """The builds that are loaded, on one engine's tables; close it, and those that are attached stay alive."""

    def __init__(self, engine: PacketEngine) -> None:
        """Load nothing yet."""
        self._engine = engine
        self._loaded: dict[Build, Program] = {}

    def get(self, build: Build) -> Program:
        """Return a build, loaded now if need be; closed by this.

        Raises:
            TierUnavailable: bcc or the kernel's headers are missing.
            ProgramRefused, BpfError: The kernel does not take it.
        """
        if build not in self._loaded:
            self._loaded[build] = self._load(build)
        return self._loaded[build]

    def close(self) -> None:
        """Let go of all of them."""
        while self._loaded:
            self._loaded.popitem()[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _load(self, build: Build) -> Program:
        return Program.load(
            compiled(build),
            ProgramType.XDP,
            maps=self._engine.tables.maps,
            name=NAME,
            flags=XDP_HAS_FRAGS if build.frags else 0,
        )


def compiled(build: Build) -> bytes:
    """Return a build's instructions; in the cache from then on.

    Raises:
        TierUnavailable: bcc or the kernel's headers are missing.
    """
    wanted = {"MP_PARTIAL": build.partial, "MP_FRAGS": build.frags, "MP_GENERIC": build.generic}
    return compile_program(
        (SOURCES / _SOURCE).read_text(encoding="ascii"),
        functions=[_FUNCTION],
        name=_SOURCE,
        include_dirs=[SOURCES],
        defines={name: 1 for name, is_wanted in wanted.items() if is_wanted},
    )[_FUNCTION]
