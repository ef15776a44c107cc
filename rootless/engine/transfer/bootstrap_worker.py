"""The process that becomes mmdebstrap: it enters the user namespace, which needs a single thread, and execs."""

from __future__ import annotations

import json
import os
import signal
import sys

from rootless.errors import RootlessError
from rootless.host.userns import run_in_place
from rootless.kernel.process import end_with_parent
from rootless.records.id_map import IdMap


def main() -> int:
    """sys.argv: the id map as JSON, then the command. Returns only when it could not start: 125, words on stderr.

    The command gets SIGTERM, at which mmdebstrap removes its chroot, when the process that reads its tar ends.
    """
    parent = os.getppid()
    id_map = IdMap.from_json(json.loads(sys.argv[1]))
    try:
        run_in_place(id_map, sys.argv[2:], entered=lambda: end_with_parent(parent, signal.SIGTERM))
    except RootlessError as e:
        print(e, file=sys.stderr)
    return 125
