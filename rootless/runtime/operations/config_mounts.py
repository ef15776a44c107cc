"""The mounts of a configuration: binds and new filesystems, each placed on a checked fd. Read-only comes later."""

from __future__ import annotations

import errno
import os
import stat

from rootless.errors import RuntimeFailure
from rootless.kernel import mounts
from rootless.kernel.files import mkdirs_in_root
from rootless.kernel.procfs import is_procfs
from rootless.runtime.mount_options import MountOptions
from rootless.runtime.operations import attach
from rootless.runtime.operations.base import Operation, RootContext, existing, in_proc_error, mountpoint, reopened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.runtime.operations.idmapped import IdMapped

# Below a fresh /proc only these may be mounted on (the list is runc's). A mount on anything else there would answer in
# the kernel's place whoever reads or writes it: the container's later processes, and ours that join it
# (CVE-2019-16884, CVE-2025-52881).
_PROC_EXCEPTIONS = frozenset(
    "/proc/" + name
    for name in (
        "cpuinfo",
        "diskstats",
        "meminfo",
        "stat",
        "swaps",
        "uptime",
        "loadavg",
        "slabinfo",
        "net/dev",
        "sys/kernel/ns_last_pid",
        "sys/crypto/fips_enabled",
    )
)

_PROC_ROOT_INODE = 1  # PROC_ROOT_INO of the kernel, the same in each procfs


class MountOperation(Operation):
    """One mount on `destination` (absolute, in the container); idmap: the ids that its files show, if not their own."""

    __slots__ = ("destination", "idmap", "options")

    def __init__(self, destination: str, options: MountOptions) -> None:
        self.destination = destination
        self.options = options
        self.idmap: IdMapped | None = None

    @property
    def path(self) -> str:
        return self.destination

    def _suffix(self) -> str:
        names = attribute_names(self.options.set) + [f"r{n}" for n in attribute_names(self.options.recursive_set)]
        names += self.options.filesystem
        return f" ({','.join(names)})" if names else ""

    def _reopen(self, context: RootContext) -> Callable[[], int]:
        return lambda: reopened(context, self.destination)

    def _finish(self, context: RootContext, fd: int) -> None:
        """Set propagation and recursive attributes of the mount `fd`, and note it if it is to become read-only.

        It becomes so at the end only (SealReadOnly): later mounts may need a directory made below it.
        """
        options = self.options
        late = options.recursive_set & mounts.MOUNT_ATTR_RDONLY
        early = options.recursive_set & ~mounts.MOUNT_ATTR_RDONLY
        if early or options.recursive_clear:
            change_attributes(context, fd, (early, options.recursive_clear), self.destination, recursive=True)
        for propagation in options.propagation:
            mounts.mount(None, f"/proc/self/fd/{fd}", None, propagation)
        if late or options.set & mounts.MOUNT_ATTR_RDONLY:
            context.sealed.append((fd, bool(late), self.destination))
        else:
            os.close(fd)


class Bind(MountOperation):
    """A file or directory of the host at `destination`; the host's links in `source` are followed."""

    __slots__ = ("optional", "source")

    def __init__(self, source: str, destination: str, options: MountOptions, *, optional: bool = False) -> None:
        super().__init__(destination, options)
        self.source = source
        self.optional = optional

    def describe(self) -> str:
        verb = "rbind" if self.options.recursive else "bind"
        return f"{verb} '{self.source}' on '{self.destination}'{self._suffix()}"

    def _copy_link(self, context: RootContext) -> bool:
        """Where the source is a symbolic link, make it again at the destination; whether it is one."""
        try:
            target = os.readlink(self.source)
        except OSError:
            return False  # no link, or none that can be read: that is told by the bind
        parent, _, name = self.destination.rpartition("/")
        above = mkdirs_in_root(context.root_fd, parent or "/", 0o755)
        try:
            os.symlink(target, name, dir_fd=above)
        except FileExistsError:
            if not _is_link_to(target, name, above):
                raise RuntimeFailure(
                    f"cannot copy link '{self.source}' to '{self.destination}': something else is there"
                ) from None
        finally:
            os.close(above)
        return True

    def apply(self, context: RootContext) -> None:
        if self.options.copy_link and self._copy_link(context):
            return
        if self.options.filesystem:
            # as runc and crun do: mount(2) ignores for a bind what belongs to a file system
            names = ",".join(self.options.filesystem)
            context.warn(f"mount '{self.destination}': {names} has no effect on a bind")
        try:
            # Once: who can write above the source (a container that has that directory, perhaps) may put another file,
            # or a link to one, in its place between a look at it and the mount
            source = attach.open_source(self.source)
        except FileNotFoundError:
            if self.optional:
                return
            raise RuntimeFailure(
                f"cannot mount '{self.source}' on '{self.destination}': the source does not exist",
                hint="create it, or correct the path",
            ) from None
        in_proc = self.destination == "/proc" or self.destination in _PROC_EXCEPTIONS
        try:
            is_directory = stat.S_ISDIR(os.fstat(source).st_mode)
            target = mountpoint(context, self.destination, directory=is_directory, in_proc=in_proc)
            try:
                fd = attach.bind(
                    source, target, self._reopen(context), recursive=self.options.recursive, idmap=self.idmap
                )
            finally:
                os.close(target)
        finally:
            os.close(source)
        # Only the root of a procfs may be bound on /proc: a directory of the image or of the host would let files of
        # somebody's making answer for the kernel, and a part of a procfs would show another process's files
        if self.destination == "/proc" and not (is_procfs(fd) and os.fstat(fd).st_ino == _PROC_ROOT_INODE):
            raise in_proc_error(self.destination)
        self._attributes(context, fd)
        if self.options.recursive and self.options.set & mounts.MOUNT_ATTR_RDONLY:
            self._insist(fd)
        self._finish(context, fd)

    def _insist(self, fd: int) -> None:
        """Make a read-only bind of the host's sysfs read-only with all that is mounted below it.

        The option `ro` is about one mount alone, and would leave the host's cgroup tree, which is mounted in its sysfs,
        writable for the container.
        """
        if mounts.fs_magic(fd) == mounts.SYSFS_MAGIC:
            self.options.recursive_set |= mounts.MOUNT_ATTR_RDONLY

    def _attributes(self, context: RootContext, fd: int) -> None:
        gained = self.options.set & ~mounts.MOUNT_ATTR_RDONLY
        if gained:
            lost = mounts.MOUNT_ATTR__ATIME if self.options.clear & mounts.MOUNT_ATTR__ATIME else 0
            change_attributes(context, fd, (gained, lost), self.destination)
        lost = self.options.clear & ~mounts.MOUNT_ATTR__ATIME
        if not lost or not _present(fd) & lost:
            return
        try:
            attach.set_attributes(fd, 0, lost)
        except PermissionError:
            # The flag came with the host's mount and is locked (mount_namespaces(7)): no user namespace can take it off
            names = ",".join(attribute_names(_present(fd) & lost))
            context.warn(f"mount '{self.destination}' stays {names}, as '{self.source}' is on the host")


def _is_link_to(target: str, name: str, directory: int) -> bool:
    try:
        return os.readlink(name, dir_fd=directory) == target
    except OSError:
        return False


def change_attributes(
    context: RootContext, fd: int, change: tuple[int, int], destination: str, *, recursive: bool = False
) -> None:
    """Set and clear MOUNT_ATTR_* bits, `change`, of the mount `fd`. OSError.

    How access times are kept is locked for a mount that came from a more privileged mount namespace
    (mount_namespaces(7)), so that no user namespace can change it: then one line says that it stays.
    """
    gained, lost = change
    try:
        attach.set_attributes(fd, gained, lost, recursive=recursive)
    except PermissionError:
        if not (gained | lost) & mounts.MOUNT_ATTR__ATIME:
            raise
        gained, lost = gained & ~mounts.MOUNT_ATTR__ATIME, lost & ~mounts.MOUNT_ATTR__ATIME
        if gained or lost:
            attach.set_attributes(fd, gained, lost, recursive=recursive)
        context.warn(f"mount '{destination}' keeps access times as it does on the host")


def _present(fd: int) -> int:
    flags = os.fstatvfs(fd).f_flag
    # statvfs's ST_ flags of these four are the MOUNT_ATTR_ bits
    return flags & 0xF


class Filesystem(MountOperation):
    """A new filesystem of type `fstype`."""

    __slots__ = ("fstype", "source")

    def __init__(self, fstype: str, source: str | None, destination: str, options: MountOptions) -> None:
        super().__init__(destination, options)
        self.fstype = fstype
        self.source = source

    def describe(self) -> str:
        return f"mount {self.fstype} on '{self.destination}'{self._suffix()}"

    def apply(self, context: RootContext) -> None:
        target = mountpoint(context, self.destination, directory=True, in_proc=self.fstype == "proc")
        try:
            fd = self._mount(context, target)
        finally:
            os.close(target)
        self._finish(context, fd)

    def _mount(self, context: RootContext, target: int) -> int:
        new = attach.NewFilesystem(self.fstype, self.source, self.options)
        return attach.filesystem(new, target, self._reopen(context), self.idmap)

    def _bind_instead(self, context: RootContext, source: str) -> None:
        options = MountOptions()
        options.bind = options.recursive = True
        options.recursive_set = self.options.recursive_set
        if self.options.set & mounts.MOUNT_ATTR_RDONLY:
            options.recursive_set |= mounts.MOUNT_ATTR_RDONLY
        options.recursive_set |= self.options.set & ~mounts.MOUNT_ATTR_RDONLY & ~mounts.MOUNT_ATTR__ATIME
        Bind(source, self.destination, options).apply(context)


class Tmpfs(Filesystem):
    """A tmpfs, filled with what the image has there when the option `tmpcopyup` is given.

    source: what /proc/mounts shows in its place. Without the option `mode` it has the mode of the directory that it
    covers, as with runc, and 1777 (the kernel's choice) where the image has none.
    """

    __slots__ = ()

    def __init__(self, source: str, destination: str, options: MountOptions) -> None:
        super().__init__("tmpfs", source, destination, options)
        if options.copy_up:
            # Imported now: by the time of the copy this process has other ids and another root, and cannot read the
            # module any more
            import rootless.host.seeding  # noqa: F401

    def apply(self, context: RootContext) -> None:
        if not any(word.startswith("mode=") for word in self.options.filesystem):
            covered = existing(context, self.destination)
            if covered is not None:
                mode = stat.S_IMODE(os.fstat(covered).st_mode)
                os.close(covered)
                self.options.filesystem = [*self.options.filesystem, f"mode={mode:o}"]
        super().apply(context)

    def _mount(self, context: RootContext, target: int) -> int:
        new = attach.NewFilesystem(self.fstype, self.source, self.options)
        if not self.options.copy_up:
            return attach.filesystem(new, target, self._reopen(context), self.idmap)
        image = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=target)
        new.fill = lambda mount: self._copy_up(image, mount)
        try:
            return attach.filesystem(new, target, self._reopen(context), self.idmap)
        finally:
            os.close(image)

    def _copy_up(self, image: int, mount: int) -> None:
        from rootless.host.seeding import copy_tree

        filled = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
        try:
            copy_tree(image, filled, keep_mode=any(w.startswith("mode=") for w in self.options.filesystem))
        finally:
            os.close(filled)


class Proc(Filesystem):
    """A fresh procfs of the own pid namespace.

    The kernel refuses a new procfs in a user namespace (EPERM) unless one is visible without mounts over parts of it,
    for a new one would show what those hide (mount_too_revealing of fs/namespace.c). Inside of a container /proc is
    masked: there the visible one is bound as it is, and a warning says so.
    """

    __slots__ = ()

    def __init__(self, destination: str, options: MountOptions) -> None:
        super().__init__("proc", "proc", destination, options)

    def apply(self, context: RootContext) -> None:
        try:
            super().apply(context)
        except PermissionError:
            self._bind_instead(context, "/proc")
            context.warn("a fresh /proc is refused here: the container sees the one of its surroundings")


class Sysfs(Filesystem):
    """A fresh sysfs of the own network namespace; the host's, read-only, where the kernel refuses that."""

    __slots__ = ()

    def __init__(self, destination: str, options: MountOptions) -> None:
        super().__init__("sysfs", "sysfs", destination, options)

    def apply(self, context: RootContext) -> None:
        try:
            super().apply(context)
        except PermissionError:
            self.options.set |= mounts.MOUNT_ATTR_RDONLY
            self._bind_instead(context, "/sys")


class Mqueue(Filesystem):
    """POSIX message queues of the own ipc namespace; the host's where the namespace is the host's."""

    __slots__ = ()

    def __init__(self, destination: str, options: MountOptions) -> None:
        super().__init__("mqueue", "mqueue", destination, options)

    def apply(self, context: RootContext) -> None:
        try:
            super().apply(context)
        except PermissionError:
            if os.path.isdir("/dev/mqueue"):
                self._bind_instead(context, "/dev/mqueue")


class Cgroup(Filesystem):
    """The cgroup tree: cgroup2 of the own cgroup namespace, else the host's tree read-only, else nothing.

    CVE-2023-25809: without an own cgroup namespace the tree is never writable. What is there already, by a bound /sys,
    is the host's tree and becomes read-only with all that is mounted below it, whatever the configuration says of
    either: also where it is covered then, for an unmount would uncover it.
    """

    __slots__ = ("own_namespace",)

    def __init__(self, destination: str, options: MountOptions, *, own_namespace: bool) -> None:
        super().__init__("cgroup2", "cgroup", destination, options)
        self.own_namespace = own_namespace

    def describe(self) -> str:
        return f"mount cgroup on '{self.destination}'{self._suffix()}"

    def apply(self, context: RootContext) -> None:
        is_there = self._seal_host_tree(context)
        if self.own_namespace and os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
            try:
                super().apply(context)
            except OSError as e:
                if e.errno not in (errno.EPERM, errno.EACCES, errno.EBUSY):
                    raise
            else:
                return
        if not is_there and os.path.isdir("/sys/fs/cgroup"):
            self.options.set |= mounts.MOUNT_ATTR_RDONLY
            self._bind_instead(context, "/sys/fs/cgroup")

    def _seal_host_tree(self, context: RootContext) -> bool:
        """Make read-only what is mounted at the destination; whether its top is a cgroup."""
        target = existing(context, self.destination)
        if target is None:
            return False
        try:
            attach.set_attributes(target, mounts.MOUNT_ATTR_RDONLY, recursive=True)
            return mounts.fs_magic(target) in (mounts.CGROUP_SUPER_MAGIC, mounts.CGROUP2_SUPER_MAGIC)
        except OSError as e:
            if e.errno != errno.EINVAL:
                raise
            return False  # a plain directory: nothing is mounted there
        finally:
            os.close(target)


def attribute_names(attributes: int) -> list[str]:
    """Option words of MOUNT_ATTR_* bits."""
    names = [
        word
        for word, bit in (
            ("ro", mounts.MOUNT_ATTR_RDONLY),
            ("nosuid", mounts.MOUNT_ATTR_NOSUID),
            ("nodev", mounts.MOUNT_ATTR_NODEV),
            ("noexec", mounts.MOUNT_ATTR_NOEXEC),
            ("nodiratime", mounts.MOUNT_ATTR_NODIRATIME),
            ("nosymfollow", mounts.MOUNT_ATTR_NOSYMFOLLOW),
        )
        if attributes & bit
    ]
    choice = attributes & mounts.MOUNT_ATTR__ATIME
    if choice:
        names.append("noatime" if choice == mounts.MOUNT_ATTR_NOATIME else "strictatime")
    return names
