"""Builds the fuzzer, gives it the engine's tables, and writes its corpus from the rows of the packet table.

``scripts/fuzz`` is the way to it from a shell.
"""

from __future__ import annotations

import argparse
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from marchproxy_core.packet import layout
from marchproxy_core.packet.layout import SOURCES
from marchproxy_core.packet.plain import FLAGS
from marchproxy_core.packet.reasons import Hook
from marchproxy_core.testing.packets.places import (
    BACKEND,
    CLIENT,
    LISTEN,
    NARROW_BACKEND,
    NOWHERE,
    OTHER_CLIENT,
    OTHER_SOURCE,
    SILENT,
    SOURCE,
    VERSIONS,
)
from marchproxy_core.testing.packets.plain_engine import plain_routes
from marchproxy_core.testing.packets.row import FINISHING, Later, Marked, Row, Step
from marchproxy_core.testing.packets.table import SUBJECTS, rows_of
from marchproxy_core.testing.packets.world import PORTS, TCP, UDP, Backend, Entry, Service, World, entries

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
_MOST_EVENTS, _MOST_BYTES = 16, 2048
_PARTIAL, _AT_XDP, _DROP_MALFORMED, _WITH_PREFIXES, _WITH_PACE, _FEW_FLOWS, _FEW_ERRORS, _FEW_OPENING = (
    1 << bit for bit in range(8)
)
_ROOMY_FRAME, _LATER, _MARKED = 0x4000, 0x8000, 0xC000
_PLACES = (BACKEND, NARROW_BACKEND, NOWHERE, SILENT, LISTEN)


def world() -> World:
    """Return the tables: a service of each kind whose backends are in all sorts of places, and prefixes."""
    services, backends = [], []
    for version in VERSIONS:
        for protocol in (TCP, UDP):
            port, backend_port = PORTS[protocol]
            first = len(backends) + 1
            for place in _PLACES:
                sources = (SOURCE.of(version), OTHER_SOURCE.of(version))
                backends.append(Backend(address=place.of(version), port=backend_port, sources=sources))
            # Most clients get the first, so that there are flows.
            picks = (first,) * 12 + tuple(range(first, first + len(_PLACES)))
            services.append(
                Service(
                    address=LISTEN.of(version),
                    port=port,
                    protocol=protocol,
                    picks=picks,
                    by_address=version == 4,
                    limits={"max_active": 12, "interval": 1 << 20, "burst": 1 << 34},
                )
            )
    prefixes = tuple(
        _prefix(OTHER_CLIENT.of(version).packed, door, number)
        for version in VERSIONS
        for number, door in ((0, 1), (1, 2), (4, 2))
    )
    blocked = tuple(_prefix(CLIENT.of(version).packed[:-1] + b"\x40", 2, 0) for version in VERSIONS)
    return World(
        services=tuple(services),
        backends=tuple(backends),
        settings={"first_port": 40000, "last_port": 40003},
        extra=prefixes + blocked,
    )


def _prefix(packed: bytes, door: int, service: int) -> Entry:
    address = bytes(10) + b"\xff\xff" + packed if len(packed) == 4 else packed
    key = layout.PREFIX_KEY.pack(
        bits=32 + 124, service=service, address=address[:-1] + bytes((address[-1] & 0xF0,))
    )
    return "PREFIXES", key, layout.PREFIX.pack(door=door)


def write_tables(target: Path) -> Path:
    """Write the tables as tables.h reads them."""
    numbers = layout.enumeration("mp_table")
    with target.open("wb") as file:
        for route in plain_routes():
            value = route.destination + struct.pack("<3I", route.reason, route.interface, route.mtu)
            value += route.source_mac + route.destination_mac
            file.write(struct.pack("<4I", numbers["TABLES"], 0, len(value), 0) + value)
        for table, key, value in entries(world(), Hook.TC):
            file.write(struct.pack("<4I", numbers[table], len(key), len(value), 0) + key + value)
    return target


def build_fuzzer(target: Path, sources: Path = SOURCES) -> Path:
    """Compile engine and fuzzer, with sanitizers; only the engine tells which edges it takes."""
    compiler = os.environ.get("CC", "cc")
    # Not position-independent: edges are told apart by addresses, and would be others each time.
    flags = [*FLAGS, "-O1", *SANITIZERS, "-fno-pie", "-no-pie", f"-I{sources}"]
    engine = target.with_suffix(".o")
    subprocess.run(
        [compiler, *flags, "-fsanitize-coverage=trace-pc", "-c", "-o", engine, sources / "plain.c"],
        check=True,
    )
    subprocess.run([compiler, *flags, "-o", target, HERE / "fuzz.c", engine], check=True)
    return target


def fuzz(
    fuzzer: Path, tables: Path, *, seconds: float, seed: int, finding: Path, files: Sequence[Path]
) -> subprocess.CompletedProcess[str]:
    """Run the fuzzer; its status is 0 when it found nothing.

    Args:
        fuzzer: As built.
        tables: As written.
        seconds: How long; 0 only runs the files, and lists those that take a new edge.
        seed: Where its numbers begin.
        finding: Where to write an input that breaks something.
        files: What to begin with.
    """
    # What is freed is kept for a while, so that its use is seen; each input has a world of megabytes.
    environment = {**os.environ, "ASAN_OPTIONS": "quarantine_size_mb=16:detect_leaks=0"}
    return subprocess.run(
        [fuzzer, tables, str(seconds), str(seed), finding, *files],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )


def inputs_of(row: Row) -> bytes:
    """Return a row's steps as an input, as input.h reads it; what does not fit is left out."""
    options = 0
    settings = row.world.settings
    if row.builds <= FINISHING:
        options |= _PARTIAL | _AT_XDP
    if settings.get("doors", 0) & 4:
        options |= _DROP_MALFORMED
    if row.world.extra:
        options |= _WITH_PREFIXES
    if settings.get("pace_interval"):
        options |= _WITH_PACE
    if row.world.flows < _MOST_EVENTS:
        options |= _FEW_FLOWS
    if settings.get("error_interval"):
        options |= _FEW_ERRORS
    if settings.get("max_opening"):
        options |= _FEW_OPENING
    events = [event for step in row.steps for event in _events(step)]
    return bytes((options,)) + b"".join(events[:_MOST_EVENTS])


def _events(step: Step) -> Iterator[bytes]:
    for change in step.changes:
        match change:
            case Later(by_ns):
                yield struct.pack(">H", _LATER | min(by_ns >> 30, 0x3FFF))
            case Marked(fields) if "ended" in fields:
                yield struct.pack(">H", _MARKED | bool(fields["ended"]))
    if len(step.frame) <= _MOST_BYTES:
        yield struct.pack(">H", _ROOMY_FRAME | len(step.frame)) + step.frame


def write_corpus(fuzzer: Path, tables: Path, target: Path) -> int:
    """Write the rows that take an edge which no row before them takes, one file each; return how many.

    Files of other names stay: what the fuzzer once found is kept so.
    """
    with tempfile.TemporaryDirectory() as name:
        all_rows = Path(name)
        for subject in SUBJECTS:
            for number, row in enumerate(rows_of(subject)):
                (all_rows / f"row-{subject}-{number:03}").write_bytes(inputs_of(row))
        files = sorted(path for path in all_rows.iterdir() if path.stat().st_size > 1)
        run = fuzz(fuzzer, tables, seconds=0, seed=0, finding=target / "finding", files=files)
        if run.returncode:
            raise RuntimeError(run.stderr)
        for old in target.glob("row-*"):
            old.unlink()
        for path in run.stdout.splitlines():
            shutil.copy(path, target)
        return len(run.stdout.splitlines())


def main() -> int:
    """Build, and do as the words say."""
    words = argparse.ArgumentParser(prog="scripts/fuzz", description="Fuzz the packet engine.")
    words.add_argument("seconds", help="how long; or 'corpus' to write the corpus anew from the packet table")
    words.add_argument("seed", nargs="?", type=int, default=1, help="where its random numbers begin")
    given = words.parse_args()
    with tempfile.TemporaryDirectory() as name:
        fuzzer, tables = build_fuzzer(Path(name, "fuzz")), write_tables(Path(name, "tables"))
        if given.seconds == "corpus":
            sys.stdout.write(f"{write_corpus(fuzzer, tables, CORPUS)} files\n")
            return 0
        finding = Path(tempfile.gettempdir(), f"marchproxy-finding-{os.getpid()}")
        run = fuzz(
            fuzzer,
            tables,
            seconds=float(given.seconds),
            seed=given.seed,
            finding=finding,
            files=sorted(CORPUS.iterdir()),
        )
    sys.stdout.write(run.stdout + run.stderr)
    return run.returncode


if __name__ == "__main__":
    sys.exit(main())
