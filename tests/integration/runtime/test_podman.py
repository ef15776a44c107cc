"""Rootless podman with rootless-oci as its runtime: what people do with podman goes on to work."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import make_private_directory, oci_command_path, remove_private_directory, require
from tests.integration.runtime.bundle import BUSYBOX, make_root

Podman = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def podman() -> Iterator[Podman]:
    """Run `podman --runtime rootless-oci ARGS...` on a store of this module's own, with the image `bb` in it."""
    require(BUSYBOX.exists(), "no static busybox (apt-get install busybox-static)")
    nested = Path("/proc/self/uid_map").read_text().split()[2] == "1"
    require(not nested and os.geteuid() != 0, "rootless podman wants a plain user here")
    program = shutil.which("podman")
    require(program, "podman is not installed (apt-get install podman)")
    directory = make_private_directory("p")
    place = Path(tempfile.mkdtemp(prefix="p-"))  # podman wants a short path
    wrapper = directory / "rootless-oci"
    wrapper.write_text(f'#!/bin/sh\nexec {shlex.join(oci_command_path())} "$@"\n')
    wrapper.chmod(0o755)
    root = make_root(directory / "root")
    (root / "bin/httpd").symlink_to("busybox")
    (root / "www").mkdir()
    (root / "www/index.html").write_text("served\n")
    with tarfile.open(directory / "root.tar", "w") as tar:
        tar.add(root, ".")
    for name in ("home", "x"):
        (place / name).mkdir(mode=0o700)
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": str(place / "home"),
        "XDG_RUNTIME_DIR": str(place / "x"),
        "XDG_CACHE_HOME": str(directory / "cache"),
    }
    store = [
        "--root",
        f"{place}/s",
        "--runroot",
        f"{place}/r",
        "--storage-driver",
        "vfs",
        "--cgroup-manager",
        "cgroupfs",
    ]

    def run(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(program), *store, "--runtime", str(wrapper), *arguments],
            capture_output=True, text=True, timeout=180, stdin=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stderr
        return done

    imported = run("import", "-q", "-c", "ENV PATH=/bin", str(directory / "root.tar"), "bb", check=False)
    require(imported.returncode == 0, f"podman cannot store an image here: {imported.stderr.strip()}")
    yield run
    run("rm", "-f", "-a", "-t", "0", check=False)
    subprocess.run([str(program), "unshare", "rm", "-rf", f"{place}/s", f"{place}/r"], env=environment, timeout=120)
    for file in place.rglob("pause.pid"):
        os.kill(int(file.read_text()), signal.SIGKILL)
    shutil.rmtree(place, ignore_errors=True)
    remove_private_directory(directory)


def eventually(fact: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not fact():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_run_and_its_exit_status(podman: Podman) -> None:
    done = podman("run", "--rm", "--network=none", "bb", "sh", "-c", "echo $$; exit 6", check=False)
    assert (done.returncode, done.stdout) == (6, "1\n"), done.stderr
    assert podman("run", "--rm", "--network=none", "bb", "/bin/nope", check=False).returncode == 127
    assert podman("run", "--rm", "--network=none", "bb", "/etc", check=False).returncode == 126
    assert podman("ps", "-aq").stdout == ""


def test_options_of_run(podman: Podman) -> None:
    script = (
        "id -u; hostname; cat /proc/sys/net/ipv4/ip_forward; grep NoNewPrivs /proc/self/status; touch /x; ulimit -n"
    )
    done = podman(
        "run", "--rm", "--network=none", "--read-only", "--tmpfs", "/t:size=1m", "--cap-drop", "ALL", "--ulimit",
        "nofile=100:100", "--hostname", "hh", "--sysctl", "net.ipv4.ip_forward=1", "--security-opt",
        "no-new-privileges", "bb", "sh", "-c", script,
    )  # fmt: skip
    assert done.stdout.split() == ["0", "hh", "1", "NoNewPrivs:", "1", "100"] and "Read-only" in done.stderr


def test_terminal(podman: Podman) -> None:
    assert podman("run", "--rm", "-t", "--network=none", "bb", "tty").stdout.strip() == "/dev/pts/0"


def test_a_server_in_the_background(podman: Podman) -> None:
    """-d, -p, port, top, exec, cp, kill, wait, rm."""
    require(shutil.which("slirp4netns"), "slirp4netns is not installed (apt-get install slirp4netns)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    published = f"127.0.0.1:{port}:80"
    done = podman("run", "-d", "--name", "w", "-p", published, "bb", "httpd", "-f", "-h", "/www", check=False)
    require(done.returncode == 0 or "/dev/net/tun" not in done.stderr, "podman cannot make a network here")
    assert done.returncode == 0, done.stderr

    def served() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                return bool(answer.read() == b"served\n")
        except OSError:
            return False

    eventually(served, "the page")
    assert str(port) in podman("port", "w").stdout and "httpd" in podman("top", "w").stdout
    done = podman("exec", "-w", "/www", "-e", "A=1", "w", "sh", "-c", "pwd; echo $A; exit 3", check=False)
    assert (done.returncode, done.stdout) == (3, "/www\n1\n"), done.stderr
    assert "/dev/pts/0" in podman("exec", "-t", "w", "tty").stdout
    assert podman("exec", "w", "/bin/nope", check=False).returncode == 127
    podman("kill", "w")
    assert podman("wait", "w").stdout == "137\n"
    podman("rm", "w")


def test_stop_logs_restart_and_health(podman: Podman) -> None:
    script = "trap 'exit 9' TERM; touch /tmp/ok; echo ready; while :; do usleep 10000; done"
    podman("run", "-d", "--name", "d", "--network=none", "--health-cmd", "test -f /tmp/ok", "--health-interval",
           "disable", "bb", "sh", "-c", script)  # fmt: skip
    eventually(lambda: podman("logs", "d").stdout == "ready\n", "the log")
    podman("healthcheck", "run", "d")
    assert podman("inspect", "-f", "{{.State.Health.Status}}", "d").stdout == "healthy\n"
    podman("stop", "-t", "30", "d")
    assert podman("inspect", "-f", "{{.State.ExitCode}} {{.State.Status}}", "d").stdout == "9 exited\n"
    podman("start", "d")
    eventually(lambda: podman("logs", "d").stdout == "ready\nready\n", "the log of the second run")
    podman("rm", "-f", "-t", "0", "d")


def test_create_start_attach(podman: Podman) -> None:
    podman("create", "--name", "c", "--network=none", "bb", "sh", "-c", "echo out; exit 4")
    done = podman("start", "-a", "c", check=False)
    assert (done.returncode, done.stdout) == (4, "out\n"), done.stderr
    podman("rm", "c")


def test_nothing_of_ours_is_left(podman: Podman) -> None:
    podman("run", "--rm", "--network=none", "bb", "true")
    place = Path(podman("info", "-f", "{{.Store.RunRoot}}").stdout.strip()).parent
    assert not list((place / "x/rootless-oci").iterdir())
