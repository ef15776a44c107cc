"""Stand-ins for standard modules that click imports and `rootless run` never needs: each loads at its first use.

`inspect` alone, with the compiler's modules below it, costs a tenth of the start of `run`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Deferred(ModuleType):
    """A module whose first attribute brings the real one, in its place."""

    def __getattr__(self, name: str) -> Any:
        from importlib import import_module

        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        real = import_module(self.__name__)
        self.__dict__.update(vars(real))
        return getattr(real, name)


def defer(*names: str) -> None:
    """Let `import NAME` of these top-level modules cost nothing until one of their attributes is asked for."""
    for name in names:
        if name not in sys.modules:
            sys.modules[name] = _Deferred(name)
