"""Slows the CPU that it is pinned to, evenly, for whatever else runs there; a program of its own, without packages.

``brake.py SHARE`` takes SHARE (0 to 0.9) of the CPU's time until it is ended, in slices of about SHARE x 250 µs. It
runs under SCHED_FIFO, so it gets them whatever else wants to run.
"""

from __future__ import annotations

import os
import random
import sys
import time

_PERIODS_S = (200e-6, 300e-6)
"""Not one period: in step with the kernel's tick it would blind whoever accounts by ticks."""
_MOST_BEHIND_S = 1e-3


def brake(share: float) -> None:
    """Take a share of the CPU's time, for ever."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    began_s = time.monotonic() - time.process_time() / share
    while True:
        now_s = time.monotonic()
        due_s = share * (now_s - began_s)
        if (
            due_s > time.process_time() + _MOST_BEHIND_S
        ):  # it was kept waiting: do not take it all back at once
            began_s = now_s - time.process_time() / share
        while time.process_time() < due_s:
            pass
        time.sleep((1 - share) * random.uniform(*_PERIODS_S))  # noqa: TID251 - no event loop here


if __name__ == "__main__":
    brake(float(sys.argv[1]))
