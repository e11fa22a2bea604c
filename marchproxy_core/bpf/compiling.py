"""The process that compiles: reads a request from stdin, has bcc compile it, writes the instructions to stdout.

A process of its own, since LLVM takes 100 MiB, is not safe for threads, changes the working directory, prints its
errors to descriptor 2, and could crash. Started by :mod:`marchproxy_core.bpf.compiler` alone.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Protocol

HEADERS = Path(__file__).with_name("headers")

_FLAGS = (
    # bcc's own copy of bpf.h and the system's exclude each other by this guard.
    "-D__LINUX_BPF_H__",
    "-include",
    "linux/types.h",
    # Else a call to nowhere compiles, and the verifier says no more than "jump out of range".
    "-Werror=implicit-function-declaration",
    "-Werror=return-type",
    "-Werror=incompatible-pointer-types",
)
_ARCHITECTURES = {
    "x86_64": "x86",
    "aarch64": "arm64",
    "riscv64": "riscv",
    "loongarch64": "loongarch",
    "s390x": "s390",
    "ppc64le": "powerpc",
    "armv7l": "arm",
}


class _Compiled(Protocol):
    def dump_func(self, name: bytes) -> bytes: ...


class _Bcc(Protocol):
    def BPF(self, *, text: bytes, cflags: list[str]) -> _Compiled: ...


def main() -> None:
    """Answer one request; see :func:`compiler.run_compiler` for both ends of the pipe."""
    answer = os.dup(1)
    os.dup2(2, 1)  # nothing that bcc prints may end up in the answer
    request = json.load(sys.stdin)
    try:
        bcc = _import_bcc(Path(request["bcc"]))
    except (ImportError, OSError, AttributeError) as error:
        # OSError: no library; AttributeError: a library of another version than the Python package.
        reply: dict[str, object] = {"unusable": f"{type(error).__name__}: {error}"}
    else:
        with tempfile.TemporaryDirectory(prefix="marchproxy-bpf-") as tree:
            build_tree(Path(tree), Path(request["headers"]), Path(request["machine_headers"]))
            os.environ["BCC_KERNEL_SOURCE"] = tree
            reply = _compile(bcc, request["text"], request["flags"], request["functions"])
    with os.fdopen(answer, "w", encoding="ascii") as output:
        json.dump(reply, output)


def build_tree(tree: Path, headers: Path, machine_headers: Path) -> None:
    """Lay out what bcc takes for a kernel's source: the user-space API, and a few headers of ours.

    Args:
        tree: An empty directory; gets links and copies of nothing else than headers.
        headers: The system's directory with ``linux/`` and ``asm-generic/``.
        machine_headers: The system's directory ``asm``.
    """
    include = tree / "include"
    machine = platform.machine()
    arch = tree / "arch" / _ARCHITECTURES.get(machine, machine) / "include" / "asm"
    for directory in (include / "linux", include / "uapi", arch):
        directory.mkdir(parents=True)
    for ours in (HEADERS / "include/linux").iterdir():
        (include / "linux" / ours.name).symlink_to(ours)
    (include / "marchproxy").symlink_to(HEADERS / "include/marchproxy")
    (include / "linux/version.h").symlink_to(headers / "linux/version.h")
    (include / "uapi/linux").symlink_to(headers / "linux")
    (include / "asm-generic").symlink_to(headers / "asm-generic")
    ours_by_name = {path.name: path for path in (HEADERS / "arch/asm").iterdir()}
    for name, path in ({path.name: path for path in machine_headers.iterdir()} | ours_by_name).items():
        (arch / name).symlink_to(path)


def _import_bcc(package: Path) -> _Bcc:
    # This one package, not all that Debian has installed for its own Python.
    spec = importlib.util.spec_from_file_location(
        "bcc", package / "__init__.py", submodule_search_locations=[str(package)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"no Python package at {package}")
    module = importlib.util.module_from_spec(spec)
    sys.modules["bcc"] = module
    spec.loader.exec_module(module)
    return module


def _compile(bcc: _Bcc, text: str, flags: list[str], functions: list[str]) -> dict[str, object]:
    try:
        compiled = bcc.BPF(text=text.encode(), cflags=[*_FLAGS, *flags])
    except Exception as error:  # noqa: BLE001 - bcc raises bare Exceptions; what clang said is on stderr
        return {"refused": str(error)}
    found = {}
    for name in functions:
        try:
            found[name] = base64.b64encode(compiled.dump_func(name.encode())).decode()
        except Exception:  # noqa: BLE001 - bcc raises bare Exceptions
            return {"refused": f"there is no function {name}; it must not be static"}
    return {"functions": found}


if __name__ == "__main__":
    main()
