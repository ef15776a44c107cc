"""Runs campaigns: `python -m tests.faults [--seconds N] [--seed S] [kind…]`. `scripts/faults` prepares the host."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.faults.campaign import report
from tests.faults.kinds import KINDS


def main(arguments: list[str]) -> int:
    """0: nothing found; 1: findings, on stderr."""
    parser = argparse.ArgumentParser(prog="faults", description="Give faults to the tool and see what it loses.")
    parser.add_argument("--seconds", type=float, default=600.0, help="in all, shared by the kinds (600)")
    parser.add_argument("--seed", type=int, default=time.time_ns(), help="the same seed tries the same (the time)")
    parser.add_argument("--log", type=Path, help="a file that gets a line for each trial, before it")
    parser.add_argument("--user", help="root only: whom the tool is run as, for power cuts")
    parser.add_argument("kinds", nargs="*", metavar="kind", help=f"of {', '.join(KINDS)}; all that work here without")
    options = parser.parse_args(arguments)
    if unknown := set(options.kinds) - set(KINDS):
        parser.error(f"no such kind: {', '.join(sorted(unknown))}")
    campaigns = [KINDS[name](options.user) for name in options.kinds or KINDS]
    possible = [each for each in campaigns if not each.why_not()]
    for each in campaigns:
        if each not in possible:
            sys.stderr.write(f"{each.name}: not tried: {each.why_not()}\n")
    sys.stdout.write(f"seed {options.seed}\n")
    for number, campaign in enumerate(possible):
        if options.log:
            campaign.log = options.log.open("a")
        left = options.seconds * (number + 1) / len(possible)
        campaign.run(options.seed, _BEGAN + left)
        report(campaign)
    return 1 if any(each.findings for each in campaigns) or (options.kinds and len(possible) < len(campaigns)) else 0


_BEGAN = time.monotonic()

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
