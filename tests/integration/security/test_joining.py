"""Issue 8, A.4: what is asked of /proc after a container was joined is the container's answer, and must decide nothing.

An image may name /proc as a volume: the start of docker refuses that, and so may ours; then nothing is to be asked.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootless.kernel.procfs import status_field
from tests.conftest import Runner, make_private_directory, make_runner, remove_private_directory, require

BUSYBOX = Path("/bin/busybox")
LAST_CAP = "proc/sys/kernel/cap_last_cap"


@pytest.fixture
def run() -> Iterator[Runner]:
    """A runner on a store of its own; a joining process that hangs would else keep the module's store."""
    require(BUSYBOX.exists(), "no /bin/busybox on this host (apt-get install busybox-static)")
    root = make_private_directory("j")
    runner = make_runner(root)
    yield runner
    runner("rm", "-f", "c", check=False)
    remove_private_directory(root)


def make_image(run: Runner, place: Path, last_cap: str | None) -> None:
    """Image `hostile`: busybox, VOLUME /proc and in it a file, or (None) a FIFO, where the kernel's answer would be."""
    archive = place / "hostile.tar"
    with tarfile.open(archive, "w") as tar:
        for name in ("bin", "proc", "proc/sys", "proc/sys/kernel", "proc/self", "proc/1"):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(directory)
        tar.add(BUSYBOX, "bin/busybox")
        for applet in ("sh", "sleep", "true"):
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        entry = tarfile.TarInfo(LAST_CAP)
        if last_cap is None:
            entry.type = tarfile.FIFOTYPE
            tar.addfile(entry)
        else:
            (place / "last").write_text(last_cap)
            tar.add(place / "last", LAST_CAP)
    run("import", "-c", "VOLUME /proc", str(archive), "hostile")


def start(run: Runner, *options: str) -> bool:
    """Whether the container runs: to refuse a volume on /proc is a right answer too."""
    started = run("run", "-d", "--name", "c", "--network", "none", *options, "hostile", "sleep", "1000", check=False)
    assert started.returncode == 0 or "/proc" in started.stderr, started.stderr
    return started.returncode == 0


def find_process(*argv: str) -> str:
    wanted = b"".join(word.encode() + b"\0" for word in argv)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for directory in Path("/proc").iterdir():
            try:
                if directory.name.isdigit() and (directory / "cmdline").read_bytes() == wanted:
                    return directory.name
            except OSError:
                continue
        time.sleep(0.05)
    raise AssertionError(f"no process {argv}")


@pytest.mark.parametrize("answer", ["-1\n", "0\n", "nonsense\n"])
@pytest.mark.parametrize("option", ["--cap-drop=all", "--cap-drop=chown"])
def test_exec_drops_what_the_start_drops(run: Runner, tmp_path: Path, answer: str, option: str) -> None:
    make_image(run, tmp_path, answer)
    if not start(run, option):
        return
    seconds = str(70000 + time.monotonic_ns() % 10000)
    run("exec", "-d", "c", "sleep", seconds)
    first = status_field(find_process("sleep", "1000"), "CapBnd") if option == "--cap-drop=chown" else "0" * 16
    assert status_field(find_process("sleep", seconds), "CapBnd") == first


def test_exec_does_not_wait_for_the_container(run: Runner, tmp_path: Path) -> None:
    make_image(run, tmp_path, None)
    if not start(run):
        return
    assert run("exec", "c", "true", timeout=20).returncode == 0


def test_a_health_check_drops_what_the_start_drops(run: Runner, tmp_path: Path) -> None:
    make_image(run, tmp_path, "-1\n")
    seconds = str(70000 + time.monotonic_ns() % 10000)
    health = ("--health-cmd", f"exec sleep {seconds}", "--health-interval", "1s")
    if not start(run, "--cap-drop=all", *health):
        return
    assert status_field(find_process("sleep", seconds), "CapBnd") == "0" * 16


@pytest.mark.parametrize("place", ["/proc", "/proc/sys", "/sys", "/dev"])
def test_a_volume_does_not_cover_what_the_kernel_says(run: Runner, tmp_path: Path, place: str) -> None:
    """docker: a mount on or in /proc is refused; one on /sys or /dev replaces it, and is never asked by us."""
    make_image(run, tmp_path, "-1\n")
    done = run("run", "--rm", "--network", "none", "-v", f"v:{place}", "hostile", "true", check=False, timeout=60)
    if place.startswith("/proc"):
        assert done.returncode == 125 and "/proc" in done.stderr
    else:
        assert done.returncode == 125 or done.returncode == 0


@pytest.mark.parametrize("option", ["-v=v:/x", "--mount=type=volume,target=/x", "--tmpfs=/x", "-v={}:/x"])
def test_no_link_of_the_image_leads_a_mount_over_proc(run: Runner, tmp_path: Path, option: str) -> None:
    archive = tmp_path / "link.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(BUSYBOX, "bin/true")
        link = tarfile.TarInfo("x")
        link.type, link.linkname = tarfile.SYMTYPE, "/proc/sys"
        tar.addfile(link)
    run("import", str(archive), "linked")
    (tmp_path / "d").mkdir()
    done = run("run", "--rm", "--network", "none", option.format(tmp_path / "d"), "linked", "true", check=False)
    assert done.returncode == 125 and "inside /proc" in done.stderr


@pytest.mark.parametrize("name", ["ptmx", "null"])
def test_a_terminal_is_never_a_file_of_the_container(run: Runner, tmp_path: Path, name: str) -> None:
    """Where /dev/pts is no devpts there is no terminal: a FIFO `ptmx` there would hang `exec` for ever."""
    make_image(run, tmp_path, "40\n")
    run("import", str(tmp_path / "hostile.tar"), "plain")
    run("run", "-d", "--name", "c", "--network", "none", "-v", "v:/dev/pts", "plain", "sleep", "1000")
    run("exec", "c", "busybox", "mkfifo", f"/dev/pts/{name}")
    done = run("exec", "-t", "c", "true", check=False, timeout=20)
    assert done.returncode != 0 and "devpts" in done.stderr


def test_a_pipe_in_place_of_the_accounts_does_not_hang(run: Runner, tmp_path: Path) -> None:
    make_image(run, tmp_path, "40\n")
    run("import", str(tmp_path / "hostile.tar"), "plain")
    run("run", "-d", "--name", "c", "--network", "none", "plain", "sleep", "1000")
    run("exec", "c", "sh", "-c", "busybox mkdir -p /etc; busybox rm -f /etc/passwd; busybox mkfifo /etc/passwd")
    done = run("exec", "--user", "daemon", "c", "true", check=False, timeout=20)
    assert done.returncode != 0 and "etc/passwd" in done.stderr
    assert run("exec", "c", "true", timeout=20).returncode == 0


def test_directories_of_proc_are_working_directories_as_they_are(run: Runner, tmp_path: Path) -> None:
    """docker: what is not there cannot be made; an open descriptor of ours is no way out (CVE-2024-21626)."""
    make_image(run, tmp_path, "40\n")
    run("import", str(tmp_path / "hostile.tar"), "plain")
    options = ("run", "--rm", "--network", "none")
    assert run(*options, "-w", "/proc/sys", "plain", "busybox", "pwd").stdout == "/proc/sys\n"
    assert run(*options, "-w", "/proc/none", "plain", "true", check=False).returncode == 125
    run("run", "-d", "--name", "c", "--network", "none", "plain", "sleep", "1000")
    assert run("exec", "-w", "/proc/none", "c", "true", check=False).returncode != 0
    for number in range(3, 20):
        done = run("exec", "-w", f"/proc/self/fd/{number}", "c", "busybox", "ls", check=False)
        assert done.returncode != 0, done.stdout


KEYRING = r"""
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void) { printf("%ld\n", syscall(SYS_keyctl, 0, -3, 0)); }  /* KEYCTL_GET_KEYRING_ID of the session */
"""


def test_exec_has_a_session_keyring_of_its_own(run: Runner, tmp_path: Path) -> None:
    """Without a seccomp filter keyctl(2) works inside: the keys of the caller's login must not be what it finds."""
    compiler = shutil.which("gcc")
    require(compiler, "no C compiler (apt-get install gcc libc6-dev)")
    (tmp_path / "k.c").write_text(KEYRING)
    subprocess.run([str(compiler), "-static", "-o", tmp_path / "k", tmp_path / "k.c"], check=True)
    ours = subprocess.run([tmp_path / "k"], check=True, capture_output=True, text=True).stdout
    require(int(ours) > 0, "a kernel without keys")
    run("image", "bootstrap", "busybox")
    run("run", "-d", "--name", "c", "--network=none", "--security-opt", "seccomp=unconfined", "-v", f"{tmp_path}:/t",
        "busybox", "sleep", "1000")  # fmt: skip
    inside = {run("exec", *flags, "c", "/t/k").stdout for flags in ((), ("--privileged",))}
    assert ours not in inside and len(inside) == 2
