"""No frame of the packet table, whole or cut short, makes the engine read or write where it must not."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from marchproxy_core.packet.layout import SOURCES
from marchproxy_core.packet.plain import FLAGS as PLAIN_FLAGS
from marchproxy_core.packet.plain import build
from marchproxy_core.testing.packets.sanitized import FLAGS, run_sanitized
from marchproxy_core.testing.packets.table import rows, rows_of

CHECK = "((uint8_t *)(at) + (size) <= (frame)->end)"


def test_nothing_is_read_behind_a_frame(compiler, tmp_path):
    library = build(tmp_path / "sanitized.so", extra=FLAGS)
    run = run_sanitized(library, rows())
    assert run.returncode == 0, run.stderr.decode()


@pytest.mark.parametrize("subject", ["icmp", "passing"])
def test_a_read_of_one_byte_too_many_would_be_seen(compiler, tmp_path, subject):
    """The same with an engine whose check of bounds is wrong by one."""
    sources = shutil.copytree(SOURCES, tmp_path / "c")
    text = (sources / "parse.h").read_text(encoding="ascii")
    assert CHECK in text
    wrong = text.replace(CHECK, CHECK.replace("end)", "end + 1)"))
    (sources / "parse.h").write_text(wrong, encoding="ascii")
    library = tmp_path / "wrong.so"
    subprocess.run(
        [compiler, *PLAIN_FLAGS, *FLAGS, "-shared", "-fPIC", "-o", library, sources / "plain.c"], check=True
    )
    run = run_sanitized(library, rows_of(subject))
    assert run.returncode != 0
    assert b"AddressSanitizer: heap-buffer-overflow" in run.stderr
