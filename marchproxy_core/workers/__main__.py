"""``python -m marchproxy_core.workers``: how the control process starts a worker; not for people."""

from __future__ import annotations

import argparse

from marchproxy_core.workers.child import run


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("entry")
    parser.add_argument("--tier", required=True)
    for number in ("index", "region", "channel", "ledger"):
        parser.add_argument(f"--{number}", type=int, required=True)
    arguments = parser.parse_args()
    run(
        arguments.entry,
        tier=arguments.tier,
        index=arguments.index,
        region=arguments.region,
        channel=arguments.channel,
        ledger=arguments.ledger,
    )


if __name__ == "__main__":
    _main()
