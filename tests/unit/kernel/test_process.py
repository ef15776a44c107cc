"""kernel.process, libc, tty, libseccomp: calls that need no privilege and no namespace."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
import sys

import pytest

from rootless.kernel import libc, libseccomp, process, tty


def test_error_names_the_call_and_the_path() -> None:
    from rootless.kernel import mounts

    with pytest.raises(OSError) as caught:
        mounts.umount("/proc/no-such-mount")
    assert caught.value.filename == "/proc/no-such-mount"
    assert "umount2" in caught.value.__notes__[0]


def test_unknown_machine_is_enosys() -> None:
    with pytest.raises(OSError, match="no_such_call"):
        libc.syscall_number("no_such_call")


def test_pidfd() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    fd = process.pidfd_open(child.pid)
    assert not os.get_inheritable(fd)
    process.pidfd_send_signal(fd, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        process.pidfd_send_signal(fd, 0)
    os.close(fd)
    assert child.stdin
    child.stdin.close()


@pytest.mark.parametrize("slowly", [False, True])
def test_close_range(slowly: bool) -> None:
    duplicates = [fcntl.fcntl(0, fcntl.F_DUPFD, 300) for _ in range(3)]  # where no other test has any
    first, last = min(duplicates), max(duplicates)
    for fd in duplicates:
        os.set_inheritable(fd, True)
    close = process._close_range_slowly if slowly else lambda a, b, c: process.close_range(a, b, cloexec=c)
    close(first, last, True)
    assert not any(os.get_inheritable(fd) for fd in duplicates)
    close(first, last, False)
    for fd in duplicates:
        with pytest.raises(OSError):
            os.fstat(fd)


def test_capability_sets_are_64_bits_wide() -> None:
    effective, permitted, inheritable = process.capget()
    for value, name in ((effective, "CapEff"), (permitted, "CapPrm"), (inheritable, "CapInh")):
        from rootless.kernel.procfs import status_field

        assert value == int(status_field("self", name), 16)
    process.capset(effective, permitted, inheritable)


def in_child(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_flags_of_a_child() -> None:
    code = (
        "from rootless.kernel import process, procfs\n"
        "process.set_no_new_privs(); process.set_child_subreaper()\n"
        "print(procfs.status_field('self', 'NoNewPrivs'))"
    )
    assert in_child(code) == "1"


def test_pty_by_fd() -> None:
    """CVE-2025-52565: the console is found by TIOCGPTPEER and checked, never by its name."""
    where = os.path.dirname(os.path.realpath("/dev/ptmx"))  # a container has a link to pts/ptmx there
    devices = os.open(where, os.O_PATH | os.O_DIRECTORY)
    try:
        master, slave = tty.open_ptmx(devices)
    finally:
        os.close(devices)
    assert tty.is_ptmx(master)
    assert tty.is_pty_slave(slave)
    assert not tty.is_pty_slave(master)
    assert not os.get_inheritable(master) and not os.get_inheritable(slave)
    tty.set_winsize(master, 24, 81)
    assert tty.get_winsize(slave) == (24, 81)
    os.write(slave, b"x")
    assert os.read(master, 1) == b"x"
    os.close(master)
    os.close(slave)


def test_ptmx_that_is_another_file_is_refused(tmp_path: object) -> None:
    with open(f"{tmp_path}/ptmx", "w"):
        pass
    fd = os.open(str(tmp_path), os.O_PATH)
    with pytest.raises(OSError):
        tty.open_ptmx(fd)
    os.close(fd)


def test_filter_compiles_and_works() -> None:
    code = (
        "import os\n"
        "from rootless.kernel import libseccomp as s, process\n"
        "from rootless.kernel.process import load_filter\n"
        "f = s.Filter(s.ACT_ALLOW)\n"
        "f.rule_add(s.act_errno(42), s.syscall_resolve('personality'), [(0, s.COMPARE['EQ'], 8, 0)])\n"
        "bpf = f.export_bpf(); f.release(); process.set_no_new_privs(); load_filter(bpf)\n"
        "print(process.personality(0xffffffff))\n"
        "try: process.personality(8)\n"
        "except OSError as e: print(e.errno)"
    )
    assert in_child(code).split() == ["0", "42"]


def test_libseccomp_names() -> None:
    assert libseccomp.library_version() >= (2, 3, 0)
    assert libseccomp.syscall_resolve("no_such_call") is None
    assert libseccomp.arch_resolve("no_such_machine") is None
    assert libseccomp.arch_resolve("x86_64") == 0xC000003E
    with libseccomp.Filter(libseccomp.ACT_ALLOW) as program:
        program.arch_add(libseccomp.arch_native())
        bpf = program.export_bpf()
        assert len(bpf) % struct.calcsize("=HBBI") == 0
        with pytest.raises(OSError):
            program.rule_add(libseccomp.ACT_ALLOW, 0)
