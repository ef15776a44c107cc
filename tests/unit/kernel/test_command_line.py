"""What others read of a process's command line and environment is what it says, in its forks too."""

from __future__ import annotations

import os

from rootless.kernel.process import replace_command_line, set_name


def test_a_process_shows_another_command_line_than_it_was_started_with() -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            replace_command_line(b"init")
            set_name(b"a-name-of-more-than-fifteen-bytes")
            shown = [open(f"/proc/self/{name}", "rb").read() for name in ("cmdline", "environ", "comm")]
            kept = os.environ.get("PATH", "").encode()
            os.write(write, repr((shown[0].strip(b"\0"), shown[1].strip(b"\0"), shown[2].strip(), bool(kept))).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as file:
        said = file.read().decode()
    os.waitpid(child, 0)
    assert said == repr((b"init", b"", b"a-name-of-more-", True))
