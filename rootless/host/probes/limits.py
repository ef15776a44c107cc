"""Probes of what confines a container besides its namespaces: cgroups, seccomp, keyrings."""

from __future__ import annotations

import os

from rootless.errors import HostLimit
from rootless.host import userns
from rootless.host.facts import find_helper
from rootless.host.probes import Probe
from rootless.host.probes.trial import run

_ROOT = "/sys/fs/cgroup"
_DELEGATION = (
    "ask the administrator for a drop-in /etc/systemd/system/user@.service.d/delegate.conf with"
    " `[Service]` and `Delegate=cpu cpuset io memory pids`"
)


def cgroup(directory: str) -> Probe:
    """The ladder of cgroups: a systemd user scope, else a directory that we may write, else none."""
    from rootless.kernel.mounts import CGROUP2_SUPER_MAGIC, fs_magic

    try:
        fd = os.open(_ROOT, os.O_PATH | os.O_CLOEXEC)
        magic = fs_magic(fd)
        os.close(fd)
    except OSError:
        return Probe(
            "cgroup", False, f"'{_ROOT}' is not there: no resource limits", "ask the administrator to mount it"
        )
    if magic != CGROUP2_SUPER_MAGIC:
        return Probe(
            "cgroup",
            False,
            "cgroup version 1 (or hybrid) cannot be delegated safely: no resource limits",
            "ask the administrator to boot with systemd.unified_cgroup_hierarchy=1",
        )
    scope = _user_scope()
    if scope is not None:
        return scope
    return _own_directory()


def _user_scope() -> Probe | None:
    """A transient scope of the user's systemd, made for real; None where there is no such systemd."""
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    program = find_helper("systemd-run")
    if program is None or not os.path.exists(f"{runtime}/systemd/private"):
        return None
    code, words = run([program, "--user", "--scope", "--quiet", "--collect", "--", "/bin/true"])
    if code != 0:
        return (
            Probe("cgroup", False, f"systemd made no scope: {words}", "log in through PAM, not by su")
            if words
            else None
        )
    uid = os.geteuid()
    found = _controllers(f"{_ROOT}/user.slice/user-{uid}.slice/user@{uid}.service")
    missing = {"cpu", "memory", "pids"} - set(found)
    detail = f"systemd user scopes with controllers {' '.join(found) or 'none'}"
    if missing:
        return Probe("cgroup", False, f"{detail}; not delegated: {' '.join(sorted(missing))}", _DELEGATION)
    return Probe("cgroup", True, detail)


def _own_directory() -> Probe:
    """The cgroup that we are in, tried with a subdirectory."""
    with open("/proc/self/cgroup") as f:
        own = next((line.strip()[3:] for line in f if line.startswith("0::")), "/")
    path = f"{_ROOT}{own}".rstrip("/")
    trial = f"{path}/rootless-probe-{os.getpid()}"
    try:
        os.mkdir(trial)
        os.rmdir(trial)
    except OSError as e:
        return Probe("cgroup", False, f"cannot write '{path}': {e.strerror}: no resource limits", _DELEGATION)
    return Probe("cgroup", True, f"delegated directory '{path}' with controllers {' '.join(_controllers(path))}")


def _controllers(path: str) -> list[str]:
    try:
        with open(f"{path}/cgroup.controllers") as f:
            return f.read().split()
    except OSError:
        return []


def seccomp(directory: str) -> Probe:
    """A filter made by libseccomp, loaded in a child and seen to work."""
    from rootless.kernel import libseccomp
    from rootless.kernel.process import set_no_new_privs
    from rootless.kernel.seccomp import load_filter

    try:
        version = ".".join(map(str, libseccomp.version()))
    except OSError:
        remedy = "ask the administrator for: apt install libseccomp2   (dnf install libseccomp)"
        return Probe("seccomp", False, "library 'libseccomp.so.2' is missing", remedy)
    marker = 77
    with libseccomp.Filter(libseccomp.ACT_ALLOW) as program:
        number = libseccomp.syscall_resolve("sched_yield")
        assert number is not None
        program.rule_add(libseccomp.act_errno(marker), number)
        bpf = program.export_bpf()

    def inside() -> bytes:
        set_no_new_privs()
        load_filter(bpf)
        try:
            os.sched_yield()
        except OSError as e:
            if e.errno == marker:
                return b""
        raise HostLimit("a loaded filter has no effect")

    try:
        userns.fork_and_read(inside)
    except OSError as e:
        return Probe(
            "seccomp", False, f"the kernel takes no filter: {e.strerror}", "a kernel with CONFIG_SECCOMP_FILTER=y"
        )
    return Probe("seccomp", True, f"libseccomp {version}; a filter loaded and worked")


def keyring(directory: str) -> Probe:
    """A session keyring of a child's own."""
    import errno

    from rootless.kernel.keyring import join_session_keyring

    def inside() -> bytes:
        join_session_keyring("rootless-probe")
        return b""

    try:
        userns.fork_and_read(inside)
    except OSError as e:
        if e.errno == errno.EDQUOT:
            remedy = "end other sessions, or ask the administrator for: sysctl -w kernel.keys.maxkeys=2000"
            return Probe("keyring", False, "your quota of keys is used up; keyctl is denied in containers", remedy)
        return Probe("keyring", False, f"no session keyring: {e.strerror}; keyctl is denied in containers", None)
    return Probe("keyring", True, "containers get a session keyring of their own")
