"""Runs one of our commands and kills it with SIGKILL at its Nth step. There is no hook for this in the product.

    python -I kill_at_step.py REPOSITORY WHO N COUNT-FILE ARGUMENTS...

WHO is `command` or `monitor`. Python's own audit events (open for writing, rename, mkdir, link, unlink, spawn, flock)
are the steps. N = 0 kills nothing and writes the number of steps into COUNT-FILE.
"""

from __future__ import annotations

import os
import signal
import sys

HOOK = """
import os as _os, signal as _signal, sys as _sys
_steps = [0]
_names = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.posix_spawn", "os.fork",
          "os.chmod", "os.truncate", "fcntl.flock", "socket.connect", "socket.bind", "os.kill", "os.utime",
          "os.listdir"}
_writes = _os.O_WRONLY | _os.O_RDWR
_me = _os.getpid()
def _hook(event, arguments):
    if event == "open":
        if not (isinstance(arguments[2], int) and arguments[2] & _writes):
            return
    elif event not in _names:
        return
    if _os.getpid() != _me:
        return
    _steps[0] += 1
    if _steps[0] == KILL_AT:
        _os.kill(_me, _signal.SIGKILL)
_sys.addaudithook(_hook)
import atexit as _atexit
def _tell():
    if KILL_AT == 0 and _os.getpid() == _me:
        fd = _os.open(COUNT_FILE, _os.O_CREAT | _os.O_TRUNC | 1, 0o600)
        _os.write(fd, str(_steps[0]).encode())
        _os.close(fd)
_exit = _os._exit
def _exit_telling(code):
    _tell()
    _exit(code)
_os._exit = _exit_telling
_atexit.register(_tell)
"""


def main() -> int:
    repository, who, kill_at, count_file, *arguments = sys.argv[1:]
    sys.path.insert(0, repository)
    hook = f"KILL_AT = {int(kill_at)}\nCOUNT_FILE = {count_file!r}\n{HOOK}"
    if who == "command":
        exec(compile(hook, "hook", "exec"), {})
    else:
        from rootless.host import interpreter

        original = interpreter.worker_command

        def worker_command(module: str, *words: str, **options: bool) -> list[str]:
            argv = original(module, *words, **options)
            if module == "rootless.monitor.main":
                at = argv.index("-c") + 1
                argv[at] = f"exec({hook!r}, {{}})\n{argv[at]}"
            return argv

        interpreter.worker_command = worker_command
    from rootless.cli.entry import main as command

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.argv = ["rootless", *arguments]
    return command() or 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
