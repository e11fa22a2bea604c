"""What this process holds: taken before and after, two censuses show what was leaked.

Reads /proc only. Counted are descriptors, child processes, threads, trio tasks, laboratories' namespaces of
this process, and the files in directories that the caller names.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import attrs
import trio

from marchproxy_core.testing.lab import naming
from marchproxy_core.testing.waiting import until

_IDLE_TRIO_THREAD = "Trio thread"  # a busy one is named after its work


@attrs.frozen(kw_only=True)
class ResourceCensus:
    """Everything held at one moment; each thing is a line of text that a person can make sense of."""

    descriptors: frozenset[str]
    children: frozenset[str]
    threads: frozenset[str]
    tasks: frozenset[str]
    namespaces: frozenset[str]
    files: frozenset[str]

    @classmethod
    def take(cls, directories: Iterable[Path] = ()) -> ResourceCensus:
        """Count what is held now.

        Args:
            directories: Whose files count too, at any depth.
        """
        return cls(
            descriptors=frozenset(_descriptors()),
            children=frozenset(_children()),
            threads=frozenset(
                f"{thread.name} ({thread.ident})"
                for thread in set(threading.enumerate()) - idle_trio_threads()
            ),
            tasks=frozenset(_tasks()),
            namespaces=frozenset(naming.own_names()),
            files=frozenset(str(path) for directory in directories for path in directory.rglob("*")),
        )

    def leaked_since(self, before: ResourceCensus) -> tuple[str, ...]:
        """List what is held now and was not then, as ``descriptors: socket:[4711]``."""
        # A child has its parent's name until it has become another program; the pid says which it is.
        known = {_pid(child) for child in before.children}
        return tuple(
            f"{field.name}: {thing}"
            for field in attrs.fields(ResourceCensus)
            for thing in sorted(getattr(self, field.name) - getattr(before, field.name))
            if field.name != "children" or _pid(thing) not in known
        )

    @property
    def descriptors_by_kind(self) -> Counter[str]:
        """How many descriptors of each kind, as ``socket``, ``pipe``, ``anon_inode`` or ``file``."""
        return Counter(_kind(target.partition(" ")[2]) for target in self.descriptors)


async def assert_nothing_leaked(
    before: ResourceCensus, directories: Iterable[Path] = (), *, deadline_s: float = 5.0
) -> None:
    """Fail when more is held than before; what is still on its way out gets until the deadline.

    Raises:
        AssertionError: With a line for each thing leaked.
    """
    directories = tuple(directories)

    def leaked() -> tuple[str, ...]:
        return ResourceCensus.take(directories).leaked_since(before)

    try:
        await until(lambda: not leaked(), deadline_s=deadline_s)
    except TimeoutError:
        lines = leaked()
        if lines:
            raise AssertionError("leaked:\n  " + "\n  ".join(lines)) from None


def idle_trio_threads() -> set[threading.Thread]:
    """Return the threads that trio keeps, for ten seconds each, to use again."""
    return {thread for thread in threading.enumerate() if thread.name.startswith(_IDLE_TRIO_THREAD)}


def _descriptors() -> Iterable[str]:
    # The listing has a descriptor of its own, which is closed by the time it is read.
    for fd in os.listdir("/proc/self/fd"):
        try:
            yield f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}"
        except FileNotFoundError:
            continue


def _kind(target: str) -> str:
    return "file" if target.startswith("/") else target.partition(":")[0]


def _children() -> Iterable[str]:
    for task in os.listdir("/proc/self/task"):
        try:
            pids = Path(f"/proc/self/task/{task}/children").read_text(encoding="ascii").split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for pid in pids:
            try:
                command = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
            except (FileNotFoundError, ProcessLookupError):
                continue
            yield f"{pid} {command!r}"


def _pid(child: str) -> str:
    return child.partition(" ")[0]


def _tasks() -> Iterable[str]:
    try:
        root = trio.lowlevel.current_root_task()
    except RuntimeError:
        return
    waiting = [root] if root else []
    while waiting:
        task = waiting.pop()
        yield f"{task.name} ({id(task):#x})"
        waiting.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)
