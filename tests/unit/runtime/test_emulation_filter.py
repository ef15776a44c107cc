"""What the filters of an emulated root answer, interpreted without loading them."""

from __future__ import annotations

import platform
import stat

import pytest

from rootless.kernel import libseccomp
from rootless.runtime.seccomp.emulation_filter import compile_filters
from tests.conftest import require
from tests.unit.runtime.bpf import AARCH64, ALLOW, ERRNO, I386, X86_64, verdict

NOTIFY = 0x7FC00000
CHOWN32, MKNOD_32, SETUID32 = 212, 14, 213


@pytest.fixture(scope="module")
def filters() -> tuple[bytes, bytes, dict[str, str]]:
    require(platform.machine() == "x86_64", "the numbers here are those of x86_64 (this host has others)")
    return compile_filters()


def number(name: str) -> int:
    found = libseccomp.syscall_resolve(name)
    assert found is not None
    return found


@pytest.mark.parametrize("name", ["chown", "lchown", "fchown", "fchownat", "rename", "renameat", "renameat2"])
def test_calls_that_wait(filters: tuple[bytes, bytes, dict[str, str]], name: str) -> None:
    waiting, plain, calls = filters
    assert verdict(waiting, number(name)) == NOTIFY
    # without a supervisor a rename has to happen, and a chown to succeed
    assert verdict(plain, number(name)) == (ALLOW if name.startswith("rename") else ERRNO)
    assert calls[f"{X86_64}:{number(name)}"] == name


@pytest.mark.parametrize(
    "name",
    ["setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid", "setgroups"],
)
def test_changes_of_ids_succeed(filters: tuple[bytes, bytes, dict[str, str]], name: str) -> None:
    assert verdict(filters[0], number(name), 5) == verdict(filters[1], number(name), 5) == ERRNO


@pytest.mark.parametrize(("name", "at"), [("mknod", 1), ("mknodat", 2)])
def test_only_devices_wait(filters: tuple[bytes, bytes, dict[str, str]], name: str, at: int) -> None:
    for format, answer in (
        (stat.S_IFCHR, NOTIFY),
        (stat.S_IFBLK, NOTIFY),
        (stat.S_IFIFO, ALLOW),
        (stat.S_IFSOCK, ALLOW),
        (stat.S_IFREG, ALLOW),
        (0, ALLOW),
    ):
        arguments = [0] * at + [format | 0o644, 0x103]
        assert verdict(filters[0], number(name), *arguments) == answer
        assert verdict(filters[1], number(name), *arguments) == (ERRNO if answer == NOTIFY else ALLOW)


@pytest.mark.parametrize("name", ["read", "openat", "getuid", "chmod", "setxattr", "newfstatat", "capset"])
def test_everything_else_passes(filters: tuple[bytes, bytes, dict[str, str]], name: str) -> None:
    assert verdict(filters[0], number(name)) == verdict(filters[1], number(name)) == ALLOW


def test_programs_of_the_other_architecture(filters: tuple[bytes, bytes, dict[str, str]]) -> None:
    waiting, _, calls = filters
    assert verdict(waiting, CHOWN32, arch=I386) == NOTIFY and calls[f"{I386}:{CHOWN32}"] == "chown"
    assert calls[f"{I386}:182"] == "chown16", "the old call has ids of 16 bits"
    assert verdict(waiting, MKNOD_32, 0, stat.S_IFBLK, arch=I386) == NOTIFY
    assert verdict(waiting, SETUID32, arch=I386) == ERRNO
    # what is not ours to forbid: other filters do
    assert verdict(waiting, 92, arch=AARCH64) == ALLOW
