"""top: what is read of each process has a bound."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from rootless.engine.container import top
from rootless.host.idmap import default_map


def test_a_command_line_is_cut_where_there_are_many() -> None:
    with subprocess.Popen(["/bin/sleep", "100" + "0" * 5000]) as long:
        while not Path(f"/proc/{long.pid}/cmdline").read_bytes():
            pass  # execve(2) closes Popen's pipe before the new image has its arguments
        id_map = default_map(None, os.getuid(), os.getgid())
        seen = [top._look(long.pid, id_map, 0.0, longest) for longest in (256, 1 << 16)]
        long.kill()
    assert [len(each.command) for each in seen if each is not None] == [256, len("/bin/sleep ") + 5003]
