"""The kernel's overlayfs, mounted inside the container's user and mount namespace (Linux 5.11, `userxattr`).

The mount dies with its namespace. On kernels before 6.7 all options must fit in one page, so the lower directories get
one-character names there: links in a tmpfs that exists only while mounting.
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
MAX_LAYERS = 500  # OVL_MAX_STACK of the kernel
# The answers of fsconfig(2) to a key that the kernel does not know; a seccomp filter around us answers the last two
_UNKNOWN_KEY = (errno.EINVAL, errno.ENOSYS, errno.EPERM)


class Overlay:
    """Mounts one plan in the namespaces of the caller."""

    __slots__ = ("_plan",)

    def __init__(self, plan: RootfsPlan) -> None:
        self._plan = plan

    def __call__(self, target: str) -> None:
        """Mount on directory `target`. Raises RuntimeFailure with the kernel's own words."""
        plan = self._plan
        if plan.volatile:
            _forget_incompatible(plan.work)
        try:
            fd = overlay_fd(plan.lowerdirs, plan.upper, plan.work, volatile=plan.volatile)
            if fd is not None:
                try:
                    mounts.move_mount_to(fd, mounts.AT_FDCWD, target)
                finally:
                    os.close(fd)
            else:
                mount_by_page(plan.lowerdirs, plan.upper, plan.work, target, volatile=plan.volatile)
            if os.statvfs(target).f_flag & os.ST_RDONLY and not os.statvfs(plan.upper).f_flag & os.ST_RDONLY:
                # Without room for its work directory overlayfs mounts read-only, and says so in the kernel's log only:
                # everything that the container writes would fail, and nobody would know why
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
        """Nothing is held outside of the namespaces."""


def overlay_fd(lowerdirs: list[str], upper: str, work: str, *, volatile: bool) -> int | None:
    """A detached overlay mount, or None where the kernel has no `lowerdir+` or no mount file descriptors.

    `lowerdir+` takes a path as it is; upper and work would be unescaped by some kernels, so they are given as names
    relative to their directory.
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
                mounts.fsconfig_string(fs, "lowerdir+", directory)
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
                return None  # Linux before 6.5 takes any key, and reads them only now; mount(2) tells what is wrong
            raise
        return mounts.fsmount(fs)
    finally:
        os.fchdir(here)
        os.close(here)
        os.close(fs)


def mount_by_page(lowerdirs: list[str], upper: str, work: str, target: str, *, volatile: bool) -> None:
    """Mount with mount(2), whose options have to fit into one page.

    So each directory is named by a link of one to three digits, in a tmpfs which is the current directory. It is
    detached at once: overlayfs resolves the names while it mounts, and the current directory stays as it is.
    """
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mounts.mount("tmpfs", target, "tmpfs", mounts.MS_NOSUID | mounts.MS_NODEV, "mode=0700")
        try:
            os.chdir(target)
            for position, directory in enumerate(lowerdirs):
                os.symlink(directory, str(position))
            os.symlink(upper, "u")
            os.symlink(work, "w")
        finally:
            mounts.umount(target, mounts.MNT_DETACH)
        lower = ":".join(str(position) for position in range(len(lowerdirs)))
        options = f"lowerdir={lower},upperdir=u,workdir=w,userxattr,index=off{',volatile' if volatile else ''}"
        mounts.mount("overlay", target, "overlay", 0, options)
    finally:
        os.fchdir(here)
        os.close(here)


def _forget_incompatible(work: str) -> None:
    """Remove the mark by which overlayfs refuses to mount a volatile upper directory once more.

    The mark is there because after a crash of the host such a directory may have lost anything. A restart of the same
    container is no crash: the page cache still has what was written.
    """
    try:
        os.unlink(f"{work}/work/incompat/volatile/dirty")
    except OSError:
        return
    for name in ("work/incompat/volatile", "work/incompat"):
        os.rmdir(f"{work}/{name}")


class OverlayDriver:
    """The driver of most hosts: nothing of it is left when the container's namespaces end."""

    __slots__ = ()
    name = "overlay"
    rank = 1
    purpose = "the kernel's overlayfs"
    loss = program = package = ""
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
        """Mount one for real. Raises HostLimit (no user namespace, no id map), OSError."""
        from rootless.host.facts import kernel_version
        from rootless.host.probes.result import Probe
        from rootless.host.probes.trial import Scratch
        from rootless.storage.drivers.trial_mount import try_driver

        with Scratch(directory) as base:
            try:
                # Without user.* attributes overlayfs with `userxattr` cannot mark a directory as opaque or redirected
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
