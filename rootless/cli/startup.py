"""What makes the command line start and end sooner at the cost of being unusual; nothing here changes what it does.

Each trick says what it saves: the median of 30 runs with it and 30 without, interleaved, Python 3.11 with click 8.5 on
one core of the machine of docs/benchmarks. tests/unit/cli/test_startup.py fails where one no longer applies; a trick
that saves less than half a millisecond is not worth its strangeness.
"""

from __future__ import annotations

import gc
import os
import sys
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

# click imports these at module level, and what a command needs of them is rare (see `Option` in declaration.py).
# inspect: 3 ms, for it brings ast, dis and tokenize. Stand-ins for bz2, lzma, ipaddress, platform and uuid were
# measured too, on the way of run, pull and build: nothing.
_LOADED_AT_FIRST_USE = ("inspect",)
# The imports make many objects that live as long as the process: looking for garbage among them costs 1 to 2 ms.
_GC_THRESHOLD = 50_000


class _StandIn(ModuleType):
    """A module whose first attribute brings the real one, in its place."""

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
            pass  # `main.run` has told it
    os._exit(code)
