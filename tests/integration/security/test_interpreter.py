"""Issue 8, A.5: CVE-2019-5736, where Python lies in the caller's home and is his own (pip, conda, pyenv).

The image's program is a script for /proc/self/exe: what starts is the file that was executed to make the container, and
whoever is started so holds a descriptor of that file. Writing to it is refused (ETXTBSY) only while somebody executes
it. So it must not be Python, which is the container's root's: it is the C library's loader, which is the host's root's.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY, Runner, make_private_directory, remove_private_directory, require, runs

NONE = ("--network", "none")

# What the image runs, by our own interpreter: leaves a child that no signal of a parent's death reaches.
ATTACK = """#!/proc/self/exe -IS
import ctypes, os, signal
libc = ctypes.CDLL(None)
held = os.open("/proc/self/exe", os.O_PATH)
os.set_inheritable(held, True)
libc.prctl(1, 0, 0, 0, 0)
proc = os.open("/proc", os.O_PATH)
loop = "until echo overwritten > self/fd/%d; do /bin/busybox sleep 0.1; done; /bin/busybox sleep 5" % held
if {detach}:
    if os.fork():
        signal.pause()
    os.setsid()
    os.chroot("/other")
os.fchdir(proc)
os.execv("/bin/busybox", ["sh", "-c", loop])
"""


class Home:
    """A home with an interpreter of the user's own, a store, and an image `hostile`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.python = directory / "python"
        shutil.copy(os.path.realpath(sys.executable), self.python)
        self.python.chmod(0o755)
        self.digest = self.read()

    def read(self) -> str:
        return hashlib.sha256(self.python.read_bytes()).hexdigest()

    def rootless(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        packages = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
        boot = (
            f"import sys; sys.path[:0] = [{str(REPOSITORY)!r}]; sys.path += {packages!r}; sys.argv[0] = 'rootless'; "
            "from rootless.cli.entry import main; sys.exit(main())"
        )
        return subprocess.run(
            [str(self.python), "-I", "-S", "-c", boot, "--root", str(self.directory / "store"), *words],
            check=check,
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )

    def attack(self, *options: str, detach: bool) -> None:
        """Run the image's attack; returns when it has begun, or the container has ended without any."""
        host = [
            f"-v{path}:{path}:ro" for path in ("/usr", "/lib", "/lib64", "/etc/ld.so.cache") if os.path.exists(path)
        ]
        command = "/detach" if detach else "/attack"
        self.rootless("run", "-d", "--name", "c", *NONE, *options, *host, "hostile", command, check=False)
        deadline = time.monotonic() + 20
        while not survivors() and self.state()["Running"]:
            assert time.monotonic() < deadline, "the attack neither begins nor ends"
            time.sleep(0.05)

    def state(self) -> dict[str, Any]:
        return json.loads(self.rootless("inspect", "--format", "{{json .State}}", "c").stdout)


@pytest.fixture
def home(hostile: Home) -> Iterator[Home]:
    yield hostile
    shutil.copy(os.path.realpath(sys.executable), hostile.directory / "again")
    os.replace(hostile.directory / "again", hostile.python)
    hostile.rootless("rm", "-f", "c", check=False)
    for pid in survivors():
        os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def hostile() -> Iterator[Home]:
    require(Path("/bin/busybox").exists(), "no /bin/busybox on this host (apt-get install busybox-static)")
    directory = make_private_directory("y")
    made = Home(directory)
    archive = directory / "hostile.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
        tar.add("/bin/busybox", "bin/sh")
        tar.add("/bin/busybox", "other/bin/busybox")
        scripts = {name: ATTACK.replace("{detach}", str(name == "detach")) for name in ("attack", "detach")}
        for name, text in {**scripts, "show": "#!/proc/self/exe --version\n"}.items():
            script = directory / name
            script.write_text(text)
            script.chmod(0o755)
            tar.add(script, name)
    made.rootless("import", str(archive), "hostile")
    yield made
    remove_private_directory(directory)


def survivors() -> list[int]:
    found = []
    for directory in Path("/proc").iterdir():
        try:
            if directory.name.isdigit() and b"until echo overwritten > self" in (directory / "cmdline").read_bytes():
                found.append(int(directory.name))
        except OSError:
            continue
    return found


def pid_of_monitor(home: Home) -> int:
    record = home.rootless("inspect", "--format", "{{.State.Pid}}", "c").stdout.strip()
    first = int(record)
    return int(Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[1])


def monitor_of(home: Home) -> int:
    monitor = int(Path(f"/proc/{home.state()['Pid']}/stat").read_text().rpartition(")")[2].split()[1])
    assert b"rootless.monitor" in Path(f"/proc/{monitor}/cmdline").read_bytes()
    return monitor


def test_what_survives_a_container_cannot_write_the_interpreter(home: Home) -> None:
    """In the host's pid namespace the end of the first process ends nobody else: here one with another root."""
    home.attack("--pid=host", "--cgroups=disabled", detach=True)
    home.rootless("rm", "-f", "c")
    time.sleep(0.5)
    assert home.read() == home.digest


def test_a_container_whose_monitor_is_killed_cannot_write_the_interpreter(home: Home) -> None:
    """The kernel would end it with its monitor, but a process may clear that signal (prctl(2), PR_SET_PDEATHSIG)."""
    home.attack(detach=False)
    if survivors():
        os.kill(monitor_of(home), signal.SIGKILL)
        time.sleep(1.5)
    assert home.read() == home.digest


def shows_the_loader(text: str) -> bool:
    return "Python" not in text and ("ld.so" in text or "musl" in text)


@pytest.mark.parametrize("options", [(), ("--init",), ("--pid=host",)], ids=" ".join)
def test_a_command_starts_from_no_file_of_the_user(home: Home, options: tuple[str, ...]) -> None:
    done = home.rootless("run", "--rm", *NONE, *options, "hostile", "/show", check=False)
    assert shows_the_loader(done.stdout + done.stderr), done


def test_what_joins_starts_from_no_file_of_the_user(home: Home) -> None:
    """By `exec`, by a health check of the monitor's first and second image, and by one that is asked for."""
    health = 'HEALTHCHECK --interval=1s CMD ["/show"]'
    home.rootless("create", "--name", "base", "hostile", "/show")
    home.rootless("commit", "-c", health, "base", "checked")
    home.rootless("run", "-d", "--name", "c", *NONE, "checked", "/bin/busybox", "sleep", "1000")
    for words in (["exec"], ["container", "exec"]):
        done = home.rootless(*words, "c", "/show", check=False)
        assert shows_the_loader(done.stdout + done.stderr), done
    deadline = time.monotonic() + 10
    while not (log := home.state()["Health"]["Log"]):
        assert time.monotonic() < deadline, "no health check has run"
        time.sleep(0.2)
    assert shows_the_loader(log[0]["Output"]), log
    assert home.rootless("container", "healthcheck", "c", check=False).returncode == log[0]["ExitCode"]


def test_a_second_image_of_the_monitor_is_started_alike(home: Home) -> None:
    home.rootless("run", "-d", "--name", "c", *NONE, "hostile", "/bin/busybox", "sleep", "1000")
    monitor = monitor_of(home)
    deadline = time.monotonic() + 10
    while b"\0resume\0" not in Path(f"/proc/{monitor}/cmdline").read_bytes():
        assert time.monotonic() < deadline, "the monitor has not begun anew"
        time.sleep(0.1)
    assert os.stat(f"/proc/{monitor}/exe").st_uid != os.stat(home.python).st_uid


def test_a_build_starts_from_no_file_of_the_user(home: Home) -> None:
    context = home.directory / "context"
    context.mkdir()
    (context / "Dockerfile").write_text('FROM hostile\nRUN ["/show"]\n')
    done = home.rootless("build", "--progress=plain", "--no-cache", str(context), check=False)
    assert done.returncode == 0 and shows_the_loader(done.stdout + done.stderr), done


def test_what_lost_its_monitor_is_ended_by_the_next_look(home: Home) -> None:
    setpriv = shutil.which("setpriv")
    require(setpriv, "no setpriv on this host (apt-get install util-linux)")
    host = [f"-v{path}:{path}:ro" for path in ("/usr", "/lib", "/lib64") if os.path.exists(path)]
    command = [str(setpriv), "--pdeathsig", "clear", "/bin/busybox", "sleep", "1000"]
    home.rootless("run", "-d", "--name", "c", *NONE, *host, "hostile", *command)
    pid = home.state()["Pid"]
    os.kill(monitor_of(home), signal.SIGKILL)
    time.sleep(0.3)
    assert runs(pid)
    assert home.state()["Running"] is False
    deadline = time.monotonic() + 5
    while runs(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_hosts_python_may_run_where_it_is_mounted(busybox: Runner) -> None:
    """The interpreter is refused as a command by /proc/self/exe; not by a mount of the host's /usr."""
    program = os.path.realpath(sys.executable)
    require(program.startswith("/usr/"), "this Python does not lie below /usr")
    host = [f"-v{path}:{path}:ro" for path in ("/usr", "/lib", "/lib64") if os.path.exists(path)]
    done = busybox("run", "--rm", *NONE, *host, "busybox", program, "-c", "print(6 * 7)")
    assert done.stdout == "42\n"
