"""The console script: what makes the command line start and end sooner at the cost of being unusual.

It starts the monitor that `run` and `start` will need, then the command line: loading click, the options and the engine
takes three times as long as loading the monitor, which can happen on another processor meanwhile. A monitor whose
connection is closed before anything was asked of it ends by itself.

Nothing here changes what a command does. Each trick says what it saves: the median of 30 runs with it and 30 without,
interleaved, Python 3.11 with click 8.5 on one core of the machine of docs/benchmarks. tests/unit/cli/test_startup.py
fails where one no longer applies; a trick that saves less than half a millisecond is not worth its strangeness.
"""

from __future__ import annotations

import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import NoReturn
else:
    ModuleType = type(sys)  # `types` is not loaded before the monitor runs

_WITH_VALUE = ("--root", "--storage-driver", "-l", "--log-level", "-c", "--context")
# With one of these options the default network is improbable, with one of _OTHER_NAMESPACES our default namespaces are
_OTHER_NETWORK = ("--net", "-p", "-P", "--publish")
_JOINING = (["exec"], ["healthcheck"])  # verbs whose own process forks what enters a container
_OTHER_NAMESPACES = ("--userns", "--uidmap", "--gidmap", "--runtime", "--cgroups", "--cgroup-parent")
# click imports these at module level, and a command rarely needs anything of them (see `Option` in declaration.py).
# inspect: 3 ms, for it brings ast, dis and tokenize. Stand-ins for bz2, lzma, ipaddress, platform and uuid were
# measured too, on the way of run, pull and build: nothing.
_LOADED_AT_FIRST_USE = ("inspect",)
# The imports make many objects that live as long as the process: looking for garbage among them costs 1 to 2 ms.
_GC_THRESHOLD = 50_000


def guess_preparations(words: list[str]) -> tuple[str, ...] | None:
    """What a monitor may prepare for the command line `words` (without the program); None when none will be needed.

    This is a guess from a glance at the words: a wrong one costs time on another processor, and nothing else.
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
    try:
        code = _perform(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130  # Ctrl-C while the command line was being loaded, or once more while it ended
    end_process(code)


def _perform(words: list[str]) -> int:
    if _from_verb(words)[:1] in _JOINING:
        from rootless.host.interpreter import restart_by_loader

        restart_by_loader()  # the command does so too, but only after the time that loading click takes
    connection = None
    wanted = guess_preparations(words)
    if wanted is not None:
        from rootless.engine.container.spawn import spawn_monitor
        from rootless.errors import RootlessError

        try:
            connection = spawn_monitor(*wanted)
        except (RootlessError, OSError):
            pass  # the engine tries to start one too, and reports what fails
    hasten_imports()
    from rootless.cli.main import run

    return run(words, connection)


def _open_standard_streams() -> None:
    """Put /dev/null where the caller closed 0, 1 or 2.

    open(2) gives the lowest free number: else a file of the store would get it, and our output be written into it.
    """
    for fd, name, mode in ((0, "stdin", os.O_RDONLY), (1, "stdout", os.O_WRONLY), (2, "stderr", os.O_WRONLY)):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, mode)  # the lowest free number, which is this one
            setattr(sys, name, open(fd, "w" if fd else "r", encoding="utf-8", closefd=False))


class _StandIn(ModuleType):
    """A stand-in for a module: the first attribute that is read loads the real module, which then takes its place."""

    def __getattr__(self, name: str) -> object:
        from importlib import import_module

        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        real = import_module(self.__name__)
        self.__dict__.update(vars(real))
        return getattr(real, name)


def hasten_imports() -> None:
    """Make what is imported from now on load faster; called once, before click is imported."""
    gc.set_threshold(_GC_THRESHOLD)
    for name in _LOADED_AT_FIRST_USE:
        if name not in sys.modules:
            sys.modules[name] = _StandIn(name)


def end_process(code: int) -> NoReturn:
    """End this process at once, with both standard streams flushed.

    Taking the interpreter apart costs 5 ms, and nothing of ours waits for it: files are closed by the kernel, and no
    command leaves a thread or an exit function that must run.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass  # `main.run` has flushed before, and reported what failed
    os._exit(code)
