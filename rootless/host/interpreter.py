"""The command line of a fresh, isolated interpreter that runs one of our modules. It starts nothing itself."""

from __future__ import annotations

import os
import sys

_BOOT = "import sys;sys.path+=sys.argv.pop(1).split(':');from {} import main;sys.exit(main())"


def worker_command(module: str, *args: str, site_packages: bool = False) -> list[str]:
    """The argv of a fresh interpreter that runs `main()` of `module`, which finds `args` in sys.argv[1:].

    Isolated (-I: no PYTHON* variables, no current directory; -S: no site, no .pth files), so that nothing of a hostile
    directory or environment is imported. The package's own parent directory goes behind the standard library;
    site_packages: the directories of installed packages too. Everybody can read argv: pass secrets by fd.
    """
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    paths = [here]
    if site_packages:
        paths += [p for p in sys.path if os.path.basename(p) in ("site-packages", "dist-packages") and p != here]
    return [sys.executable, "-I", "-S", "-c", _BOOT.format(module), ":".join(paths), *args]
