"""Killed at any step, a command leaves a store on which the next command works and `prune` finds the garbage."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, Runner, make_private_directory, make_runner, remove_private_directory, require

pytestmark = pytest.mark.once

POINTS = 12  # kills per command, spread over all of its steps

COMMANDS = {
    "import": ("command", ["import", "{tar}", "crash:new"]),
    "tag": ("command", ["tag", "busybox", "crash:tagged"]),
    "commit": ("command", ["commit", "victim", "crash:committed"]),
    "cp": ("command", ["cp", "{tar}", "victim:/tmp"]),
    "create": ("command", ["create", "--name", "crash", "-v", "crash-volume:/data", "busybox", "true"]),
    "run": ("command", ["run", "--rm", "--name", "crash", "--network=none", "busybox", "true"]),
    "run-monitor": ("monitor", ["run", "--rm", "--name", "crash", "--network=none", "busybox", "true"]),
    "run-detached": ("monitor", ["run", "-d", "--name", "crash", "--network=none", "busybox", "true"]),
    "rm": ("command", ["rm", "-f", "victim"]),
    "rmi": ("command", ["rmi", "victim:image"]),
}


@pytest.fixture(scope="module")
def crash_root() -> Iterator[Path]:
    require(Path("/bin/busybox").exists(), "no /bin/busybox on this host (apt-get install busybox-static)")
    root = make_private_directory("c")
    make_runner(root)("image", "bootstrap", "busybox")
    yield root
    remove_private_directory(root)


@pytest.fixture(scope="module")
def small_tar(crash_root: Path) -> Path:
    tree = crash_root.parent / f"{crash_root.name}-tree"
    tree.mkdir()
    (tree / "file").write_text("content")
    (tree / "directory").mkdir()
    tar = crash_root.parent / f"{crash_root.name}.tar"
    subprocess.run(["tar", "-C", tree, "-cf", tar, "."], check=True)
    return tar


def crash(root: Path, who: str, at: int, arguments: list[str]) -> int:
    """Run with a kill at step `at`; the number of steps when `at` is 0."""
    count = root / "count"
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": os.environ["HOME"],
                   "ROOTLESS_ROOT": str(root), "XDG_RUNTIME_DIR": os.environ.get("XDG_RUNTIME_DIR", "")}  # fmt: skip
    command = [
        sys.executable,
        "-I",
        str(Path(__file__).with_name("kill_at_step.py")),
        str(REPOSITORY),
        who,
        str(at),
        str(count),
    ]
    done = subprocess.run([*command, *arguments], env=environment, capture_output=True, timeout=60, stdin=-3)
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    if at:
        return 0
    for _ in range(100):
        if count.exists():
            break
        time.sleep(0.05)  # the monitor ends a moment after the command
    steps = int(count.read_text())
    count.unlink()
    return steps


def settle(run: Runner) -> None:
    """Bring the store back to the state before, through our own commands only."""
    run("rm", "-f", "crash", "victim", check=False)
    run("volume", "rm", "-f", "crash-volume", check=False)
    run("rmi", "-f", "crash:new", "crash:tagged", "crash:committed", "victim:image", check=False)


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_each_step(name: str, crash_root: Path, small_tar: Path) -> None:
    run = make_runner(crash_root)
    who, words = COMMANDS[name]
    arguments = [word.format(tar=small_tar) for word in words]

    def before() -> None:
        settle(run)
        if name in ("commit", "cp"):
            run(
                "run",
                "--name",
                "victim",
                "--network=none",
                "busybox",
                "sh",
                "-c",
                "mkdir /d; echo x > /d/f; rm /bin/ed",
            )
        if name == "rm":
            run("run", "-d", "--name", "victim", "--network=none", "busybox", "sleep", "1000")
        if name == "rmi":
            run("import", str(small_tar), "victim:image")

    before()
    steps = crash(crash_root, who, 0, arguments)
    assert steps > 0
    for at in sorted({1 + i * (steps - 1) // (POINTS - 1) for i in range(POINTS)}):
        before()
        crash(crash_root, who, at, arguments)
        # the next commands work, and see no half object
        assert "busybox" in run("image", "ls").stdout
        run("ps", "-a")
        assert run("run", "--rm", "--network=none", "busybox", "echo", "alive").stdout == "alive\n"
    settle(run)
    run("system", "prune", "-f")
    assert not list((crash_root / "trash").glob("*"))
    assert not list((crash_root / "containers").glob("*"))
    assert not [p for p in crash_root.rglob("*.tmp") if "diff" not in p.parts]
    assert not processes_below(crash_root), f"processes left behind after {name}"


def processes_below(root: Path) -> list[str]:
    """Our processes that name the store in their arguments or hold a file below it open."""
    found: list[str] = []
    for _ in range(60):
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                used = [os.readlink(fd) for fd in (entry / "fd").iterdir()]
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(root).encode() in words or any(path.startswith(str(root)) for path in used):
                found.append(f"{entry.name} {words.replace(bytes(1), b' ')[:200]!r}")
        if not found:
            return []
        time.sleep(0.1)
    return found
