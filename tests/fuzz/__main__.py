"""Run one target for a while: `python -m tests.fuzz dockerfile 60`. A failing input is kept and its seed is shown."""

from __future__ import annotations

import os
import sys
import tempfile
import time

from tests.fuzz.engine import Failure, fuzz
from tests.fuzz.targets import TARGETS


def main(arguments: list[str]) -> int:
    """0: nothing found; 1: an input that breaks the target; 2: no such target."""
    if not arguments or arguments[0] not in TARGETS:
        sys.stderr.write(f"usage: python -m tests.fuzz {{{','.join(TARGETS)}}} [SECONDS] [SEED]\n")
        return 2
    seconds = float(arguments[1]) if len(arguments) > 1 else 60.0
    seed = int(arguments[2]) if len(arguments) > 2 else time.time_ns()
    deadline = time.monotonic() + seconds
    try:
        count = fuzz(TARGETS[arguments[0]], seed, lambda count: time.monotonic() < deadline)
    except Failure as e:
        path = os.path.join(tempfile.gettempdir(), f"fuzz-{arguments[0]}-{seed}.input")
        with open(path, "wb") as f:
            f.write(e.content)
        sys.stderr.write(f"{e}\nseed {seed}, input kept in {path}\n")
        return 1
    sys.stdout.write(f"{arguments[0]}: {count} inputs, seed {seed}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
