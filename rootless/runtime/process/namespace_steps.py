"""Which namespaces a configuration wants, and the steps into them. The maps are written by somebody outside."""

from __future__ import annotations

import errno
import os

from rootless.errors import InvalidInput, RootlessError, RuntimeFailure
from rootless.kernel.namespaces import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    setns,
    unshare,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.runtime.spec.oci_config import LinuxConfig

FLAGS = {
    "user": CLONE_NEWUSER,
    "mount": CLONE_NEWNS,
    "network": CLONE_NEWNET,
    "ipc": CLONE_NEWIPC,
    "uts": CLONE_NEWUTS,
    "pid": CLONE_NEWPID,
    "cgroup": CLONE_NEWCGROUP,
    "time": CLONE_NEWTIME,
}
FILES = {
    "user": "user",
    "mount": "mnt",
    "network": "net",
    "ipc": "ipc",
    "uts": "uts",
    "pid": "pid",
    "cgroup": "cgroup",
    "time": "time",
}
"""Names below /proc/PID/ns."""

LATE = CLONE_NEWPID | CLONE_NEWCGROUP | CLONE_NEWTIME
"""Made just before the fork of the container's first process: these take effect for children, or (cgroup) want the
process to be in its cgroup already. What is started before, such as a fuse daemon, stays outside the pid namespace."""


class NamespaceSet:
    """The namespaces that a container does not share with its caller. new: CLONE_NEW* of those to make.

    joined: (type, path) of those to enter, that of users first: its rights are needed to enter the others.
    """

    __slots__ = ("joined", "new")

    def __init__(self, new: int, joined: list[tuple[str, str]]) -> None:
        self.new = new
        self.joined = joined

    def has(self, name: str) -> bool:
        """Whether the container has a namespace of this type that is not the caller's."""
        return bool(self.new & FLAGS[name]) or any(kind == name for kind, _ in self.joined)

    def enter_open(self, fds: dict[str, int]) -> None:
        """Enter namespaces that the caller has just made (fds by type) instead of making these."""
        for kind, fd in fds.items():
            self.new &= ~FLAGS[kind]
            self.joined.append((kind, f"/proc/self/fd/{fd}"))
        self.joined.sort(key=lambda pair: pair[0] != "user")

    @property
    def own_pid_namespace(self) -> bool:
        """Whether nobody else is in the pid namespace at the start."""
        return bool(self.new & CLONE_NEWPID)


def wanted_namespaces(linux: LinuxConfig) -> NamespaceSet:
    """The namespaces of a configuration. A type that is not listed is inherited.

    Raises InvalidInput without a mount namespace: our mounts would be the host's.
    """
    new = 0
    joined = []
    for namespace in linux.namespaces:
        if namespace.path:
            joined.append((namespace.kind, namespace.path))
        else:
            new |= FLAGS[namespace.kind]
    joined.sort(key=lambda pair: pair[0] != "user")
    result = NamespaceSet(new, joined)
    if not result.has("mount"):
        raise InvalidInput("config property 'linux.namespaces': a mount namespace is needed")
    return result


class NamespaceEntry:
    """The way of one process into its namespaces: `open`, `before_maps`, (maps are written), `after_maps`, `last`."""

    __slots__ = ("_files", "_namespaces", "_pending")

    def __init__(self, namespaces: NamespaceSet) -> None:
        self._namespaces = namespaces
        self._files: list[tuple[str, str, int]] = []
        self._pending: list[tuple[str, str, int]] = []

    def open(self) -> None:
        """Open the namespaces to join, by the caller's rights and in his mount namespace."""
        for kind, path in self._namespaces.joined:
            try:
                self._files.append((kind, path, os.open(path, os.O_RDONLY | os.O_CLOEXEC)))
            except OSError as e:
                raise RuntimeFailure(f"cannot open {kind} namespace '{path}': {e.strerror}") from e

    def before_maps(self) -> None:
        """Join what the caller may join, then make the user namespace, and with it all others but the late ones."""
        new = self._namespaces.new
        for kind, path, fd in self._files:
            if FLAGS[kind] & LATE:
                self._pending.append((kind, path, fd))
                continue
            try:
                setns(fd, FLAGS[kind])
            except PermissionError as e:
                # a namespace that belongs to the user namespace to come: after the maps
                if not new & CLONE_NEWUSER:
                    raise _refused(kind, path, e) from e
                self._pending.append((kind, path, fd))
            except OSError as e:
                raise _refused(kind, path, e) from e
        try:
            unshare(new & ~LATE)
        except OSError as e:
            raise _no_namespaces(new & ~LATE, e) from e

    def last(self) -> None:
        """Join what is left, and make the namespaces that count for the child to come."""
        for kind, path, fd in self._pending:
            try:
                setns(fd, FLAGS[kind])
            except OSError as e:
                raise _refused(kind, path, e) from e
        for _, _, fd in self._files:
            os.close(fd)
        late = self._namespaces.new & LATE
        try:
            unshare(late)
        except OSError as e:
            raise _no_namespaces(late, e) from e


def _refused(kind: str, path: str, error: OSError) -> RuntimeFailure:
    if error.errno == errno.EINVAL:
        return RuntimeFailure(f"cannot join {kind} namespace '{path}': it is no {kind} namespace, or already ours")
    hint = None
    if error.errno == errno.EPERM and kind != "user":
        hint = "the namespace belongs to another user namespace: join that one too"
    return RuntimeFailure(f"cannot join {kind} namespace '{path}': {error.strerror}", hint=hint)


def _no_namespaces(flags: int, error: OSError) -> RootlessError:
    if flags & CLONE_NEWUSER:
        from rootless.host.remedies import namespace_error

        return namespace_error(error)
    names = ", ".join(name for name, flag in FLAGS.items() if flags & flag)
    hint = None
    if error.errno == errno.EPERM and os.geteuid() != 0:
        hint = "an ordinary user needs a user namespace: list one in 'linux.namespaces'"
    return RuntimeFailure(f"cannot make new namespaces ({names}): {error.strerror}", hint=hint)
