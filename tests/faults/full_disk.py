"""A store on a full file system, in a mount namespace of its own: what reads, stops and removes works all the same.

    python full_disk.py DIRECTORY KIND

KIND is `bytes` or `inodes`: what the small tmpfs on DIRECTORY has none of any more. `old` stands for bytes, and a store
as a version made it that kept no room for removing and made its locks when it took them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.conftest import Runner, make_runner

_LIMITS = {"bytes": "size=12m", "old": "size=12m", "inodes": "size=64m,nr_inodes=1500"}
_COMMAND = ("sh", "-c", "echo hello; trap 'exit 3' TERM; sleep 1000 & wait")


def main() -> None:
    """Fill the disk under three containers, of which two lost their monitors, and free it again."""
    directory, kind = Path(sys.argv[1]), sys.argv[2]
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=700,{_LIMITS[kind]}", "none", directory], check=True)
    root = directory / "store"
    run = make_runner(root)
    run("image", "bootstrap", "busybox")
    run("tag", "busybox", "second:1")
    for name in ("a", "b", "c"):
        run("run", "-d", "--name", name, "--network=none", "--restart=unless-stopped", "busybox", *_COMMAND)
    run("create", "--name", "new", "busybox", "true")
    for name in ("a", "b"):
        until_logged(run, name)
        os.kill(monitor(root, name), signal.SIGKILL)
    if kind == "old":
        for name in ("reserve", "store", "names"):
            (root / "locks" / name).unlink()
    fill(directory, kind)
    looks(run)
    stops(run, root)
    if kind == "inodes":
        starts(run)
    removes(run, root)


def monitor(root: Path, name: str) -> int:
    """Pid of the container's monitor."""
    container_id = (root / "names" / name).read_text().strip()
    state = json.loads((root / "containers" / container_id / "state.json").read_text())
    return int(state["monitor_pid"])


def until_logged(run: Runner, name: str) -> None:
    """Wait for the container's first line."""
    for _ in range(200):
        if run("logs", name).stdout:
            return
        time.sleep(0.05)
    raise AssertionError("the container says nothing")


def fill(directory: Path, kind: str) -> None:
    """Leave no room: not one byte, or not one inode."""
    try:
        if kind != "inodes":
            for size in (1 << 16, 1):
                with open(directory / f"filler-{size}", "wb", buffering=0) as file:
                    while file.write(b"x" * size):
                        pass
        else:
            for number in range(1 << 20):
                (directory / f"filler-{number}").touch()
    except OSError:
        return


def looks(run: Runner) -> None:
    """Everything that only reads."""
    rows = dict(
        line.split(" ", 1) for line in run("ps", "-a", "--format", "{{.Names}} {{.Status}}").stdout.splitlines()
    )
    assert rows["a"].startswith("Exited (137)"), rows
    assert rows["b"].startswith("Exited (137)"), rows
    assert rows["c"].startswith("Up"), rows
    assert rows["new"] == "Created", rows
    assert run("logs", "a").stdout == "hello\n"
    assert run("inspect", "a", "--format", "{{.State.Status}} {{.State.ExitCode}}").stdout == "exited 137\n"
    assert "second" in run("images").stdout
    run("system", "df")
    run("volume", "ls")


def stops(run: Runner, root: Path) -> None:
    """`stop` ends the container, its exit code is kept, and so is the wish that it stays stopped."""
    run("stop", "c")
    assert run("inspect", "c", "--format", "{{.State.Status}} {{.State.ExitCode}}").stdout == "exited 3\n"
    from rootless.monitor import stop_request

    assert stop_request.is_stop_requested(str(root / "containers" / (root / "names/c").read_text().strip()))


def starts(run: Runner) -> None:
    """`start` cannot work; it says why."""
    for name in ("a", "new"):
        failed = run("start", name, check=False)
        assert failed.returncode == 125
        assert "no inodes left on the file system" in failed.stderr, failed.stderr
        assert "system prune" in failed.stderr, failed.stderr


def removes(run: Runner, root: Path) -> None:
    """Everything that frees room."""
    run("rmi", "second:1")  # before anything has made room
    run("rm", "-f", "b")
    run("rmi", "-f", "busybox")
    run("system", "prune", "-af")
    run("rm", "-f", "a", "c", "new", check=False)
    run("system", "prune", "-af")
    for part in ("containers", "names", "trash", "layers", "blobs/sha256"):
        assert not os.listdir(root / part), part
    run("system", "check")


if __name__ == "__main__":
    main()
