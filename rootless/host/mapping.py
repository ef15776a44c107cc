"""Writes the id maps of another process's user namespace, by newuidmap/newgidmap or directly. It makes no namespace."""

from __future__ import annotations

import errno
import os
import stat

from rootless.errors import HostLimit
from rootless.host.facts import find_helper, has_no_new_privs, is_privileged, user_name
from rootless.host.subid import MAP_PROGRAMS, first_free

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.records.id_map import Extent, IdMap

PACKAGE_HINT = "ask the administrator for: apt install uidmap   (dnf install shadow-utils)"
_OUTPUT_LIMIT = 4096  # bytes of a helper's words that are read


def range_hint(etc: str = "/etc") -> str:
    """The line by which the administrator gives the caller a range of ids that nobody has yet."""
    start = first_free(etc)
    span = f"{start}-{start + 65535}"
    return f"ask the administrator for: usermod --add-subuids {span} --add-subgids {span} {user_name()}"


def write_maps(pid: int, id_map: IdMap) -> None:
    """Write the uid map and the gid map of `pid`, which has just made its user namespace and waits.

    To be called from the parent namespace, with the ids that `id_map` names as host ids there. The process must be
    dumpable. Raises HostLimit with the remedy.
    """
    if id_map.kind == "single" or is_privileged():
        _write_directly(pid, id_map)
    else:
        _write_by_helpers(pid, id_map)


def _write_directly(pid: int, id_map: IdMap) -> None:
    try:
        if id_map.kind == "single":
            # user_namespaces(7): without CAP_SETGID outside, a gid map may be written only after setgroups(2) was
            # denied for the namespace, since dropping a group could lift a restriction that its members are under
            # (CVE-2014-8989). With a range of ids it must stay allowed, or apt and su fail in the container.
            try:
                _write(f"/proc/{pid}/setgroups", "deny")
            except FileNotFoundError:
                pass  # Linux before 3.19 has no such file and no such rule
        _write(f"/proc/{pid}/uid_map", map_text(id_map.uids))
        _write(f"/proc/{pid}/gid_map", map_text(id_map.gids))
    except OSError as e:
        hint = None
        if e.errno in (errno.EPERM, errno.EACCES):
            from rootless.host.remedies import restriction_hint

            hint = restriction_hint()
        raise HostLimit(f"cannot write the id map '{e.filename}': {e.strerror}", hint=hint) from e


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())  # one write(2): a map can be written once, and a second call gets EPERM
    except OSError as e:
        e.filename = path
        raise
    finally:
        os.close(fd)


def map_text(extents: Sequence[Extent]) -> str:
    """The extents as lines of /proc/PID/uid_map (user_namespaces(7))."""
    return "".join(f"{e.container} {e.host} {e.size}\n" for e in extents)


def _write_by_helpers(pid: int, id_map: IdMap) -> None:
    """Run newuidmap and newgidmap beside each other; both are waited for whatever happens."""
    started: list[tuple[str, int, int]] = []
    problem: HostLimit | None = None
    try:
        for name, extents in zip(MAP_PROGRAMS, (id_map.uids, id_map.gids), strict=True):
            started.append(_spawn(name, pid, extents))
    except HostLimit as e:
        problem = e
    for program, child, output in started:
        words = os.read(output, _OUTPUT_LIMIT).decode(errors="replace").strip()
        os.close(output)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status != 0 and problem is None:
            problem = explain_failure(program, status, words)
    if problem is not None:
        raise problem


def _spawn(name: str, pid: int, extents: Sequence[Extent]) -> tuple[str, int, int]:
    """Start newuidmap or newgidmap on `pid`; return its path, its process id, and the fd of all that it prints."""
    program = find_helper(name)
    if program is None:
        raise HostLimit(f"cannot use the range of subordinate ids: program '{name}' is missing", hint=PACKAGE_HINT)
    argv = [program, str(pid)]
    for e in extents:
        argv += (str(e.container), str(e.host), str(e.size))
    read_end, write_end = os.pipe()
    try:
        child = os.posix_spawn(
            program,
            argv,
            {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            file_actions=[(os.POSIX_SPAWN_DUP2, write_end, 1), (os.POSIX_SPAWN_DUP2, write_end, 2)],
        )
    except OSError as e:
        os.close(read_end)
        raise HostLimit(f"cannot start '{program}': {e.strerror}", hint=PACKAGE_HINT) from e
    finally:
        os.close(write_end)
    return program, child, read_end


def explain_failure(program: str, status: int, words: str) -> HostLimit:
    """The error for a newuidmap or newgidmap that failed with exit `status`, saying `words`."""
    name = os.path.basename(program)
    message = f"cannot map subordinate ids: {words or f'{name} ended with status {status}'}"
    if "not allowed" in words:
        return HostLimit(message, hint=range_hint())
    if "ermission denied" in words or "not permitted" in words:
        reason = privilege_problem(program)
        if reason is not None:
            return HostLimit(f"cannot map subordinate ids: {reason[0]}", hint=reason[1])
    return HostLimit(message, hint="`rootless doctor` tells more")


def privilege_problem(program: str) -> tuple[str, str] | None:
    """Why `program` cannot have the privilege it needs, and the remedy; None when nothing is wrong with its file."""
    status = os.stat(program)
    if not status.st_mode & stat.S_ISUID or status.st_uid != 0:
        try:
            os.getxattr(program, "security.capability")
        except OSError:
            return f"'{program}' has neither the setuid bit nor file capabilities", (
                f"ask the administrator for: chown root:root {program} && chmod u+s {program}"
            )
    if os.statvfs(program).f_flag & os.ST_NOSUID:
        return (
            f"'{program}' is on a filesystem mounted nosuid",
            "ask the administrator to install it on one that is not",
        )
    if has_no_new_privs():
        return f"'{program}' gains no privilege because this session runs with no_new_privs", (
            "start from a session without it (not from a sandbox, a container or a unit with NoNewPrivileges=yes)"
        )
    return None
