"""The process that becomes mmdebstrap: it enters the user namespace, which needs a single thread, and execs."""

from __future__ import annotations

import json
import os
import signal
import sys

from rootless.errors import RootlessError
from rootless.host.userns import run_in_place
from rootless.kernel.process import set_pdeathsig
from rootless.records.id_map import IdMap


def main() -> int:
    """sys.argv: the id map as JSON, then the command. Returns only when it could not start: 125, words on stderr.

    The command gets SIGTERM, at which mmdebstrap removes its chroot, when the process that reads its tar ends.
    """
    parent = os.getppid()

    def follow_parent() -> None:
        set_pdeathsig(signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(125)

    try:
        run_in_place(IdMap.from_json(json.loads(sys.argv[1])), sys.argv[2:], entered=follow_parent)
    except RootlessError as e:
        print(e, file=sys.stderr)
    return 125
