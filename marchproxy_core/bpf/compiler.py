"""From C to instructions: bcc compiles, in a process of its own, and a cache spares most of it.

Nothing here loads anything. Blocks for some 0.3 s where the cache has nothing: call it in a thread.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from marchproxy_core.bpf import compile_cache, compiling
from marchproxy_core.bpf.instructions import MAP_MARK
from marchproxy_core.bpf.toolchain import Toolchain, find_toolchain
from marchproxy_core.errors import MarchProxyError, TierUnavailable

_FORMAT = 1
"""Raise it when the same source would have to be compiled anew for another reason."""
_DEADLINE_S = 120.0
_MOST_LINES = 60
_INHERITED = ("PATH", "LD_LIBRARY_PATH", "TMPDIR")


class CompileError(MarchProxyError):
    """The C source does not compile. ``diagnostics`` is what clang said, with file, line and column."""

    def __init__(self, name: str, diagnostics: str) -> None:
        """Name the source and what is wrong with it."""
        lines = diagnostics.strip().splitlines()
        shown = lines[:_MOST_LINES]
        if len(lines) > _MOST_LINES:
            shown.append(f"({len(lines) - _MOST_LINES} lines omitted)")
        super().__init__("\n".join([f"{name} does not compile:", *shown]))
        self.diagnostics = diagnostics


def compile_program(
    text: str,
    *,
    functions: Sequence[str],
    name: str = "program.c",
    include_dirs: Sequence[Path] = (),
    defines: Mapping[str, str | int] | None = None,
    cache: Path | None = None,
    toolchain: Toolchain | None = None,
) -> Mapping[str, bytes]:
    """Compile a C source, or find it compiled.

    Args:
        text: The source, against the kernel's user-space API; it refers to maps by ``BPF_MAP(n)``, from
            ``<marchproxy/bpf_map.h>``. All functions called must be inline; constant tables in memory and
            global variables do not exist.
        functions: Names of those to return; not static.
        name: What to call the source in errors.
        include_dirs: Directories of its headers; all ``.h``, ``.c`` and ``.inc`` files in them are
            a part of the cache's key.
        defines: Macros, by name.
        cache: Directory of the cache; :func:`compile_cache.default_directory` by default.
        toolchain: What compiles; looked for by default.

    Returns:
        The instructions of each function, 8 bytes each, for :meth:`Program.load`.

    Raises:
        CompileError: clang refused.
        TierUnavailable: bcc or the kernel's headers are missing or unusable, and the cache does not have it.
    """
    toolchain = find_toolchain() if toolchain is None else toolchain
    directory = compile_cache.default_directory() if cache is None else cache
    macros = {"MAP_MARK": str(MAP_MARK)} | {macro: str(value) for macro, value in (defines or {}).items()}
    key = _key(text, name, functions, include_dirs, macros)
    found = compile_cache.read(directory, key)
    if found is not None and set(found.functions) == set(functions) and _still_fits(found, toolchain):
        return found.functions
    flags = [f"-I{path.resolve()}" for path in include_dirs]
    flags += [f"-D{macro}={value}" for macro, value in macros.items()]
    # Else clang would call it /virtual/main.c.
    numbered = f'#line 1 "{name}"\n{text}'
    compiled = run_compiler(numbered, flags, functions, name=name, toolchain=toolchain)
    compile_cache.write(
        directory, key, compile_cache.Entry(functions=compiled, made_with=_versions(toolchain))
    )
    return compiled


def run_compiler(
    text: str, flags: Sequence[str], functions: Sequence[str], *, name: str, toolchain: Toolchain
) -> Mapping[str, bytes]:
    """Have the compiling process answer one request; blocks, at most two minutes.

    Raises:
        CompileError: clang refused, or crashed.
        TierUnavailable: bcc or the headers are missing or unusable.
    """
    request = {
        "bcc": str(_needed(toolchain.bcc, "bcc's Python package", "apt install python3-bpfcc")),
        "headers": str(_needed(toolchain.headers, "the kernel's API headers", "apt install linux-libc-dev")),
        "machine_headers": str(
            _needed(toolchain.machine_headers, "this machine's asm headers", "apt install linux-libc-dev")
        ),
        "text": text,
        "flags": list(flags),
        "functions": list(functions),
    }
    # By its file, isolated: it needs the standard library and bcc, and starts faster without the rest.
    command = [sys.executable, "-I", "-S", compiling.__file__]
    environment = {key: os.environ[key] for key in _INHERITED if key in os.environ}
    try:
        process = subprocess.run(
            command,
            input=json.dumps(request).encode(),
            capture_output=True,
            env=environment,
            timeout=_DEADLINE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CompileError(name, f"no answer from the compiler within {_DEADLINE_S:.0f} s") from error
    return _answer(process, name)


def _answer(process: subprocess.CompletedProcess[bytes], name: str) -> Mapping[str, bytes]:
    said = process.stderr.decode(errors="replace").strip()
    try:
        reply = json.loads(process.stdout)
    except ValueError:
        raise CompileError(name, f"{said}\nthe compiler ended with status {process.returncode}") from None
    if "unusable" in reply:
        raise TierUnavailable(
            "bcc and its library libbcc, of the same version", reply["unusable"], "apt install python3-bpfcc"
        )
    if "refused" in reply:
        raise CompileError(name, said if "error:" in said else f"{said}\n{reply['refused']}")
    return {function: base64.b64decode(code) for function, code in reply["functions"].items()}


def _needed(path: Path | None, need: str, fix: str) -> Path:
    if path is None:
        raise TierUnavailable(need, "none", fix)
    return path


def _versions(toolchain: Toolchain) -> dict[str, str]:
    return {"bcc": toolchain.bcc_version, "headers": toolchain.headers_version}


def _still_fits(found: compile_cache.Entry, toolchain: Toolchain) -> bool:
    """Whether what made it is what is here now; what is not here at all cannot have made anything better."""
    return all(
        not version or found.made_with.get(name) == version for name, version in _versions(toolchain).items()
    )


def _key(
    text: str,
    name: str,
    functions: Sequence[str],
    include_dirs: Sequence[Path],
    macros: Mapping[str, str],
) -> str:
    known = hashlib.sha256()
    parts: list[str] = [str(_FORMAT), platform.machine(), name, text, *sorted(functions)]
    parts += [f"{macro}={value}" for macro, value in sorted(macros.items())]
    for part in (part.encode() for part in parts):
        known.update(len(part).to_bytes(8) + part)
    for directory in (compiling.HEADERS, Path(compiling.__file__), *include_dirs):
        for path in _sources(directory):
            content = path.read_bytes()
            known.update(f"{path.relative_to(directory)}:{len(content)}:".encode() + content)
    return known.hexdigest()


def _sources(directory: Path) -> Iterable[Path]:
    if directory.is_file():
        return [directory]
    return sorted(path for path in directory.rglob("*") if path.suffix in (".h", ".c", ".inc"))
