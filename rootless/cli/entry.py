"""The console script: starts the monitor that `run` and `start` will need, then the command line.

Loading click, the options and the engine takes three times as long as loading the monitor, which can happen on another
processor meanwhile. A monitor that nobody tells anything ends by itself.
"""

from __future__ import annotations

import os
import sys

_WITH_VALUE = ("--root", "--storage-driver")
# each makes the default network, or our default namespaces, improbable
_OTHER_NETWORK = ("--net", "-p", "-P", "--publish")
_JOINING = (["exec"], ["healthcheck"])  # verbs whose own process forks what enters a container
_OTHER_NAMESPACES = ("--userns", "--uidmap", "--gidmap", "--runtime", "--cgroups", "--cgroup-parent")


def guess_preparations(words: list[str]) -> tuple[str, ...] | None:
    """What a monitor may prepare for the command line `words` (without the program); None when none will be needed.

    A guess by a glance at the words: a wrong one costs time on another processor, and nothing else.
    """
    rest = _from_verb(words)
    if rest[:1] == ["start"]:
        return ("prepare",)
    if rest[:1] != ["run"]:
        return None
    if any(word.startswith(_OTHER_NAMESPACES) for word in rest):
        return ()
    return ("prepare",) if any(word.startswith(_OTHER_NETWORK) for word in rest) else ("prepare", "network")


def _from_verb(words: list[str]) -> list[str]:
    position = 0
    while position < len(words) and words[position].startswith("-"):
        position += 2 if words[position] in _WITH_VALUE else 1
    if words[position : position + 1] == ["container"]:
        position += 1
    return words[position:]


def main() -> None:
    """Run this process's command line; ends the process."""
    _open_standard_streams()
    if _from_verb(sys.argv[1:])[:1] in _JOINING:
        from rootless.host.interpreter import restart_by_loader

        restart_by_loader()  # the command asks for it too, when click is loaded
    connection = None
    wanted = guess_preparations(sys.argv[1:])
    if wanted is not None:
        from rootless.engine.container.spawn import spawn_monitor
        from rootless.errors import RootlessError

        try:
            connection = spawn_monitor(*wanted)
        except (RootlessError, OSError):
            pass  # the engine tries again, and tells
    from rootless.cli.startup import end_process, hasten_imports

    hasten_imports()
    from rootless.cli.main import run

    end_process(run(sys.argv[1:], connection))


def _open_standard_streams() -> None:
    """Put /dev/null where the caller closed 0, 1 or 2: a store's file must not get that number and be written to."""
    for fd, name, mode in ((0, "stdin", os.O_RDONLY), (1, "stdout", os.O_WRONLY), (2, "stderr", os.O_WRONLY)):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, mode)  # the lowest free number, which is this one
            setattr(sys, name, open(fd, "w" if fd else "r", encoding="utf-8", closefd=False))
