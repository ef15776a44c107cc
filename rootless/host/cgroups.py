"""Which cgroups this process may use: found by looking and, where nothing else can tell, by trying. It sets no limit.

The ladder: the current cgroup or a configured one where it is the user's (sub-cgroups directly), else a scope that the
user's systemd makes, else what is writable of version 1, else none. Inside a batch job's step nothing outside of the
step's own cgroup is ever used.
"""

from __future__ import annotations

import errno
import fcntl
import os

from rootless.errors import HostLimit, UsageError
from rootless.paths import runtime_base

ROOT = "/sys/fs/cgroup"
LEAF = "rootless-inner"
"""The child into which the processes of a delegated cgroup move. cgroups(7), "no internal processes": a cgroup of
version 2 that gives controllers to its children may hold no process itself."""
PREFIX = "rootless-"
CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")
DELEGATION = (
    "ask the administrator for a drop-in /etc/systemd/system/user@.service.d/delegate.conf with"
    " `[Service]` and `Delegate=cpu cpuset io memory pids` (scripts/host-setup --delegate writes it)"
)
_INSIDE = "name a cgroup of the job's, or none"
UNIFIED = "ask the administrator to boot with systemd.unified_cgroup_hierarchy=1"
_BATCH = ("slurm", "htcondor", "pbs", "lsf", "oar_", "sge")  # how batch systems name their part of the tree
_V1 = ("memory", "cpu", "cpuacct", "cpuset", "pids", "blkio", "freezer", "hugetlb")
_TRIES = 20  # rounds in which a cgroup is emptied while processes are forked in it


class Delegation:
    """What containers may use.

    kind: "directory" (sub-cgroups of `path`), "scope" (systemd makes one below `path`), "v1" (`directories`: by
    controller), "none". controllers: those a container's limits can use, by their names in version 2; reason: why
    these and no more, one phrase; remedy: what changes that, None where nothing is missing.
    """

    __slots__ = ("controllers", "directories", "kind", "path", "reason", "remedy")

    def __init__(
        self,
        kind: str,
        *,
        path: str = "",
        controllers: tuple[str, ...] = (),
        reason: str = "",
        remedy: str | None = None,
    ) -> None:
        self.kind = kind
        self.path = path
        self.controllers = controllers
        self.directories: dict[str, str] = {}
        self.reason = reason
        self.remedy = remedy

    def missing(self, wanted: set[str]) -> list[str]:
        """The controllers of `wanted` that containers cannot have, in alphabetical order."""
        return sorted(wanted - set(self.controllers))


class Host:
    """The places where a delegation is looked for. The defaults are this process's own; tests give others."""

    __slots__ = ("cgroup_file", "is_unified", "root", "runtime", "uid")

    def __init__(
        self,
        *,
        root: str = ROOT,
        cgroup_file: str = "/proc/self/cgroup",
        runtime: str | None = None,
        is_unified: bool | None = None,
    ) -> None:
        self.root = root
        self.cgroup_file = cgroup_file
        self.uid = os.geteuid()
        self.runtime = runtime or runtime_base() or f"/run/user/{self.uid}"
        self.is_unified = _is_unified(root) if is_unified is None else is_unified

    @property
    def manager(self) -> str:
        """The directory of the user's systemd."""
        return f"{self.root}/user.slice/user-{self.uid}.slice/user@{self.uid}.service"


def unified_path(pid: int | str = "self") -> str:
    """The cgroup of a process in the unified hierarchy, "/" first. Raises OSError."""
    return _own(f"/proc/{pid}/cgroup")


def _own(cgroup_file: str) -> str:
    with open(cgroup_file, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            if line.startswith("0::"):
                return line[3:].rstrip("\n")
    raise OSError(errno.ENOENT, "the process is in no cgroup of version 2")


def _is_unified(root: str) -> bool:
    from rootless.kernel.mounts import CGROUP2_SUPER_MAGIC, fs_magic

    try:
        fd = os.open(root, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return fs_magic(fd) == CGROUP2_SUPER_MAGIC
    finally:
        os.close(fd)


def find_delegation(*, parent: str = "", current: bool = False, host: Host | None = None) -> Delegation:
    """The best delegation that this process can have.

    parent: a directory of the cgroup tree that was named (--cgroup-parent, configuration). current: nothing but the
    current cgroup will do (--cgroups=split). Raises UsageError for a parent that is no place in the tree.
    """
    host = host or Host()
    if not host.is_unified:
        return _version_1(host, parent)
    if parent and not is_slice(parent):
        named = _below_root(host, parent)
        job = left_job(host, named)
        if job:
            return Delegation("none", reason=_outside(parent, job), remedy=_INSIDE)
        return _directory(named, f"'{parent}' is not yours to write")
    try:
        own = _own(host.cgroup_file)
    except OSError as e:
        return Delegation("none", reason=f"cannot read '{host.cgroup_file}': {e.strerror}")
    path = f"{host.root}{own}".rstrip("/")
    is_leaf = os.path.basename(path) == LEAF
    if is_leaf:
        path = os.path.dirname(path)  # an earlier command has moved this process into the leaf of our cgroup
    # cgroup_namespaces(7): a cgroup outside of the namespace's root is shown as a path that leads upward, which would
    # mean another directory in the file system
    if own == "/.." or own.startswith("/../"):
        return Delegation("none", reason="this cgroup is outside of the cgroup namespace", remedy=None)
    if current:
        return _directory(path, f"the current cgroup '{path}' is not yours to write (--cgroups=split)")
    if not parent and is_ours(path) and (is_leaf or _is_marked(path) or not _is_managed(host, own)):
        return _directory(path, "")
    if is_of_job(own):
        return Delegation(
            "none",
            reason=f"the batch job's cgroup '{own}' is not yours to write, and a container never leaves it: "
            "the job's own limits hold for it",
            remedy="ask the administrator to delegate the step's cgroup, or give the job the limits you need",
        )
    return _scope(host) or _why_none(path)


def is_of_job(own: str) -> bool:
    """Is the cgroup `own`, as /proc/PID/cgroup says it, a batch job's, by the names that batch systems use?"""
    return any(part.startswith(_BATCH) for part in own.split("/"))


def left_job(host: Host, directory: str) -> str:
    """The cgroup of the batch job's step that this process is in, where `directory` is outside of it; else ""."""
    try:
        own = _own(host.cgroup_file)
    except OSError:
        return ""
    step = own.removesuffix(f"/{LEAF}")
    inside = f"{directory}/".startswith(f"{host.root}{step}/")
    return step if is_of_job(own) and not inside else ""


def _outside(parent: str, job: str) -> str:
    return f"'{parent}' is outside of the batch job's cgroup '{job}', which a container never leaves"


def _scope(host: Host) -> Delegation | None:
    if not manager_sockets(host) or not os.access(host.manager, os.W_OK):
        return None
    controllers = read_controllers(host.manager)
    missing = [name for name in CONTROLLERS if name not in controllers]
    return Delegation(
        "scope",
        path=host.manager,
        controllers=controllers,
        reason=f"your systemd was not given {', '.join(missing)}" if missing else "",
        remedy=DELEGATION if missing else None,
    )


def _directory(path: str, otherwise: str) -> Delegation:
    if not is_ours(path):
        return Delegation("none", reason=otherwise, remedy=DELEGATION)
    controllers = read_controllers(path)
    missing = [name for name in CONTROLLERS if name not in controllers]
    reason = f"'{path}' has no controllers {', '.join(missing)}" if missing else ""
    return Delegation(
        "directory", path=path, controllers=controllers, reason=reason, remedy=DELEGATION if missing else None
    )


def _why_none(path: str) -> Delegation:
    if os.path.isdir("/run/systemd/system"):
        return Delegation(
            "none",
            reason=f"'{path}' is not yours to write, and no user manager of systemd answers",
            remedy="log in through PAM, not by su, or ask the administrator for: loginctl enable-linger",
        )
    return Delegation(
        "none",
        reason=f"'{path}' is not yours to write",
        remedy=f"ask the administrator for a cgroup of yours: chown -R {os.geteuid()} below '{path}'",
    )


def _version_1(host: Host, parent: str) -> Delegation:
    """The directories of version 1 that are the user's: rare, but batch systems and containers have them."""
    directories = {}
    try:
        with open(host.cgroup_file, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        lines = []
    left = ""
    for line in lines:
        _, names, own = line.split(":", 2)
        for name in names.split(","):
            if name not in _V1:
                continue
            current = f"{host.root}/{name}{own}".rstrip("/")
            path = _below(f"{host.root}/{name}", parent) if parent else current
            if is_of_job(own) and not f"{path}/".startswith(f"{current}/"):
                left = own
                continue
            if os.access(path, os.W_OK) and os.access(f"{path}/cgroup.procs", os.W_OK):
                directories[name] = path
    kinds = {"blkio": "io"}
    controllers = tuple(sorted(kinds.get(n, n) for n in directories if kinds.get(n, n) in CONTROLLERS))
    reason = "this host has cgroup version 1 (or hybrid), which cannot be delegated to users"
    if left:
        return Delegation("none", reason=_outside(parent, left), remedy=_INSIDE)
    if not directories:
        return Delegation("none", reason=reason, remedy=UNIFIED)
    found = Delegation(
        "v1",
        controllers=controllers,
        reason=f"{reason}; of it {', '.join(directories)} are yours to write",
        remedy=UNIFIED if len(controllers) < len(CONTROLLERS) else None,
    )
    found.directories = directories
    return found


def _below_root(host: Host, named: str) -> str:
    """`named` as a directory: absolute in the tree or in the file system, else below the current cgroup."""
    if named == host.root or named.startswith(f"{host.root}/"):
        named = named[len(host.root) :] or "/"
    elif not named.startswith("/"):
        try:
            own = _own(host.cgroup_file)
        except OSError:
            own = "/"
        if os.path.basename(own) == LEAF:
            own = os.path.dirname(own)
        return _below(f"{host.root}{own}".rstrip("/"), named)
    return _below(host.root, named)


def _below(root: str, named: str) -> str:
    """`named` below `root`. Raises UsageError for a name with a part that leads upward, out of what is ours."""
    check_relative(named)
    return "/".join((root, *(part for part in named.split("/") if part)))


def check_relative(named: str) -> None:
    """Raise UsageError unless `named` is a path of cgroups that leads nowhere upward."""
    if any(part in (".", "..") or "\0" in part or "\n" in part for part in named.split("/")):
        raise UsageError(f"invalid cgroup path '{named}'", hint="give a path below the cgroup tree, without '..'")


def is_slice(parent: str) -> bool:
    """Does a parent name a slice of systemd, and no directory?"""
    return parent.endswith(".slice") and "/" not in parent


def is_ours(path: str) -> bool:
    """May this process make sub-cgroups of directory `path`, and give them controllers and processes?"""
    return all(os.access(f"{path}{name}", os.W_OK) for name in ("", "/cgroup.procs", "/cgroup.subtree_control"))


def _is_managed(host: Host, own: str) -> bool:
    """Is it one of the user manager's units, which only systemd may change unless it was delegated?"""
    return f"/user@{host.uid}.service" in own


def _is_marked(path: str) -> bool:
    """Whether systemd has marked cgroup `path` as delegated (`user.delegate`), so that we may change it.

    systemd 252 and older mark nothing. A unit that is not known to be delegated is left alone: systemd would undo what
    we change in it, and a scope of our own is asked for instead.
    """
    try:
        return os.getxattr(path, "user.delegate") == b"1"
    except OSError:
        return False


def read_controllers(path: str) -> tuple[str, ...]:
    """The controllers that are there for directory `path`."""
    try:
        with open(f"{path}/cgroup.controllers", encoding="ascii", errors="replace") as file:
            return tuple(sorted(file.read(4096).split()))
    except OSError:
        return ()


def manager_sockets(host: Host | None = None) -> list[tuple[str, bool]]:
    """The sockets on which the user's systemd may answer, the best first: path, and whether a bus listens there."""
    runtime = (host or Host(is_unified=True)).runtime
    try:
        if os.stat(runtime).st_uid != os.geteuid():
            return []  # after `su` the environment is the former user's, and so is that systemd
    except OSError:
        return []
    found = ((f"{runtime}/systemd/private", False), (f"{runtime}/bus", True))
    return [(path, is_bus) for path, is_bus in found if os.path.exists(path)]


def open_to_children(path: str, leaf: str = LEAF) -> tuple[str, ...]:
    """Give the children of `path` every controller it has; its own processes move into child `leaf` where they must.

    Returns the controllers that children have then. Raises HostLimit when the directory cannot be written.
    """
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as e:
        raise HostLimit(f"cannot open cgroup '{path}': {e.strerror}", hint=DELEGATION) from e
    try:
        # Of two commands that begin at once, the first empties the cgroup, and the second finds that done
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = [name for name in read_controllers(path) if name not in _enabled(path)]
        if wanted:
            _make_room(path, leaf)
        for name in wanted:
            _enable(path, name, leaf)
        return _enabled(path)
    finally:
        os.close(lock)


def _enabled(path: str) -> tuple[str, ...]:
    try:
        with open(f"{path}/cgroup.subtree_control", encoding="ascii", errors="replace") as file:
            return tuple(file.read(4096).split())
    except OSError as e:
        raise HostLimit(f"cannot read '{path}/cgroup.subtree_control': {e.strerror}") from e


def _make_room(path: str, leaf: str) -> None:
    """Move the processes of cgroup `path` out before any controller is given to its children. Raises HostLimit.

    cgroups(7), "threaded mode": a cgroup that holds processes may give its children cpu and pids, but becomes the root
    of threaded ones by that, and its children take no process then (EOPNOTSUPP). The root of the tree has no
    `cgroup.type`, and is free of the rule. New processes may be forked there meanwhile, hence the rounds.
    """
    if not os.path.exists(f"{path}/cgroup.type"):
        return
    for _ in range(_TRIES):
        try:
            with open(f"{path}/cgroup.procs", encoding="ascii") as file:
                if not file.read(1):
                    return
        except OSError as e:
            raise HostLimit(f"cannot read '{path}/cgroup.procs': {e.strerror}") from e
        evacuate_cgroup(path, leaf)


def _enable(path: str, name: str, leaf: str) -> None:
    for _ in range(_TRIES):
        try:
            write_value(f"{path}/cgroup.subtree_control", f"+{name}")
        except OSError as e:
            if e.errno != errno.EBUSY:
                return  # the controller cannot be had: who asks for a limit that needs it gets the error
            evacuate_cgroup(path, leaf)
        else:
            return


def evacuate_cgroup(path: str, leaf: str = LEAF) -> None:
    """Move every process of cgroup `path` into its child `leaf`. Raises HostLimit."""
    target = f"{path}/{leaf}"
    try:
        os.makedirs(target, exist_ok=True)
        with open(f"{path}/cgroup.procs", encoding="ascii") as file:
            pids = file.read().split()
        for pid in pids:
            try:
                write_value(f"{target}/cgroup.procs", pid)
            except ProcessLookupError:
                pass
    except OSError as e:
        raise HostLimit(f"cannot move the processes of cgroup '{path}' into '{target}': {e.strerror}") from e


def write_value(path: str, value: str) -> None:
    """Write `value` in one write(2), as the kernel takes a value of a cgroup; the file is there. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)
