"""Every error that MarchProxy raises on purpose. Messages say what, where and what to do."""

from __future__ import annotations

import attrs


class MarchProxyError(Exception):
    """Base of all the errors below; anything else that escapes is a bug of ours.

    ``exit_status`` is what ``marchproxy`` exits with when the error reaches the command line.
    """

    exit_status = 1


@attrs.frozen
class ConfigProblem:
    """One thing wrong with the configuration."""

    where: str
    """``file:line`` or ``env NAME``."""
    what: str
    """The setting or path inside the file, as ``services[0].port``."""
    got: str
    want: str
    nearest: str | None = None
    """The nearest known name, where the name was not known."""

    def __str__(self) -> str:
        hint = f"; did you mean {self.nearest}?" if self.nearest else ""
        got = f"got {self.got}, " if self.got else ""
        return f"{self.where}: {self.what}: {got}want {self.want}{hint}"


class ConfigError(MarchProxyError):
    """The configuration has problems; all of them, not just the first."""

    exit_status = 2

    def __init__(self, problems: tuple[ConfigProblem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class TierFault(MarchProxyError):
    """A tier's plugin broke its contract, raised, or hung; the tier is demoted, the daemon runs on."""

    def __init__(self, tier: str, stage: str, what: str, fix: str = "") -> None:
        """Name the tier, the stage (``import``, ``register``, a hook's name, ``running``) and what happened."""
        super().__init__(f"tier {tier!r} failed at {stage}: {what}" + (f" - fix: {fix}" if fix else ""))
        self.tier = tier
        self.stage = stage
        self.what = what
        self.fix = fix


class TierUnavailable(MarchProxyError):
    """``attach`` found that the host lacks something; what a tier raises to say so.

    Unlike a fault it is not the plugin's error: the tier is refused with need, have and fix.
    """

    def __init__(self, need: str, have: str, fix: str) -> None:
        super().__init__(f"need {need}, have {have} - fix: {fix}")
        self.need = need
        self.have = have
        self.fix = fix


class StartRefused(MarchProxyError):
    """The daemon may not start: a required tier cannot run, or a service has no tier at all."""

    exit_status = 3


class ListenError(MarchProxyError):
    """An address could not be opened: in use, no right, or not this host's."""

    exit_status = 4


class DoorError(MarchProxyError):
    """A change of the rules at the front door was refused; nothing was changed."""


class AdminError(MarchProxyError):
    """The admin API of a running daemon could not be reached or refused."""

    exit_status = 5
