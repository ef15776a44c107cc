"""Filters, capabilities and keyrings against the real kernel, in children of our own and in containers."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from rootless.host import idmap, subid, userns
from rootless.kernel import process
from rootless.kernel import process as kernel_process
from rootless.kernel.libc import syscall, syscall_number
from rootless.kernel.process import load_filter
from rootless.runtime import capabilities
from rootless.runtime.process import session_keyring
from rootless.runtime.seccomp import filter_cache, seccomp_profile
from tests.conftest import Runner, owns_range, require

TIOCSTI = 0x5412
KEYCTL_GET_KEYRING_ID, SESSION = 0, -3
CLONE3, MSEAL, FUTURE = 435, 462, 600


def _in_child(function: Callable[[], object]) -> object:
    """The JSON value that `function` returns in a forked child."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, json.dumps(function()).encode())
            os._exit(0)
        except BaseException as e:
            os.write(write, json.dumps(f"failed: {e!r}").encode())
        finally:
            os._exit(1)
    os.close(write)
    with open(read, "rb") as f:
        text = f.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return json.loads(text) if text else status


def _errno(call: int, *args: int) -> int:
    try:
        syscall(call, *args)
    except OSError as e:
        return e.errno or 0
    return 0


def _errno_of_ioctl(request: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    ctypes.set_errno(0)
    libc.ioctl(0, ctypes.c_ulong(request), b"x")
    return ctypes.get_errno()


def _loaded(program: bytes, look: Callable[[], object]) -> object:
    def run() -> object:
        process.set_no_new_privs()
        load_filter(program)
        return look()

    return _in_child(run)


def test_the_default_filter_in_the_kernel(tmp_path: Path) -> None:
    """TRAPS 3.14: self-test of the filter that is really loaded."""
    program = filter_cache.cached(seccomp_profile.default_profile(), str(tmp_path))

    def look() -> object:
        return {
            "keyctl": _errno(syscall_number("keyctl"), KEYCTL_GET_KEYRING_ID, SESSION, 0),
            "clone3": _errno(CLONE3, 0, 0),
            "future": _errno(FUTURE),
            "mseal": _errno(MSEAL, 1, 1, 1),
            "tiocsti": _errno_of_ioctl(TIOCSTI),
            "tiocsti_high": _errno_of_ioctl(1 << 32 | TIOCSTI),
            "other_ioctl": _errno_of_ioctl(0x5401),
        }

    found = _loaded(program, look)
    assert isinstance(found, dict), found
    assert found.pop("mseal") != errno.EPERM
    assert found.pop("other_ioctl") in (0, errno.ENOTTY)
    assert found == {
        "keyctl": errno.EPERM,
        "clone3": errno.ENOSYS,
        "future": errno.ENOSYS,
        "tiocsti": errno.EPERM,
        "tiocsti_high": errno.EPERM,
    }


def test_a_killing_profile() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["getpgrp", "getpgid"], "action": "SCMP_ACT_KILL_PROCESS"}],
    }
    assert (
        _loaded(filter_cache.compile_profile(seccomp_profile.resolve(profile)), lambda: os.getpgid(0)) == -signal.SIGSYS
    )


def test_loading_needs_no_libseccomp(tmp_path: Path) -> None:
    """The init of a container loads the program alone."""
    path = filter_cache.cached_path(seccomp_profile.default_profile(), str(tmp_path))
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[3])!r})\n"
        "from rootless.runtime.seccomp.filter_cache import read_filter\n"
        "from rootless.kernel import process\n"
        f"program = read_filter({path!r}); process.set_no_new_privs(); process.load_filter(program)\n"
        "print('libseccomp' in open('/proc/self/maps').read(), 'rootless.kernel.libseccomp' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-I", "-c", code], text=True).split() == ["False", "False"]


def test_the_keyring_is_a_new_one() -> None:
    """runc#582: keys of the login session are not visible."""

    def look() -> object:
        before = syscall(syscall_number("keyctl"), KEYCTL_GET_KEYRING_ID, SESSION, 1)
        extra = session_keyring.join_own_keyring()
        return before, syscall(syscall_number("keyctl"), KEYCTL_GET_KEYRING_ID, SESSION, 0), extra is None

    found = _in_child(look)
    assert isinstance(found, list), found
    assert found[0] != found[1]
    assert found[2] is True


def _as_other_id(uid: int, function: Callable[[], object]) -> object:
    """In the user namespace `uid`, whose quota of keys nobody else uses."""
    require(owns_range(), "no range of subordinate ids")
    ids = subid.subordinate_ids()

    def inside() -> bytes:
        os.setgid(uid)
        os.setuid(uid)
        return json.dumps(function()).encode()

    return json.loads(userns.call_in_new_namespace(idmap.default_map(ids, os.getuid(), os.getgid()), inside))


def test_a_full_quota_of_keys_denies_key_calls_instead_of_failing() -> None:
    """runc#726, podman#13363: EDQUOT."""

    def look() -> object:
        kernel_process.join_session_keyring(None)
        add_key = {"x86_64": 248, "aarch64": 217}[os.uname().machine]
        for serial in range(100_000):
            code = _errno_of_add_key(add_key, serial)
            if code:
                break
        extra = session_keyring.join_own_keyring()
        process.set_no_new_privs()
        assert extra is not None
        load_filter(extra)
        return code, _errno(syscall_number("keyctl"), KEYCTL_GET_KEYRING_ID, SESSION, 0), os.getpid() > 0

    assert _as_other_id(77, look) == [errno.EDQUOT, errno.ENOSYS, True]


def _errno_of_add_key(call: int, serial: int) -> int:
    try:
        syscall(call, b"user\0", f"k{serial}\0".encode(), b"v", 1, -3)
    except OSError as e:
        return e.errno or 0
    return 0


def test_no_keyring_is_left_behind() -> None:
    """More joins than the quota of 200 allows at once: those of ended processes are gone."""

    def look() -> object:
        return sum(_in_child(lambda: session_keyring.join_own_keyring() is None) is True for _ in range(300))

    assert _as_other_id(78, look) == 300


def test_capabilities_in_the_kernel() -> None:
    """The order of init for another user with one added capability: it is effective after setuid and exec."""
    require(owns_range(), "no range of subordinate ids")
    ids = subid.subordinate_ids()
    wanted = capabilities.effective_sets(["net_admin"], uid=5)

    def inside() -> bytes:
        capabilities.drop_bounding(wanted.bounding)
        capabilities.keep_over_setuid()
        os.setgroups([])
        os.setgid(5)
        os.setuid(5)
        capabilities.apply(wanted)
        return subprocess.check_output(["grep", "Cap", "/proc/self/status"])

    lines = userns.call_in_new_namespace(idmap.default_map(ids, os.getuid(), os.getgid()), inside).decode().splitlines()
    sets = {line.split()[0]: int(line.split()[1], 16) for line in lines}
    only = capabilities.capability_mask(["CAP_NET_ADMIN"])
    assert sets == {
        "CapInh:": only,
        "CapPrm:": only,
        "CapEff:": only,
        "CapBnd:": capabilities.capability_mask([*capabilities.DEFAULT, "CAP_NET_ADMIN"]),
        "CapAmb:": only,
    }


def _status(busybox: Runner, *options: str) -> dict[str, str]:
    shown = busybox("run", "--rm", "--network=none", *options, "busybox", "cat", "/proc/self/status").stdout
    return dict(line.split(":\t", 1) for line in shown.splitlines() if ":\t" in line)


def test_a_container_has_filter_and_default_capabilities(busybox: Runner) -> None:
    status = _status(busybox)
    assert status["Seccomp"] == "2"
    assert int(status["CapEff"], 16) == capabilities.capability_mask(capabilities.DEFAULT)
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0


def test_security_options_of_a_container(busybox: Runner, tmp_path: Path) -> None:
    assert _status(busybox, "--security-opt", "seccomp=unconfined")["Seccomp"] == "0"
    assert _status(busybox, "--privileged")["Seccomp"] == "0"
    assert int(_status(busybox, "--cap-drop=all")["CapBnd"], 16) == 0
    profile = tmp_path / "no-chmod.json"
    rule = {"name": "chmod", "action": "SCMP_ACT_ERRNO", "errno": "ENOSPC"}
    rules = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule, {**rule, "name": "fchmodat"}]}
    profile.write_text(json.dumps(rules))
    options = ("run", "--rm", "--network=none", "--security-opt", f"seccomp={profile}")
    failed = busybox(*options, "busybox", "chmod", "700", "/tmp", check=False)
    assert failed.returncode != 0
    assert os.strerror(errno.ENOSPC) in failed.stderr


def test_a_wrong_profile_is_an_error_and_never_ignored(busybox: Runner, tmp_path: Path) -> None:
    """CVE-2025-65105: what was asked and cannot be applied stops the container."""
    profile = tmp_path / "wrong.json"
    profile.write_text('{"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}')
    for value in (profile, tmp_path / "absent"):
        options = ("run", "--rm", "--network=none", "--security-opt", f"seccomp={value}")
        failed = busybox(*options, "busybox", "true", check=False)
        assert failed.returncode == 125, failed.stderr
        assert "seccomp" in failed.stderr
