"""The overlay driver: the kernel's overlayfs, mounted inside the container's user and mount namespace.

Users may mount overlayfs in a user namespace from Linux 5.11 on, with the option `userxattr`, by which it keeps its
marks in `user.overlay.*` attributes. The mount ends with its mount namespace. Where the kernel lacks the option
`lowerdir+` (Linux 6.7), all options must fit in one page, and the layers get short names for the time of mounting.
"""

from __future__ import annotations

import errno
import os

from rootless.errors import HostLimit, RuntimeFailure
from rootless.kernel import mounts
from rootless.records.rootfs import RootfsPlan
from rootless.storage.drivers import ChangeForm
from rootless.storage.drivers.writable import make_directories

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.host.probes.result import Probe
    from rootless.records.id_map import IdMap
    from rootless.storage.drivers import Driver

_ELSEWHERE = "set ROOTLESS_ROOT to a directory on a local ext4, xfs or btrfs filesystem"
DATA_ONLY = "::"
"""Before the path of a lower layer that has only the content of other layers' files, as in mount(2)'s option."""
MAX_LAYERS = 500  # the kernel's OVL_MAX_STACK
# The errors of fsconfig(2) for a key that the kernel does not know. The last two are those of a seccomp filter, as in
# a container around this one.
_UNKNOWN_KEY = (errno.EINVAL, errno.ENOSYS, errno.EPERM)


class Overlay:
    """The Mounter: it mounts one plan in the namespaces of its caller."""

    __slots__ = ("_plan",)

    def __init__(self, plan: RootfsPlan) -> None:
        self._plan = plan

    def __call__(self, target: str) -> None:
        """Mount on directory `target`. Raises HostLimit (full disk), RuntimeFailure with the kernel's own words."""
        plan = self._plan
        if plan.volatile:
            _forget_incompatible(plan.work)
        try:
            lowerdirs = [*plan.lowerdirs, *([f"{DATA_ONLY}{plan.content}"] if plan.content else [])]
            fd = overlay_fd(lowerdirs, plan.upper, plan.work, volatile=plan.volatile)
            if fd is not None:
                try:
                    mounts.move_mount_to(fd, mounts.AT_FDCWD, target)
                finally:
                    os.close(fd)
            else:
                mount_by_page(lowerdirs, plan.upper, plan.work, target, volatile=plan.volatile)
            if os.statvfs(target).f_flag & os.ST_RDONLY and not os.statvfs(plan.upper).f_flag & os.ST_RDONLY:
                # Where overlayfs has no room for its work directory it mounts read-only, and says so only in the
                # kernel's log: everything that the container writes would fail, and nobody would know why.
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), plan.work)
        except OSError as e:
            if e.errno in (errno.ENOSPC, errno.EDQUOT):
                from rootless.host.full import full_error

                raise full_error(f"no room for the container's files in '{plan.directory}'", e, plan.upper) from e
            words = "".join(f" ({note})" for note in getattr(e, "__notes__", ()) if "overlay" in note)
            raise RuntimeFailure(
                f"cannot mount overlay of {len(plan.lowerdirs)} layers on '{target}': {e.strerror}{words}",
                hint="try `--storage-driver fuse-overlayfs`, and see `rootless doctor`",
            ) from e

    def close(self) -> None:
        """Do nothing: there is nothing outside of the namespaces."""


def overlay_fd(lowerdirs: list[str], upper: str, work: str, *, volatile: bool) -> int | None:
    """A detached overlay mount; None where the kernel has no `lowerdir+` or no mounts by file descriptors (fsopen(2)).

    `lowerdir+` takes a path as it is. In `upperdir` and `workdir` some kernels take a backslash for an escape, so these
    two are given as names relative to the directory that they are in.
    """
    try:
        fs = mounts.fsopen("overlay")
    except OSError as e:
        if e.errno in (errno.ENOSYS, errno.EPERM):
            return None
        raise
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            mounts.fsconfig_string(fs, "source", "overlay")
            for directory in lowerdirs:
                key = "datadir+" if directory.startswith(DATA_ONLY) else "lowerdir+"
                mounts.fsconfig_string(fs, key, directory.removeprefix(DATA_ONLY))
        except OSError as e:
            if e.errno in _UNKNOWN_KEY:
                return None
            raise
        os.chdir(os.path.dirname(upper))
        mounts.fsconfig_string(fs, "upperdir", os.path.basename(upper))
        mounts.fsconfig_string(fs, "workdir", os.path.relpath(work))
        for flag in ("userxattr", *(["volatile"] if volatile else [])):
            mounts.fsconfig_flag(fs, flag)
        mounts.fsconfig_string(fs, "index", "off")
        try:
            mounts.fsconfig_create(fs)
        except OSError as e:
            if e.errno == errno.EINVAL:
                # Linux before 6.5 accepts any key and looks at them only now. Perhaps `lowerdir+` was refused; if it
                # was something else, mount(2) will fail with the true reason.
                return None
            raise
        return mounts.fsmount(fs)
    finally:
        os.fchdir(here)
        os.close(here)
        os.close(fs)


def mount_by_page(lowerdirs: list[str], upper: str, work: str, target: str, *, volatile: bool) -> None:
    """Mount with mount(2), which takes one page of options.

    So each directory is named by a link of one to three digits, in a tmpfs that is the current directory. The tmpfs can
    be detached before the mount: the current directory stays what it is, and overlayfs resolves the names while it
    mounts.
    """
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mounts.mount("tmpfs", target, "tmpfs", mounts.MS_NOSUID | mounts.MS_NODEV, "mode=0700")
        try:
            os.chdir(target)
            for position, directory in enumerate(lowerdirs):
                os.symlink(directory.removeprefix(DATA_ONLY), str(position))
            os.symlink(upper, "u")
            os.symlink(work, "w")
        finally:
            mounts.umount(target, mounts.MNT_DETACH)
        marks = (DATA_ONLY if directory.startswith(DATA_ONLY) else "" for directory in lowerdirs)
        lower = ":".join(f"{mark[1:]}{position}" for position, mark in enumerate(marks))
        options = f"lowerdir={lower},upperdir=u,workdir=w,userxattr,index=off{',volatile' if volatile else ''}"
        mounts.mount("overlay", target, "overlay", 0, options)
    finally:
        os.fchdir(here)
        os.close(here)


def _forget_incompatible(work: str) -> None:
    """Remove the mark by which overlayfs refuses to mount a `volatile` upper directory once more.

    A volatile mount writes nothing through to the disk, so that after a crash of the host anything may be missing
    (overlayfs.rst, "Volatile mount"). A container that is started again without a crash has lost nothing: what it wrote
    is still in the page cache.
    """
    try:
        os.unlink(f"{work}/work/incompat/volatile/dirty")
    except OSError:
        return
    for name in ("work/incompat/volatile", "work/incompat"):
        os.rmdir(f"{work}/{name}")


class OverlayDriver:
    """The driver of most hosts. Its mount ends with the container's namespaces, and nothing is left."""

    __slots__ = ()
    name = "overlay"
    rank = 1
    purpose = "the kernel's overlayfs"
    loss = program = package = ""
    # Only root of the host may make an idmapped mount of ext4 or xfs, by which overlayfs could show other owners
    shows_owners = False
    reads_views = True
    form = ChangeForm()

    def complete(self, plan: RootfsPlan) -> None:
        """Add `work`. Raises HostLimit for more layers than the kernel takes."""
        if len(plan.lowerdirs) > MAX_LAYERS:
            raise HostLimit(f"the image has {len(plan.lowerdirs)} layers, overlayfs takes {MAX_LAYERS}")
        plan.work = f"{plan.directory}/work"

    def prepare(self, plan: RootfsPlan, id_map: IdMap) -> None:
        """Make `upper` and `work` in the container's directory. Raises HostLimit."""
        make_directories(plan, id_map, "work")

    def mounter(self, plan: RootfsPlan) -> Overlay:
        """What mounts the plan."""
        return Overlay(plan)

    def unmount(self, plan: RootfsPlan) -> None:
        """Do nothing: the kernel drops the mount with its namespace."""

    def probe(self, directory: str, id_map: IdMap) -> Probe:
        """Mount a small tree, in a user and mount namespace. Raises HostLimit where none can be made, OSError."""
        from rootless.host.facts import kernel_version
        from rootless.host.probes.result import Probe
        from rootless.host.probes.trial import Scratch
        from rootless.storage.drivers.trial_mount import try_driver

        with Scratch(directory) as base:
            try:
                # With `userxattr`, overlayfs marks a directory as opaque or moved by its user.* attributes
                os.setxattr(base, "user.rootless.probe", b"1")
            except OSError as e:
                return Probe(self.name, False, f"no user.* extended attributes here: {e.strerror}", _ELSEWHERE)
        try:
            return try_driver(self, directory, id_map)
        except (RuntimeFailure, OSError) as e:
            old = kernel_version() < (5, 11)
            remedy = "a kernel of version 5.11 or newer, or fuse-overlayfs" if old else _ELSEWHERE
            return Probe(self.name, False, e.message if isinstance(e, RuntimeFailure) else str(e), remedy)


DRIVER: Driver = OverlayDriver()
