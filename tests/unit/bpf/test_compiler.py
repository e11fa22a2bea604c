"""C goes in, instructions come out; what clang says reaches who has to read it; the cache is trusted with care."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import attrs
import pytest

from marchproxy_core.bpf import CompileError, compile_cache, compile_program, compiling
from marchproxy_core.bpf.toolchain import find_toolchain
from marchproxy_core.errors import TierUnavailable
from marchproxy_core.testing.pytest_plugin import leave_out

PACKAGE = Path(compiling.__file__).parent
PASS = "int pass(struct xdp_md *context) { return VERDICT; }"
NOTHING = find_toolchain(Path("/nonexistent"), python_path=())


@pytest.fixture(autouse=True)
def _needs_bcc():
    if None in attrs.astuple(find_toolchain()):
        leave_out("needs bcc and headers: apt install python3-bpfcc linux-libc-dev")


@pytest.fixture
def compile_pass(tmp_path):
    def compile_pass(text=PASS, **more):
        wanted = {"functions": ["pass"], "cache": tmp_path / "cache", "defines": {"VERDICT": "XDP_PASS"}}
        return compile_program(text, **wanted | more)["pass"]

    return compile_pass


def test_a_function_becomes_its_instructions(compile_pass):
    # r0 = 2 (XDP_PASS); exit
    assert compile_pass() == bytes.fromhex("b7000000020000009500000000000000")


def test_errors_have_file_line_and_reason(compile_pass, tmp_path):
    (tmp_path / "shape.h").write_text("int area(int side) { return side * }\n")
    text = f'\n#include "shape.h"\n{PASS}\nint other(void *context) {{ return nowhere(1); }}\n'
    with pytest.raises(CompileError) as refused:
        compile_pass(text, name="tier.c", include_dirs=[tmp_path])
    said = str(refused.value)
    assert said.startswith("tier.c does not compile:\n")
    assert "shape.h:1:36: error: expected expression" in said
    assert "tier.c:4:35: error: implicit declaration of function 'nowhere'" in said
    assert "/virtual" not in said


def test_a_function_that_is_not_there_is_named(compile_pass):
    with pytest.raises(CompileError, match="there is no function missing"):
        compile_pass(functions=["pass", "missing"])


def test_what_was_compiled_once_needs_no_compiler(compile_pass):
    with pytest.raises(TierUnavailable, match="apt install"):
        compile_pass(toolchain=NOTHING)
    made = compile_pass()
    assert compile_pass(toolchain=NOTHING) == made


@pytest.mark.parametrize(
    "change",
    [
        {"defines": {"VERDICT": "XDP_DROP"}},
        {"text": "\n" + PASS},
        {"functions": ["pass", "other"], "text": PASS + "\nint other(void *c) { return 0; }"},
        {"name": "other.c"},
    ],
    ids=lambda change: "+".join(change),
)
def test_what_is_asked_for_otherwise_is_compiled_anew(compile_pass, change):
    compile_pass()
    with pytest.raises(TierUnavailable):
        compile_pass(toolchain=NOTHING, **change)


def test_a_changed_header_is_compiled_anew(compile_pass, tmp_path):
    headers = tmp_path / "headers"
    (headers / "deep").mkdir(parents=True)
    (headers / "deep/verdict.h").write_text("#define VERDICT XDP_PASS\n")
    text = '#include "deep/verdict.h"\n' + PASS
    passing = compile_pass(text, include_dirs=[headers], defines={})
    (headers / "deep/verdict.h").write_text("#define VERDICT XDP_DROP\n")
    assert compile_pass(text, include_dirs=[headers], defines={}) != passing


def test_another_version_of_bcc_compiles_anew(compile_pass, tmp_path):
    compile_pass()
    other = tmp_path / "bcc"
    other.mkdir()
    (other / "version.py").write_text("__version__ = '0.99.0'\n")
    (other / "__init__.py").write_text("raise AttributeError('undefined symbol: bcc_new_thing')\n")
    with pytest.raises(TierUnavailable, match="AttributeError: undefined symbol: bcc_new_thing"):
        compile_pass(toolchain=attrs.evolve(find_toolchain(), bcc=other))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:-3]),
        lambda file: file.write_bytes(file.read_bytes().replace(b"pass", b"path")),
        lambda file: file.write_bytes(os.urandom(200)),
        lambda file: file.chmod(0o666),
        lambda file: (file.rename(file.with_name("moved")), file.symlink_to("moved")),
        lambda file: (file.unlink(), file.mkdir()),
        lambda file: (file.unlink(), os.mkfifo(file)),
    ],
    ids=["empty", "cut", "changed", "noise", "writable", "link", "directory", "pipe"],
)
def test_a_spoilt_file_counts_for_nothing_and_is_no_harm(compile_pass, tmp_path, spoil):
    made = compile_pass()
    (file,) = (tmp_path / "cache").iterdir()
    spoil(file)
    with pytest.raises(TierUnavailable):
        compile_pass(toolchain=NOTHING)
    assert compile_pass() == made


@pytest.mark.root
def test_a_file_of_another_user_is_never_used(compile_pass, tmp_path):
    compile_pass()
    (file,) = (tmp_path / "cache").iterdir()
    os.chown(file, 65534, 65534)
    with pytest.raises(TierUnavailable):
        compile_pass(toolchain=NOTHING)


@pytest.mark.root
def test_nothing_is_kept_where_another_user_rules(compile_pass, tmp_path):
    (tmp_path / "cache").mkdir()
    os.chown(tmp_path / "cache", 65534, 65534)
    assert compile_pass()
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_no_error(compile_pass, tmp_path):
    (tmp_path / "file").write_text("")
    assert compile_pass(cache=tmp_path / "file/cache")


def test_only_its_owner_may_look_into_the_cache(compile_pass, tmp_path):
    compile_pass()
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "cache").iterdir()] == [0o600]


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compile_cache.default_directory() == tmp_path / "marchproxy/bpf"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert compile_cache.default_directory() == tmp_path / ".cache/marchproxy/bpf"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert compile_cache.default_directory() == Path("/var/cache/marchproxy/bpf")


def test_several_threads_compile_at_once(compile_pass, tmp_path):
    made = {}

    def work(number):
        made[number] = compile_pass(PASS + f"/* {number} */", cache=tmp_path / str(number % 2))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made.values())) == 1
    assert sorted(made) == [0, 1, 2, 3]


@pytest.mark.root
def test_compiling_needs_no_rights(without_root):
    toolchain = find_toolchain()
    request = {
        "bcc": str(toolchain.bcc),
        "headers": str(toolchain.headers),
        "machine_headers": str(toolchain.machine_headers),
        "text": "int pass(struct xdp_md *context) { return XDP_PASS; }",
        "flags": [],
        "functions": ["pass"],
    }
    with tempfile.TemporaryDirectory() as folder:  # pytest's own, and perhaps the tree, are open to root only
        Path(folder).chmod(0o755)
        shutil.copytree(PACKAGE, Path(folder, "bpf"))
        answer = subprocess.run(
            [*without_root, "/usr/bin/python3", "-I", "-S", f"{folder}/bpf/compiling.py"],
            input=json.dumps(request).encode(),
            capture_output=True,
            check=False,
        )
    assert b'"functions"' in answer.stdout, answer.stderr.decode()
