"""kernel.mounts, files and tty in a user namespace of the real kernel."""

from __future__ import annotations

import errno
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from rootless.host import userns
from rootless.host.answer import fork_and_read
from rootless.host.idmap import single_map
from rootless.kernel import files, mounts, namespaces, process, procfs, tty


def inside(function: Callable[[], object]) -> None:
    """Run `function`, which asserts, as root of a new user and mount namespace."""

    def run() -> bytes:
        function()
        return b""

    userns.call_in_new_namespace(single_map(0, 0), run)


@pytest.fixture
def base(store_root: Path) -> Path:
    for name in ("lower", "upper", "work", "merged", "target"):
        (store_root / name).mkdir()
    (store_root / "lower/file").write_text("x")
    return store_root


def test_detached_copy_moved_onto_an_fd(base: Path) -> None:
    """TRAPS 3.7: a mount lands on the fd that was checked; the target is opened again to work in it."""

    def work() -> None:
        tree = mounts.open_tree(mounts.AT_FDCWD, str(base / "lower"), mounts.OPEN_TREE_CLONE)
        target = os.open(base / "target", os.O_PATH | os.O_DIRECTORY)
        mounts.move_mount(tree, target)
        assert os.listdir(base / "target") == ["file"]
        mounts.umount(str(base / "target"), mounts.MNT_DETACH)
        tree = mounts.open_tree(mounts.AT_FDCWD, str(base / "lower"), mounts.OPEN_TREE_CLONE)
        parent = os.open(base, os.O_PATH | os.O_DIRECTORY)
        mounts.move_mount_to(tree, parent, "target")
        assert os.listdir(base / "target") == ["file"]

    inside(work)


def test_read_only_reaches_submounts(base: Path) -> None:
    """TRAPS 3.5: old bind flags do not reach submounts, mount_setattr with AT_RECURSIVE does."""

    def work() -> None:
        mounts.mount("tmpfs", str(base / "target"), "tmpfs", 0)
        os.mkdir(base / "target/sub")
        mounts.mount("tmpfs", str(base / "target/sub"), "tmpfs", 0)
        fd = os.open(base / "target", os.O_PATH)
        mounts.mount_setattr(fd, set=mounts.MOUNT_ATTR_RDONLY, recursive=True)
        with pytest.raises(OSError) as caught:
            os.mkdir(base / "target/sub/x")
        assert caught.value.errno == errno.EROFS
        assert mounts.statfs_flags(str(base / "target/sub")) & mounts.MS_RDONLY

    inside(work)


def test_remount_must_repeat_locked_flags(base: Path) -> None:
    """TRAPS 3.5: statfs_flags gives what a remount in a user namespace has to repeat."""

    def work() -> None:
        kept = mounts.statfs_flags("/proc")
        mounts.mount("/proc/self", str(base / "target"), None, mounts.MS_BIND | mounts.MS_REC)
        flags = mounts.MS_BIND | mounts.MS_REMOUNT | mounts.MS_RDONLY
        mounts.mount(None, str(base / "target"), None, flags | kept)
        assert mounts.statfs_flags(str(base / "target")) & mounts.MS_RDONLY

    inside(work)


def test_many_lower_layers_by_fsconfig(base: Path) -> None:
    """TRAPS 3.12: 120 long lowers do not fit into the page of mount(2); fsconfig takes them one by one."""

    def work() -> None:
        fs = mounts.fsopen("overlay")
        for number in range(120):
            lower = base / ("l" * 100 + str(number))
            lower.mkdir()
            (lower / f"f{number}").write_text("")
            mounts.fsconfig_string(fs, "lowerdir+", str(lower))
        mounts.fsconfig_string(fs, "upperdir", str(base / "upper"))
        mounts.fsconfig_string(fs, "workdir", str(base / "work"))
        mounts.fsconfig_flag(fs, "userxattr")
        mounts.fsconfig_create(fs)
        mounts.move_mount_to(mounts.fsmount(fs), mounts.AT_FDCWD, str(base / "merged"))
        assert len(os.listdir(base / "merged")) == 120
        fd = os.open(base / "merged", os.O_PATH)
        assert mounts.fs_magic(fd) == mounts.OVERLAYFS_SUPER_MAGIC

    inside(work)


def test_kernel_words_are_in_the_notes(base: Path) -> None:
    def work() -> None:
        fs = mounts.fsopen("overlay")
        with pytest.raises(OSError) as caught:
            mounts.fsconfig_string(fs, "no_such_option", "x")
        assert any("no_such_option" in note for note in caught.value.__notes__)

    inside(work)


def test_pivot_root_onto_itself(base: Path) -> None:
    """TRAPS 3.4: pivot_root(".", ".")."""

    def work() -> None:
        mounts.mount("tmpfs", str(base / "target"), "tmpfs", 0)
        (base / "target/marker").write_text("")
        old = os.open("/", os.O_PATH | os.O_DIRECTORY)
        os.chdir(base / "target")
        mounts.pivot_root(".", ".")
        os.fchdir(old)
        mounts.mount(None, ".", None, mounts.MS_SLAVE | mounts.MS_REC)
        mounts.umount(".", mounts.MNT_DETACH)
        os.chdir("/")
        assert os.listdir("/") == ["marker"]

    inside(work)


def test_whiteout_is_the_one_device_that_can_be_made(base: Path) -> None:
    """TRAPS 3.10: mknod c 0 0 is allowed in a user namespace, other devices are not."""

    def work() -> None:
        fd = os.open(base / "upper", os.O_PATH)
        files.make_whiteout(fd, "file")
        assert files.is_whiteout(os.lstat(base / "upper/file"))
        with pytest.raises(PermissionError):
            os.mknod("null", stat.S_IFCHR | 0o666, os.makedev(1, 3), dir_fd=fd)
        options = f"lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work,userxattr"
        mounts.mount("overlay", str(base / "merged"), "overlay", 0, options)
        assert os.listdir(base / "merged") == []

    inside(work)


def test_pty_of_a_new_devpts(base: Path) -> None:
    def work() -> None:
        mounts.mount("devpts", str(base / "target"), "devpts", 0, "newinstance,ptmxmode=0666,mode=0620")
        fd = os.open(base / "target", os.O_PATH)
        master, slave = tty.open_ptmx(fd)
        assert tty.is_pty_slave(slave)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.setsid()
        tty.set_controlling(slave)
        assert os.open("/dev/tty", os.O_RDWR) >= 0
        os.close(master)

    inside(work)


def test_proc_that_is_mounted_over_is_noticed(base: Path) -> None:
    """CVE-2025-52881, CVE-2019-16884: no write reaches a file that is bound over an attribute."""

    def work() -> None:
        mounts.mount(str(base / "lower/file"), f"/proc/{os.getpid()}/comm", None, mounts.MS_BIND)
        root = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
        for forced in ("0", "1"):
            os.environ["ROOTLESS_NO_OPENAT2"] = forced
            with pytest.raises(OSError) as caught:
                procfs.write_proc(root, f"{os.getpid()}/comm", b"name")
            assert caught.value.errno == errno.EXDEV
        assert (base / "lower/file").read_text() == "x"

    inside(work)


def test_capabilities_can_be_dropped_and_raised() -> None:
    def work() -> None:
        effective, permitted, _ = process.capget()
        chown = 1 << 0
        assert permitted & chown
        process.capset(effective, permitted, chown)
        process.cap_ambient_raise(0)
        process.cap_ambient_clear()
        assert process.cap_bound_read(1)
        process.cap_bound_drop(1)
        assert not process.cap_bound_read(1)
        process.capset(0, 0, 0)
        assert process.capget() == (0, 0, 0)
        with pytest.raises(OSError) as caught:
            process.cap_bound_read(63)
        assert caught.value.errno == errno.EINVAL

    inside(work)


def test_host_name_of_its_own() -> None:
    before = os.uname().nodename

    def work() -> None:
        namespaces.unshare(namespaces.CLONE_NEWUTS)
        namespaces.sethostname("box")
        namespaces.setdomainname("example")
        assert os.uname().nodename == "box"

    inside(work)
    assert os.uname().nodename == before


def test_session_keyring() -> None:
    from rootless.kernel import process

    def work() -> bytes:
        serial = process.join_session_keyring("rootless-test")
        return f"{serial:08x} ".encode() + Path("/proc/keys").read_bytes()

    serial, _, keys = fork_and_read(work).partition(b" ")
    assert [line for line in keys.splitlines() if line.startswith(serial) and b"rootless-test" in line]
