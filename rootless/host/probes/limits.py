"""Probes of what confines a container besides its namespaces: cgroups, seccomp, keyrings."""

from __future__ import annotations

import os

from rootless.errors import HostLimit
from rootless.host.answer import fork_and_read
from rootless.host.probes.result import Probe


def cgroup(directory: str) -> Probe:
    """Use the cgroup that was delegated: a child is moved into a scope, or a sub-cgroup made and removed."""
    from rootless.host import cgroups

    found = cgroups.find_delegation()
    if found.kind == "none":
        return Probe("cgroup", False, f"no resource limits: {found.reason}", found.remedy)
    names = " ".join(found.controllers) or "none"
    try:
        if found.kind == "scope":
            detail = f"scopes of your systemd, with controllers {names}"
            _try_scope(found.controllers)
        elif found.kind == "directory":
            detail = f"directory '{found.path}', with controllers {names}"
            _try_directory(found.path)
        else:
            detail = f"version 1, with controllers {names}"
            for path in found.directories.values():
                _try_directory(path)
    except (HostLimit, OSError) as e:
        return Probe("cgroup", False, f"no resource limits: {e}", found.remedy or cgroups.DELEGATION)
    missing = found.missing({"cpu", "memory", "pids"})
    if missing:
        detail = f"{detail}; without {', '.join(missing)}: {found.reason}"
        return Probe("cgroup", False, detail, found.remedy)
    return Probe("cgroup", True, detail + (f" ({found.reason})" if found.reason else ""))


def _try_scope(controllers: tuple[str, ...]) -> None:
    """Have a scope made around a child, and hand on every controller in it. Raises HostLimit, OSError."""
    import signal

    from rootless.host import cgroups, scope

    child = os.fork()
    if child == 0:
        try:
            signal.pause()
        finally:
            os._exit(0)
    try:
        path = scope.ask_for_scope(pid=child).finish()
        cgroups.evacuate_cgroup(path)
        missing = set(controllers) - set(cgroups.open_to_children(path))
        if missing:
            raise HostLimit(f"a scope has no controllers {', '.join(sorted(missing))}")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _try_directory(path: str) -> None:
    trial = f"{path}/rootless-probe-{os.getpid()}"
    os.mkdir(trial)
    os.rmdir(trial)


def seccomp_listener(directory: str) -> Probe:
    """Load a filter whose calls another process answers, as the emulation of root and agents of profiles need it."""
    import errno
    import struct

    from rootless.kernel.process import FILTER_FLAG_NEW_LISTENER, load_filter, set_no_new_privs

    def inside() -> bytes:
        set_no_new_privs()
        load_filter(struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000), FILTER_FLAG_NEW_LISTENER)  # "allow everything"
        return b""

    try:
        fork_and_read(inside)
    except OSError as e:
        if e.errno == errno.EBUSY:
            reason = "another listener is around this process already, and the kernel allows one"
            return Probe("seccomp_listener", False, reason, "start outside of the container or sandbox")
        remedy = "Linux 5.0 is needed; without it root is emulated and the owners asked for are not recorded"
        return Probe("seccomp_listener", False, f"seccomp with a listener: {os.strerror(e.errno or 0)}", remedy)
    return Probe("seccomp_listener", True, "system calls can wait for an answer")


def seccomp(directory: str) -> Probe:
    """Load a filter made by libseccomp in a child, and see that it works."""
    from rootless.kernel import libseccomp
    from rootless.kernel.process import load_filter, set_no_new_privs

    try:
        version = ".".join(map(str, libseccomp.library_version()))
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
        fork_and_read(inside)
    except OSError as e:
        return Probe(
            "seccomp", False, f"the kernel takes no filter: {e.strerror}", "a kernel with CONFIG_SECCOMP_FILTER=y"
        )
    return Probe("seccomp", True, f"libseccomp {version}; a filter loaded and worked")


def keyring(directory: str) -> Probe:
    """Give a child a session keyring of its own."""
    import errno

    from rootless.kernel.process import join_session_keyring

    def inside() -> bytes:
        join_session_keyring("rootless-probe")
        return b""

    try:
        fork_and_read(inside)
    except OSError as e:
        if e.errno == errno.EDQUOT:
            remedy = "end other sessions, or ask the administrator for: sysctl -w kernel.keys.maxkeys=2000"
            return Probe("keyring", False, "your quota of keys is used up; keyctl is denied in containers", remedy)
        return Probe("keyring", False, f"no session keyring: {e.strerror}; keyctl is denied in containers", None)
    return Probe("keyring", True, "containers get a session keyring of their own")
