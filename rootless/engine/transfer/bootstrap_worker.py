"""The process that becomes mmdebstrap: it enters the user namespace and executes the program.

It is a process of its own as unshare(CLONE_NEWUSER) is refused in a process with threads (EINVAL, unshare(2)).
"""

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
    """Become the command in sys.argv, which follows the id map as JSON. If it cannot start, return 125.

    The error is written to standard error then. When the process that reads the tar ends, the command gets SIGTERM, at
    which mmdebstrap removes its chroot.
    """
    parent = os.getppid()
    id_map = IdMap.from_json(json.loads(sys.argv[1]))
    try:
        run_in_place(id_map, sys.argv[2:], entered=lambda: end_with_parent(parent, signal.SIGTERM))
    except RootlessError as e:
        print(e, file=sys.stderr)
    return 125
