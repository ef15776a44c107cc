"""kernel.procfs: parsing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from rootless.kernel import procfs


def test_stat_with_a_hostile_command_name() -> None:
    tail = " ".join(str(n) for n in range(5, 60))
    stat = procfs.ProcessStat(f"42 (a) R 1 (b)) S 7 8 9 10 {tail}")
    assert (stat.pid, stat.command, stat.state, stat.parent) == (42, "a) R 1 (b)", "S", 7)
    assert (stat.process_group, stat.session, stat.tty) == (8, 9, 10)


def test_own_stat() -> None:
    stat = procfs.read_stat(os.getpid())
    assert (stat.pid, stat.parent) == (os.getpid(), os.getppid())
    assert procfs.start_time(os.getpid()) == stat.start_time > 0


def test_no_such_process() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    with pytest.raises((FileNotFoundError, ProcessLookupError)):
        procfs.read_stat(child.pid)


def test_children() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert child.pid in procfs.child_pids(os.getpid())
    finally:
        child.communicate(b"\n")


def test_mountinfo_line() -> None:
    line = r"36 35 98:0 /a\040b /mnt\134x rw,noatime shared:1 master:2 - ext3 /dev/r\011t rw,errors=continue"
    mount = procfs.MountInfo(line)
    assert (mount.identity, mount.parent, mount.device) == (36, 35, "98:0")
    assert (mount.root, mount.target) == ("/a b", "/mnt\\x")
    assert (mount.fstype, mount.source) == ("ext3", "/dev/r\tt")
    assert mount.options == ["rw", "noatime", "rw", "errors=continue"]
    assert mount.propagation == ["shared:1", "master:2"]


def test_own_mountinfo_has_a_root() -> None:
    assert any(m.target == "/" for m in procfs.mountinfo())


def test_boot_id_and_status() -> None:
    assert len(procfs.boot_id()) == 36
    assert procfs.status_field(os.getpid(), "Pid") == str(os.getpid())
    with pytest.raises(KeyError):
        procfs.status_field("self", "NoSuchField")


def test_write_proc_refuses_links_and_dots() -> None:
    """CVE-2025-52881: a write that should reach a process attribute never goes through a link."""
    root = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError):
            procfs.write_proc(root, "self/exe", b"x")
        with pytest.raises(OSError):
            procfs.write_proc(root, "../etc/passwd", b"x")
        procfs.write_proc(root, f"{os.getpid()}/comm", b"probe-test")
        with open("/proc/self/comm") as f:
            assert f.read().strip() == "probe-test"
    finally:
        os.close(root)


def test_write_proc_refuses_what_is_no_procfs(tmp_path: object) -> None:
    root = os.open(str(tmp_path), os.O_PATH | os.O_DIRECTORY)
    try:
        with open(f"{tmp_path}/comm", "w"):
            pass
        with pytest.raises(OSError):
            procfs.write_proc(root, "comm", b"x")
        with open(f"{tmp_path}/comm") as f:
            assert f.read() == ""
    finally:
        os.close(root)


def test_a_process_that_hides_is_seen_by_its_child() -> None:
    """As our own reaper, pid 1 of `run --init` where the host has no docker-init, does."""
    code = (
        "import os, sys\n"
        "from rootless.kernel.process import set_dumpable\n"
        "if os.fork() == 0: os.execvp('sleep', ['sleep', '60'])\n"
        "set_dumpable(False); print('ready', flush=True); input()"
    )
    argv = [sys.executable, "-c", code]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout and parent.stdin
        assert parent.stdout.readline() == "ready\n"
        (child,) = procfs.child_pids(parent.pid)
        try:
            assert procfs.visible_process(child) == child
            assert procfs.visible_process(parent.pid) == (parent.pid if os.geteuid() == 0 else child)
        finally:
            os.kill(child, signal.SIGKILL)
            parent.kill()
    assert procfs.visible_process(parent.pid) == parent.pid
