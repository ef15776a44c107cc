"""The process of `image shell`: it mounts a tree in the namespaces that it was started in, and executes a command."""

from __future__ import annotations

import json
import os
import signal
import sys

from rootless.errors import RootlessError
from rootless.records.rootfs import RootfsPlan
from rootless.storage import drivers


def main() -> int:
    """Entry point of `worker_command("rootless.storage.roots.tree_shell", PLAN, DIRECTORY, COMMAND...)`."""
    plan, target, *command = sys.argv[1:]
    try:
        drivers.mount_root(RootfsPlan.from_job(json.loads(plan)), target)
        os.chdir(target)
    except (RootlessError, OSError) as e:
        sys.stderr.write(f"rootless: {e}\n")
        return 125
    os.umask(0o022)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell is the point
    except OSError as e:
        sys.stderr.write(f"rootless: cannot run '{command[0]}': {e.strerror}\n")
        return 127 if isinstance(e, FileNotFoundError) else 126
