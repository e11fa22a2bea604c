"""Runs the generator until it is ended: ``generate.py PROGRAM_ID FRAME BATCH``; a program of its own.

One call of BPF_PROG_TEST_RUN from start to end: each call waits for some RCU grace periods, and nothing is sent then.
"""

from __future__ import annotations

import sys

from marchproxy_core.bpf import LIVE_FRAMES, Program, run_program

_FOR_EVER = 2**32 - 1


def generate(program_id: int, frame: bytes, batch: int) -> None:
    """Send frames by the program of that id, some ten minutes long."""
    with Program.open_id(program_id) as program:
        run_program(program, frame, repeat=_FOR_EVER, flags=LIVE_FRAMES, batch_size=batch)


if __name__ == "__main__":
    generate(int(sys.argv[1]), bytes.fromhex(sys.argv[2]), int(sys.argv[3]))
